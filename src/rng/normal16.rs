//! The Box-Muller transform of torch's vectorized CPU kernel: sixteen uniform values become sixteen normal values in
//! single precision, with the Cephes library's polynomials for logarithm, sine and cosine. Every multiplication
//! followed by an addition is fused with it.
//!
//! The arithmetic does not use the system's mathematics library, so that the same seed gives the same bits on every
//! machine, which are the bits of torch on a CPU with AVX2.

/// Transforms each block of sixteen uniform values in `[0, 1)` to unit normal values. A partial block at the end stays
/// unchanged.
pub(super) fn box_muller(out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has the features that the function is compiled for, as checked above.
        unsafe { box_muller_avx2(out) };
        return;
    }
    // Every aarch64 CPU has the instruction.
    box_muller_blocks::<{ cfg!(target_arch = "aarch64") }>(out);
}

/// [`box_muller_blocks`], compiled for CPUs whose fused multiply-add is one instruction. The results are the
/// same to the bit.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn box_muller_avx2(out: &mut [f32]) {
    box_muller_blocks::<true>(out);
}

#[inline(always)]
fn box_muller_blocks<const FMA: bool>(out: &mut [f32]) {
    const TWO_PI: f32 = std::f32::consts::TAU;
    let (blocks, _) = out.as_chunks_mut::<16>();
    for block in blocks {
        let mut cosines = [0.0_f32; 8];
        let mut sines = [0.0_f32; 8];
        for j in 0..8 {
            let radius = (-2.0 * ln::<FMA>(1.0 - block[j])).sqrt();
            let (sin, cos) = sin_cos::<FMA>(TWO_PI * block[j + 8]);
            cosines[j] = radius * cos;
            sines[j] = radius * sin;
        }
        block[..8].copy_from_slice(&cosines);
        block[8..].copy_from_slice(&sines);
    }
}

/// Computes `a b + c` with one rounding, by [`f32::mul_add`] if `FMA` guarantees that it is one instruction.
#[inline(always)]
fn fused<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { super::fused::fused(a, b, c) }
}

/// Computes the natural logarithm of a normal number in `(0, 1]`: Cephes `logf`.
#[inline(always)]
fn ln<const FMA: bool>(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 126;
    let mantissa = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);

    // The mantissa, in [0.5, 1), moves to [sqrt(0.5), sqrt(2)), and then down by one.
    let low = mantissa < std::f32::consts::FRAC_1_SQRT_2;
    let x = mantissa - 1.0 + if low { mantissa } else { 0.0 };
    let e = (exponent - i32::from(low)) as f32;

    let z = x * x;
    let mut y = 7.037_683_6e-2_f32;
    y = fused::<FMA>(y, x, -1.151_461e-1);
    y = fused::<FMA>(y, x, 1.167_699_84e-1);
    y = fused::<FMA>(y, x, -1.242_014_1e-1);
    y = fused::<FMA>(y, x, 1.424_932_3e-1);
    y = fused::<FMA>(y, x, -1.666_805_8e-1);
    y = fused::<FMA>(y, x, 2.000_071_4e-1);
    y = fused::<FMA>(y, x, -2.499_999_4e-1);
    y = fused::<FMA>(y, x, 3.333_333e-1);
    y *= x;
    // ln 2 is added in two parts, the larger of which times an exponent is exact.
    y = fused::<FMA>(y, z, e * -2.121_944_4e-4);
    y -= 0.5 * z;
    fused::<FMA>(e, 355.0 / 512.0, x + y)
}

/// Computes sine and cosine of an angle in `[0, 2 pi]`: Cephes `sinf` and `cosf`.
#[inline(always)]
fn sin_cos<const FMA: bool>(angle: f32) -> (f32, f32) {
    // The octant, moved up to the next even one; the rest of the angle is in [-pi/4, pi/4].
    let octant = ((angle * std::f32::consts::FRAC_2_PI * 2.0) as i32 + 1) & !1;
    let n = octant as f32;
    let mut x = fused::<FMA>(n, -0.785_156_25, angle);
    x = fused::<FMA>(n, -2.418_756_5e-4, x);
    x = fused::<FMA>(n, -3.774_895e-8, x);

    let z = x * x;
    let mut c = 2.443_315_7e-5_f32;
    c = fused::<FMA>(c, z, -1.388_731_6e-3);
    c = fused::<FMA>(c, z, 4.166_664_6e-2);
    c *= z;
    c = fused::<FMA>(c, z, -(0.5 * z)) + 1.0;

    let mut s = -1.951_529_6e-4_f32;
    s = fused::<FMA>(s, z, 8.332_161e-3);
    s = fused::<FMA>(s, z, -1.666_665_5e-1);
    s *= z;
    s = fused::<FMA>(s, x, x);

    let swap = octant & 2 != 0;
    let (sin, cos) = if swap { (c, s) } else { (s, c) };
    let sin = if octant & 4 != 0 { -sin } else { sin };
    let cos = if (octant + 2) & 4 != 0 { -cos } else { cos };
    (sin, cos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elementary_functions_are_within_two_units_in_the_last_place() {
        for i in 0..=1_000_000_u32 {
            let u = i as f32 / 1_000_000.0;
            let angle = std::f32::consts::TAU * u;
            let (sin, cos) = sin_cos::<false>(angle);
            assert!((f64::from(sin) - f64::from(angle).sin()).abs() < 2e-7, "sin {angle}: {sin}");
            assert!((f64::from(cos) - f64::from(angle).cos()).abs() < 2e-7, "cos {angle}: {cos}");
            if u > 0.0 {
                let want = f64::from(u).ln();
                assert!(
                    (f64::from(ln::<false>(u)) - want).abs() <= 2.4e-7 * want.abs().max(1e-3),
                    "ln {u}: {}",
                    ln::<false>(u)
                );
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_path_gives_the_same_bits() {
        let mut fast: Vec<f32> = (0..1 << 16).map(|i| i as f32 / 65536.0).collect();
        let mut plain = fast.clone();
        box_muller(&mut fast);
        box_muller_blocks::<false>(&mut plain);
        assert_eq!(fast, plain);
    }
}
