//! The weights of stochastic Adams updates: integrals over a step of the polynomials through earlier model outputs,
//! times an exponential.
//!
//! Every rounding is that of diffusers' float32, since the integrals are differences of far larger numbers.

use super::betas::exp_f32;

/// The noise scale of a step and its derived values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tau {
    /// The noise scale, 0 for none.
    pub size: f64,
    /// Its square.
    pub square: f64,
    /// Its square plus one.
    pub rate: f64,
}

impl Tau {
    pub(super) fn new(size: f64) -> Self {
        Self { size, square: size * size, rate: 1.0 + size * size }
    }
}

/// The interval in lambda of an update.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval {
    pub start: f32,
    pub end: f32,
}

/// The highest order.
pub(super) const MAX_ORDER: usize = 4;

/// Returns the weights of the model outputs at the nodes `lambdas`, newest first, in the update over an interval.
/// Weights beyond the nodes are 0.
pub(super) fn weights(predict_x0: bool, interval: Interval, lambdas: &[f32], tau: Tau) -> [f32; MAX_ORDER] {
    let order = lambdas.len().min(MAX_ORDER);
    let mut moments = [0.0; MAX_ORDER];
    for (j, moment) in moments[..order].iter_mut().enumerate() {
        let power = order - 1 - j;
        *moment = if predict_x0 { integrate_x0(power, interval, tau) } else { integrate_epsilon(power, interval) };
    }
    let mut weights = [0.0; MAX_ORDER];
    for (i, weight) in weights[..order].iter_mut().enumerate() {
        let products = lagrange(&lambdas[..order], i).into_iter().zip(moments).take(order).map(|(c, m)| c * m);
        *weight = products.reduce(|sum, product| sum + product).unwrap_or(0.0);
    }
    weights
}

/// Returns the coefficients, highest power first, of the polynomial that is 1 at node `at` and 0 at the others.
fn lagrange(lambdas: &[f32], at: usize) -> [f32; MAX_ORDER] {
    let mut others = [0.0; MAX_ORDER];
    let mut divisor = 1.0;
    for (other, (_, lambda)) in others.iter_mut().zip(lambdas.iter().enumerate().filter(|(j, _)| *j != at)) {
        *other = *lambda;
        divisor *= lambdas[at] - lambda;
    }
    let [a, b, c, _] = others;
    match lambdas.len() {
        0 | 1 => [1.0, 0.0, 0.0, 0.0],
        2 => [1.0 / divisor, -a / divisor, 0.0, 0.0],
        3 => [1.0 / divisor, (-a - b) / divisor, a * b / divisor, 0.0],
        _ => [1.0 / divisor, (-a - b - c) / divisor, (a * b + a * c + b * c) / divisor, -a * b * c / divisor],
    }
}

/// Computes the antiderivative of `x^power e^x` without its exponential, or with `sign` -1 that of `x^power e^-x`,
/// negated.
fn antiderivative(power: usize, x: f32, sign: f32) -> f32 {
    match power {
        0 => 1.0,
        1 => x - sign,
        2 => x * x - sign * 2.0 * x + 2.0,
        _ => x * x * x - sign * 3.0 * (x * x) + 6.0 * x - sign * 6.0,
    }
}

/// Integrates `lambda^power` with the exponential of the x0 prediction.
fn integrate_x0(power: usize, interval: Interval, tau: Tau) -> f32 {
    let rate = tau.rate as f32;
    let (start, end) = (rate * interval.start, rate * interval.end);
    let decay = exp_f32(-(end - start));
    let difference = antiderivative(power, end, 1.0) - antiderivative(power, start, 1.0) * decay;
    exp_f32(end) * difference / tau.rate.powi(power as i32 + 1) as f32
}

/// Integrates `lambda^power` with the exponential of the epsilon prediction.
fn integrate_epsilon(power: usize, interval: Interval) -> f32 {
    let Interval { start, end } = interval;
    let growth = exp_f32(end - start);
    exp_f32(-end) * (antiderivative(power, start, -1.0) * growth - antiderivative(power, end, -1.0))
}

/// Returns the correction of the second order, added to the newer output's weight and subtracted from the older one's:
/// the difference between the integral of a line and its trapezoid rule, which improves runs of few steps (section 5 of
/// the paper's appendix). `spacing` is the distance of the two outputs for the predictor; the corrector has none.
pub(super) fn second_order_shift(interval: Interval, spacing: Option<f32>, tau: Tau) -> f32 {
    let rate = tau.rate as f32;
    let square = (tau.rate * tau.rate) as f32;
    let h = interval.end - interval.start;
    let integral = h * rate - 1.0 + exp_f32(rate * -h);
    let growth = exp_f32(rate * interval.end);
    match spacing {
        Some(spacing) => growth * (h * h / 2.0 - integral / square) / spacing,
        None => growth * (h / 2.0 - integral / (square * h)),
    }
}
