//! Fused multiply-add.

/// Computes `a b + c` with one rounding, as a CPU's fused multiply-add does.
///
/// [`f32::mul_add`] is the same if it compiles to that instruction. Otherwise it calls the C library's `fmaf`, and
/// mingw's rounds twice, so that noise on Windows would differ in its last bits.
#[inline]
pub(crate) fn fused(a: f32, b: f32, c: f32) -> f32 {
    // Exact: 24 bits times 24 bits are 48, and a double has 53.
    let product = f64::from(a) * f64::from(b);
    let sum = product + f64::from(c);
    if !sum.is_finite() {
        return sum as f32;
    }
    // The error of that sum (Knuth's two-sum), which is exact.
    let back = sum - product;
    let error = (product - (sum - back)) + (f64::from(c) - back);
    let bits = sum.to_bits();
    // Rounding to odd preserves the lost bits for the rounding to single precision (Boldo and Melquiond 2008).
    let odd = match (error == 0.0 || bits & 1 == 1, (error > 0.0) == (sum > 0.0)) {
        (true, _) => bits,
        (false, true) => bits + 1,
        (false, false) => bits - 1,
    };
    f64::from_bits(odd) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On the systems that run this test, the C library or the CPU rounds once.
    #[cfg(not(all(windows, target_env = "gnu")))]
    #[test]
    fn it_rounds_once() {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Exponents near 1, where sums round, and occasionally any.
            let bits = (state >> 32) as u32;
            let any = f32::from_bits(bits);
            if bits.is_multiple_of(7) && any.is_finite() {
                any
            } else {
                f32::from_bits(bits & 0x807f_ffff | (120 + bits % 16) << 23)
            }
        };
        for _ in 0..500_000 {
            let (a, b, c) = (next(), next(), next());
            assert_eq!(fused(a, b, c).to_bits(), a.mul_add(b, c).to_bits(), "{a:e} * {b:e} + {c:e}");
        }
        // Rounded twice, this is a tie that goes the other way.
        let (a, b, c) = (1.0 + f32::EPSILON, 1.0 - f32::EPSILON / 2.0, f32::EPSILON * f32::EPSILON / 4.0);
        assert_eq!(fused(a, b, c), a.mul_add(b, c));
    }
}
