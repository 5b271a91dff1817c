//! Lanes of every instruction set against plain ones.

use super::*;
use crate::kernels::instruction_set::{Work, vectorized};
use crate::kernels::lane::Lane;
use crate::kernels::tile_size::LANES;

#[test]
fn bf16_is_rounded_as_half_rounds_it() {
    let special = [0.0, -0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-40, 1.003_906_2, 1.011_718_8];
    for value in special.into_iter().chain(numbers(1000, 1)) {
        assert_eq!(<bf16 as Number>::from_f32(value), bf16::from_f32(value), "{value}");
    }
    assert!(<bf16 as Number>::from_f32(f32::NAN).is_nan());
    // All bits of the part that is cut off, and of an exponent that a carry would leave.
    assert!(<bf16 as Number>::from_f32(f32::from_bits(0x7fff_ffff)).is_nan());
}

/// Everything that a lane does to some numbers.
struct All<'t, E> {
    values: [f32; LANES],
    others: [f32; LANES],
    count: usize,
    out: &'t mut Vec<f32>,
    written: &'t mut Vec<E>,
}

impl<E: Number> Work for All<'_, E> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { values, others, count, out, written } = self;
        let (own, other) = (L::of(values), L::of(others));
        for made in [
            L::read(&values[..count]),
            own.plus(other),
            own.minus(other),
            own.times(other),
            own.plus_times(other, L::all(0.3)),
            own.larger(other),
            own.pairs_swapped(),
            L::zero(),
        ] {
            out.extend(made.values());
        }
        let mut some = [E::default(); LANES];
        own.write(&mut some[..count]);
        written.extend(some);
        out.extend(L::read(&some[..count]).values());
        let mut panel = [E::default(); 2 * LANES];
        L::write_group([L::all(f32::NAN), other.times(other)], &mut panel[..E::GROUP * LANES]);
        written.extend(panel);
    }
}

#[test]
fn lanes_are_the_same_with_all_instructions() {
    fn check<E: Number>() {
        let special = [0.0, -0.0, f32::INFINITY, f32::NAN, f32::MAX, 1e-40, f32::from_bits(0x7fff_ffff), 1.003_906_2];
        let values: [f32; LANES] = std::array::from_fn(|at| special.get(at).copied().unwrap_or(at as f32 * -0.37));
        let others: [f32; LANES] = std::array::from_fn(|at| (at as f32 - 7.0) * 0.51);
        for count in [1, 5, 15, 16] {
            let of = |set| {
                let (mut out, mut written) = (vec![], vec![]);
                let (out, written) = (&mut out, &mut written);
                vectorized(set, All::<E> { values, others, count, out, written });
                let written = written.iter().map(|x| x.to_f32());
                out.iter().copied().chain(written).map(|x| if x.is_nan() { None } else { Some(x) }).collect::<Vec<_>>()
            };
            let wanted = of(InstructionSet::Portable);
            let of_all = wanted.len();
            for set in sets() {
                for (at, (got, wanted)) in of(set).iter().zip(&wanted).enumerate() {
                    // Ties of a panel's bfloat16 may round up, by one in the last of 8 bits.
                    let is_in_panel = at + 2 * LANES >= of_all && E::TYPE == OperandType::Bf16;
                    let bound = if is_in_panel { 4e-3 } else { 1e-6 };
                    // AVX-512 BF16 rounds subnormal numbers to zero.
                    let least = if E::TYPE == OperandType::Bf16 { f32::MIN_POSITIVE } else { 0.0 };
                    let is_near = match (got, wanted) {
                        (Some(got), Some(wanted)) => {
                            got == wanted || (got - wanted).abs() <= bound * wanted.abs() + least
                        }
                        (got, wanted) => got == wanted,
                    };
                    assert!(is_near, "{} {}: {got:?}, not {wanted:?} at {at}", set.name(), E::TYPE.name());
                }
            }
        }
    }
    check::<f32>();
    check::<bf16>();
}

/// Applies an activation to the lanes of some numbers.
struct Activated<'t, E> {
    activation: Activation,
    values: &'t [f32],
    out: &'t mut Vec<f32>,
    operand: std::marker::PhantomData<E>,
}

impl<E: Number> Work for Activated<'_, E> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        for values in self.values.chunks(LANES) {
            self.out.extend(L::read(values).activated::<E>(self.activation).values());
        }
    }
}

#[test]
fn activations_are_as_exact_as_the_operands() {
    fn check<E: Number>(relative: f32, absolute: f32) {
        let values: Vec<f32> =
            (-1600..1600).map(|at| at as f32 / 100.0).chain([-1e30, 1e30, f32::NAN, -80.0]).collect();
        for activation in
            [Activation::Identity, Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu]
        {
            for set in sets() {
                let mut out = Vec::new();
                let operand = std::marker::PhantomData::<E>;
                vectorized(set, Activated { activation, values: &values, out: &mut out, operand });
                for (value, got) in values.iter().zip(out) {
                    let wanted = activation.of(*value);
                    let is_near = (got - wanted).abs() <= relative * wanted.abs() + absolute;
                    let is_nan = got.is_nan() && wanted.is_nan();
                    assert!(is_near || is_nan, "{} {activation:?}({value}): {got}, not {wanted}", set.name());
                }
            }
        }
    }
    check::<f32>(1e-6, 1e-7);
    // The rounding of bfloat16 is 2e-3.
    check::<bf16>(5e-4, 5e-5);
}
