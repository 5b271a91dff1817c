//! torch's CPU generator in float16 and bfloat16.

use crate::elementary::{cos, ln, sin};
use half::{bf16, f16};

use super::{Generator, TorchCpu};

/// A half-precision number format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfFormat {
    /// IEEE 754 binary16, torch's `float16`: 11 bits of significand.
    Float16,
    /// The upper half of a float32, torch's `bfloat16`: 8 bits of significand.
    Bfloat16,
}

impl HalfFormat {
    /// Returns the bits of the significand, the leading one included: the bits of torch's uniform numbers.
    fn digits(self) -> u32 {
        match self {
            Self::Float16 => f16::MANTISSA_DIGITS,
            Self::Bfloat16 => bf16::MANTISSA_DIGITS,
        }
    }

    /// Rounds to the nearest number of the format, ties to even.
    fn round(self, value: f32) -> f32 {
        match self {
            Self::Float16 => f16::from_f32(value).to_f32(),
            Self::Bfloat16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// Applies the Box-Muller transform to sixteen uniform values, rounding every intermediate result to the format.
    fn box_muller(self, block: &mut [f32]) {
        let (firsts, seconds) = block.split_at_mut(block.len() / 2);
        for (first, second) in firsts.iter_mut().zip(seconds) {
            let log = self.round(ln(f64::from(self.round(1.0 - *first))) as f32);
            let radius = self.round(self.round(-2.0 * log).sqrt());
            let angle = f64::from(self.round((std::f64::consts::TAU * f64::from(*second)) as f32));
            // torch adds the mean 0, which turns a negative zero positive.
            *first = self.round(radius * self.round(cos(angle) as f32)) + 0.0;
            *second = self.round(radius * self.round(sin(angle) as f32)) + 0.0;
        }
    }
}

/// `torch.Generator("cpu").manual_seed(seed)` with `torch.randn` in float16 or bfloat16.
///
/// The random words are those of [`TorchCpu`], but a uniform number has 11 or 8 bits instead of 24, and the transform
/// to normal numbers is in half precision. Draws of fewer than 16 values are the float32 ones, rounded. Values equal
/// torch's to the last bit; they are returned as float32, which represents every half-precision number exactly.
///
/// diffusers draws in the precision of the prompt embeddings, so this is the noise of a pipeline loaded in half
/// precision with a CPU generator.
///
/// ```
/// use ldm_ort::rng::{Generator, HalfFormat, TorchCpuHalf};
///
/// let mut noise = [0.0; 16];
/// TorchCpuHalf::new(HalfFormat::Float16, 42).normal(&mut noise);
/// assert_eq!(noise[..4], [0.38696289, 1.4707031, 0.14685059, -1.1181641]);
/// ```
///
/// Source: `aten/src/ATen/native/cpu/DistributionTemplates.h` and `aten/src/ATen/core/TransformationHelper.h` of
/// PyTorch.
#[derive(Debug, Clone)]
pub struct TorchCpuHalf {
    words: TorchCpu,
    precision: HalfFormat,
}

impl TorchCpuHalf {
    /// Creates the generator of `manual_seed(seed)`. As in torch, only the low 32 bits of the seed count.
    pub fn new(precision: HalfFormat, seed: u64) -> Self {
        Self { words: TorchCpu::new(seed), precision }
    }
}

impl Generator for TorchCpuHalf {
    fn normal(&mut self, out: &mut [f32]) {
        let Self { words, precision } = self;
        if out.len() < 16 {
            for value in out {
                *value = precision.round(words.single() as f32);
            }
            return;
        }
        words.uniform_of(precision.digits(), out);
        out.chunks_exact_mut(16).for_each(|block| precision.box_muller(block));
        if !out.len().is_multiple_of(16) {
            let last = out.len() - 16;
            words.uniform_of(precision.digits(), &mut out[last..]);
            precision.box_muller(&mut out[last..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::golden;

    #[test]
    fn draws_what_torch_draws_to_the_bit() {
        for (name, precision) in
            [("torch_cpu_float16", HalfFormat::Float16), ("torch_cpu_bfloat16", HalfFormat::Bfloat16)]
        {
            golden::assert_equals_golden(name, |seed| TorchCpuHalf::new(precision, seed), |_, _| 0.0);
        }
    }
}
