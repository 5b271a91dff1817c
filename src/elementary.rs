//! Elementary functions in double precision, with the same bits on every system.
//!
//! Those of the standard library are the system's: C libraries differ in the last bit, and schedules that cancel make a
//! visible difference of it. These are rounded correctly.

pub(crate) use pxfm::{
    f_atan2 as atan2, f_cos as cos, f_exp as exp, f_expm1 as exp_m1, f_log as ln, f_log1p as ln_1p, f_pow as pow,
    f_sin as sin,
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments in `(0, 20)`.
    fn arguments() -> impl Iterator<Item = f64> {
        (1..20_000_u32).map(|i| f64::from(i) / 1000.0)
    }

    #[test]
    fn they_are_those_of_the_standard_library() {
        for x in arguments() {
            let pairs = [
                (exp(-x), (-x).exp()),
                (ln(x), x.ln()),
                (pow(x, 7.0), x.powf(7.0)),
                (pow(x, 1.0 / 7.0), x.powf(1.0 / 7.0)),
                (sin(x), x.sin()),
                (cos(x), x.cos()),
                (exp_m1(-x), (-x).exp_m1()),
                (ln_1p(-x / 20.0), (-x / 20.0).ln_1p()),
                (atan2(x, 3.0), x.atan2(3.0)),
            ];
            for (got, system) in pairs {
                assert!((got - system).abs() <= 2.0 * f64::EPSILON * system.abs(), "{x}: {got:e} {system:e}");
            }
        }
    }

    #[test]
    fn the_bits_are_those_of_every_system() {
        let mut digest = 0_u64;
        for x in arguments() {
            let values =
                [exp(-x), ln(x), pow(x, 1.0 / 7.0), sin(x), cos(x), exp_m1(-x), ln_1p(-x / 20.0), atan2(x, 3.0)];
            for value in values {
                digest = (digest ^ value.to_bits()).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
            }
        }
        assert_eq!(digest, 0xd1dc_e30c_b175_8259, "{digest:#x}");
    }
}
