//! The weights of stochastic Adams: integrals over a step of the polynomials through earlier answers, times the
//! exponential that the equation brings with it.
//!
//! Every rounding stands where diffusers' float32 has it: the integrals are differences of far larger numbers.

use super::noise::exp_f32;

/// How much noise the equation at hand is solved with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tau {
    /// The size of the noise, 0 for none.
    pub size: f64,
    /// Its square.
    pub square: f64,
    /// One more than its square.
    pub rate: f64,
}

impl Tau {
    pub(super) fn new(size: f64) -> Self {
        Self { size, square: size * size, rate: 1.0 + size * size }
    }
}

/// The interval in lambda that an update crosses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval {
    pub start: f32,
    pub end: f32,
}

/// The highest order there is.
pub(super) const MOST: usize = 4;

/// The weights of the answers at the nodes `lambdas`, newest first, in the update over an interval; those beyond the
/// nodes are 0.
pub(super) fn weights(of_image: bool, interval: Interval, lambdas: &[f32], tau: Tau) -> [f32; MOST] {
    let order = lambdas.len().min(MOST);
    let mut moments = [0.0; MOST];
    for (j, moment) in moments[..order].iter_mut().enumerate() {
        let power = order - 1 - j;
        *moment = if of_image { rising(power, interval, tau) } else { falling(power, interval) };
    }
    let mut weights = [0.0; MOST];
    for (i, weight) in weights[..order].iter_mut().enumerate() {
        let products = lagrange(&lambdas[..order], i).into_iter().zip(moments).take(order).map(|(c, m)| c * m);
        *weight = products.reduce(|sum, product| sum + product).unwrap_or(0.0);
    }
    weights
}

/// The coefficients, highest power first, of the polynomial that is 1 at node `at` and 0 at the others.
fn lagrange(lambdas: &[f32], at: usize) -> [f32; MOST] {
    let mut others = [0.0; MOST];
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

/// The antiderivative of `x^power e^x` without its exponential; with `sign` -1 that of `x^power e^-x`, negated.
fn antiderivative(power: usize, x: f32, sign: f32) -> f32 {
    match power {
        0 => 1.0,
        1 => x - sign,
        2 => x * x - sign * 2.0 * x + 2.0,
        _ => x * x * x - sign * 3.0 * (x * x) + 6.0 * x - sign * 6.0,
    }
}

/// The integral of `lambda^power` under the exponential of the image prediction.
fn rising(power: usize, interval: Interval, tau: Tau) -> f32 {
    let rate = tau.rate as f32;
    let (start, end) = (rate * interval.start, rate * interval.end);
    let decay = exp_f32(-(end - start));
    let difference = antiderivative(power, end, 1.0) - antiderivative(power, start, 1.0) * decay;
    exp_f32(end) * difference / tau.rate.powi(power as i32 + 1) as f32
}

/// The integral of `lambda^power` under the exponential of the noise prediction.
fn falling(power: usize, interval: Interval) -> f32 {
    let Interval { start, end } = interval;
    let growth = exp_f32(end - start);
    exp_f32(-end) * (antiderivative(power, start, -1.0) * growth - antiderivative(power, end, -1.0))
}

/// What the second order adds to the newer answer's weight and takes from the older one's: the difference of the
/// integral of a straight line and its value by the trapezoid rule, which is what makes few steps good (section 5 of
/// the paper's appendix). `spacing` is the distance of the two answers for the predictor; the corrector has none.
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
