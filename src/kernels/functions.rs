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
            Self::Gelu => gelu(x),
            Self::GeluTanh => x * sigmoid(TANH_SCALE * (x + TANH_CUBE * x * x * x)),
            Self::QuickGelu => x * sigmoid(QUICK_SCALE * x),
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

/// The factor in the hyperbolic tangent's GELU, `2 √(2/π)`.
pub const TANH_SCALE: f32 = 1.595_769;
/// The factor of the cube there.
pub const TANH_CUBE: f32 = 0.044_715;
/// The factor in the quick GELU.
pub const QUICK_SCALE: f32 = 1.702;

/// The number above which [`gelu`] differs from its argument, or from zero, by less than 5e-8.
pub const GELU_END: f32 = 5.656_854;
/// Factors of `log2(erfc(x / √2)) / x` for x from 0 to [`GELU_END`], the highest first, fitted by reweighted least squares of the
/// relative error of GELU up to about 1 and of its absolute error above.
pub const GELU: [f32; 10] = [
    -3.897_790_5e-8,
    1.081_690_9e-6,
    -1.295_806_7e-5,
    8.576_907e-5,
    -3.041_868_6e-4,
    3.647_359_7e-5,
    6.917_754e-3,
    -5.243_032_8e-2,
    -0.459_222_1,
    -1.151_104_2,
];
/// The same with an error of 3e-4 in the power of two, a sixth of the rounding of bfloat16.
#[cfg(target_arch = "x86_64")]
pub const GELU_BF16: [f32; 5] = [-2.307_315_6e-4, 4.861_870_3e-3, -4.472_052e-2, -0.469_002_22, -1.147_281_5];

/// `x · Φ(x)`, which is `max(x, 0) - |x| · erfc(|x| / √2) / 2`.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    // NaN stays NaN, other than with `min` and `max`.
    let positive = if x.abs() > GELU_END { GELU_END } else { x.abs() };
    let mut sum = 0.0;
    for factor in GELU {
        sum = positive.mul_add(sum, factor);
    }
    let above = if x < 0.0 { 0.0 } else { x };
    (0.5 * positive).mul_add(-exp2(positive * sum, &EXP2), above)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GELU in float64, by the series of the error function.
    fn gelu_exact(x: f64) -> f64 {
        let z = x / std::f64::consts::SQRT_2;
        let (mut term, mut sum) = (z, z);
        for n in 1..300 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        x * (0.5 + sum / std::f64::consts::PI.sqrt())
    }

    #[test]
    fn functions_are_as_exact_as_they_say() {
        for at in -4000..=4000 {
            let x = at as f32 / 1000.0;
            let wide = f64::from(x);
            assert!((f64::from(exp(x)) / wide.exp() - 1.0).abs() < 3e-7, "exp({x})");
            let below = -31.0 * x.abs();
            assert!((f64::from(exp2(below, &EXP2)) / f64::from(below).exp2() - 1.0).abs() < 3e-7, "exp2({below})");
            let gelu = gelu_exact(wide);
            let bound = 3e-7 * gelu.abs() + if x.abs() < 1.0 { 0.0 } else { 1e-7 };
            assert!(
                (f64::from(Activation::Gelu.of(x)) - gelu).abs() <= bound,
                "gelu({x}): {:e}",
                f64::from(Activation::Gelu.of(x)) - gelu
            );
            let silu = wide / (1.0 + (-wide).exp());
            assert!((f64::from(Activation::Silu.of(x)) - silu).abs() < 3e-7 * wide.abs().max(1.0), "silu({x})");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1000.0) < 1e-37 && exp(88.0).is_finite());
        assert_eq!(Activation::Gelu.of(1e30), 1e30);
        assert!(Activation::Gelu.of(-1e30).abs() < 5e-8 && Activation::Gelu.of(f32::NAN).is_nan());
        assert!([0x7fc0_0000, 0xffff_ffff, 0x7f80_0001].iter().all(|bits| exp2(f32::from_bits(*bits), &EXP2).is_nan()));
        assert!(exp2(f32::NEG_INFINITY, &EXP2) < 2e-38 && exp2(0.0, &EXP2) == 1.0);
        assert!(exp(f32::NAN).is_nan());
    }
}
