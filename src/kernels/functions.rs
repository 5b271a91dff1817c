//! Functions of single numbers, written so that the compiler vectorizes them. Absolute errors are below 3e-7 of the largest
//! of the result and 1.

/// A function that is applied to each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// `x · sigmoid(x)`, also called swish.
    Silu,
    /// `x · Φ(x)`, Φ being the normal distribution.
    Gelu,
    /// GELU's approximation by a hyperbolic tangent.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
}

impl Activation {
    /// Applies it.
    #[inline(always)]
    pub fn of(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Silu => x * sigmoid(x),
            Self::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
            Self::GeluTanh => {
                const SCALE: f32 = 1.595_769; // 2 √(2/π)
                x * sigmoid(SCALE * (x + 0.044_715 * x * x * x))
            }
            Self::QuickGelu => x * sigmoid(1.702 * x),
        }
    }
}

/// Applies an activation, decided outside of the loop.
#[inline(always)]
pub fn activate(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::Silu => values.iter_mut().for_each(|x| *x = Activation::Silu.of(*x)),
        Activation::Gelu => values.iter_mut().for_each(|x| *x = Activation::Gelu.of(*x)),
        Activation::GeluTanh => values.iter_mut().for_each(|x| *x = Activation::GeluTanh.of(*x)),
        Activation::QuickGelu => values.iter_mut().for_each(|x| *x = Activation::QuickGelu.of(*x)),
    }
}

/// Adding it rounds to a whole number, which is then in the lowest bits.
pub const ROUND: f32 = 12_582_912.0;

/// Factors of `2^x` for x from -0.5 to 0.5, the highest first: Taylor's, powers of ln 2 by factorials. The relative error is
/// below 1e-7.
pub const EXP2: [f32; 7] =
    [1.540_353e-4, 1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 0.240_226_5, std::f32::consts::LN_2, 1.0];
/// The same with an error of 1e-4, a thirtieth of the rounding of bfloat16.
pub const EXP2_BF16: [f32; 4] = [0.055_171, 0.242_611, 0.693_261, 0.999_928];

/// `2^x` for x below 127, by the factors [`EXP2`] or [`EXP2_BF16`]. Below -126 the result is that of -126; that of NaN is
/// [`f32::NAN`].
#[inline(always)]
pub fn exp2<const N: usize>(x: f32, factors: &[f32; N]) -> f32 {
    let x = if x < -126.0 { -126.0 } else { x };
    let shifted = x + ROUND;
    let rest = x - (shifted - ROUND);
    let mut sum = 0.0;
    for factor in factors {
        sum = rest.mul_add(sum, *factor);
    }
    let power = f32::from_bits(sum.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x.is_nan() { f32::NAN } else { power }
}

/// The exponential function. Below -87 the result is that of -87.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // ln 2 in two parts, of which the first has few bits.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = whole.mul_add(-LN2_LOW, whole.mul_add(-LN2_HIGH, x));
    // Taylor's series: |rest| is at most ln(2) / 2.
    let mut sum = 1.0 / 720.0;
    for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = rest.mul_add(sum, factor);
    }
    let exponent = (shifted.to_bits() << 23).wrapping_add(127 << 23);
    sum * f32::from_bits(exponent)
}

/// The logistic function.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function: `1 - exp(-x p(x))` for positive x, with a polynomial fitted on 0 to 4 by reweighted least squares.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    const P: [f32; 9] = [
        -7.184_044_5e-6,
        9.837_617e-5,
        -5.604_583e-4,
        1.525_257e-3,
        -4.611_198e-6,
        -1.924_921_6e-2,
        1.028_093_4e-1,
        6.366_146e-1,
        1.128_379_3,
    ];
    // NaN stays NaN, other than with `min`.
    let positive = if x.abs() > 4.0 { 4.0 } else { x.abs() };
    let mut sum = 0.0;
    for factor in P {
        sum = positive.mul_add(sum, factor);
    }
    (1.0 - exp(-positive * sum)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error function in float64, by its series.
    fn erf_exact(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn functions_are_as_exact_as_they_say() {
        for at in -4000..=4000 {
            let x = at as f32 / 1000.0;
            let wide = f64::from(x);
            assert!((f64::from(exp(x)) / wide.exp() - 1.0).abs() < 3e-7, "exp({x})");
            let below = -31.0 * x.abs();
            assert!((f64::from(exp2(below, &EXP2)) / f64::from(below).exp2() - 1.0).abs() < 3e-7, "exp2({below})");
            assert!((f64::from(erf(x)) - erf_exact(wide)).abs() < 3e-7, "erf({x})");
            let silu = wide / (1.0 + (-wide).exp());
            assert!((f64::from(Activation::Silu.of(x)) - silu).abs() < 3e-7 * wide.abs().max(1.0), "silu({x})");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1000.0) < 1e-37 && exp(88.0).is_finite());
        assert!((erf(9.0) - 1.0).abs() < 2e-7 && (erf(-9.0) + 1.0).abs() < 2e-7);
        assert!([0x7fc0_0000, 0xffff_ffff, 0x7f80_0001].iter().all(|bits| exp2(f32::from_bits(*bits), &EXP2).is_nan()));
        assert!(exp2(f32::NEG_INFINITY, &EXP2) < 2e-38 && exp2(0.0, &EXP2) == 1.0);
        assert!(exp(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
    }
}
