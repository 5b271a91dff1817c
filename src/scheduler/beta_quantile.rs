//! Quantiles of the Beta distribution.

use crate::elementary::{exp, ln, ln_1p};

/// Returns the `x` in [0, 1] below which a Beta(a, b) variable falls with probability `p`.
pub(super) fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    if p <= 0.0 {
        return 0.0;
    }
    if p >= 1.0 {
        return 1.0;
    }
    if p > 0.5 {
        // Near 1 the quantile loses digits; its distance from 1 does not.
        return 1.0 - lower_quantile(1.0 - p, b, a);
    }
    lower_quantile(p, a, b)
}

/// Newton's method inside a shrinking bracket, on the logarithm of both sides so that tiny quantiles keep their digits.
fn lower_quantile(p: f64, a: f64, b: f64) -> f64 {
    let ln_beta = ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    // The leading term of the distribution near zero is x^a / (a B(a, b)).
    let mut x = exp((ln(p) + ln(a) + ln_beta) / a).clamp(1e-300, 0.9);
    for _ in 0..100 {
        let value = cumulative(x, a, b, ln_beta);
        if value > p {
            high = x;
        } else {
            low = x;
        }
        let density = exp((a - 1.0) * ln(x) + (b - 1.0) * ln_1p(-x) - ln_beta);
        let step = value * ln(value / p) / (density * x);
        let mut next = x * exp(-step);
        if !(next > low && next < high) {
            next = 0.5 * (low + high);
        }
        if (next - x).abs() <= 1e-16 * x {
            return next;
        }
        x = next;
    }
    x
}

/// The regularized incomplete beta function, by its continued fraction (DLMF 8.17.22).
fn cumulative(x: f64, a: f64, b: f64, ln_beta: f64) -> f64 {
    let front = exp(a * ln(x) + b * ln_1p(-x) - ln_beta);
    if x > (a + 1.0) / (a + b + 2.0) {
        1.0 - front * fraction(1.0 - x, b, a) / b
    } else {
        front * fraction(x, a, b) / a
    }
}

/// Lentz's evaluation of the continued fraction.
fn fraction(x: f64, a: f64, b: f64) -> f64 {
    let floor = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / floor(1.0 - (a + b) * x / (a + 1.0));
    let mut h = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / floor(1.0 + even * d);
        c = floor(1.0 + even / c);
        h *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / floor(1.0 + odd * d);
        c = floor(1.0 + odd / c);
        h *= d * c;
        if (d * c - 1.0).abs() < 1e-16 {
            break;
        }
    }
    h
}

/// The logarithm of the gamma function for positive arguments, by Stirling's series after shifting the argument up.
fn ln_gamma(x: f64) -> f64 {
    let mut shift = 0.0;
    let mut y = x;
    while y < 12.0 {
        shift += ln(y);
        y += 1.0;
    }
    let inverse = 1.0 / (y * y);
    let series = (1.0 / 12.0
        + inverse * (-1.0 / 360.0 + inverse * (1.0 / 1260.0 + inverse * (-1.0 / 1680.0 + inverse / 1188.0))))
        / y;
    (y - 0.5) * ln(y) - y + 0.5 * ln(2.0 * std::f64::consts::PI) + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_scipy() {
        // scipy.stats.beta.ppf(p, 0.6, 0.6)
        for (p, expected) in SCIPY {
            let got = beta_quantile(p, 0.6, 0.6);
            assert!((got - expected).abs() <= 1e-13 * expected, "{p}: {got} is not {expected}");
        }
    }

    const SCIPY: [(f64, f64); 9] = [
        (1e-6, 1.8558824624053043e-10),
        (0.001, 1.855873851745199e-5),
        (0.05, 0.012554456873611399),
        (0.25, 0.17568037865269498),
        (0.45, 0.430815501976733),
        (0.5, 0.5),
        (0.6, 0.6372990092467856),
        (0.9, 0.9604155944112192),
        (0.999, 0.9999814412614826),
    ];
}
