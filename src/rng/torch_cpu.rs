//! torch's CPU generator in float32.

use super::Generator;
use super::mt19937::Mt19937;
use super::normal16::box_muller;
use crate::elementary::{cos, ln_1p, sin};

/// `torch.Generator("cpu").manual_seed(seed)` with `torch.randn` in float32.
///
/// An MT19937 seeded with the low 32 bits of the seed. Draws of 16 values or more take one 24-bit uniform number per
/// value and transform sixteen at a time. Shorter draws take two 53-bit uniform numbers per pair of values and keep the
/// second value for the next short draw, even across longer draws.
///
/// Values equal those of torch on a CPU with AVX2 to the last bit for draws of 16 values or more, and to one unit in
/// the last place for shorter draws. Other builds of torch differ from that one by up to 2e-6.
///
/// ```
/// use ldm_ort::rng::{Generator, TorchCpu};
///
/// let mut noise = [0.0; 16];
/// TorchCpu::new(42).normal(&mut noise);
/// assert_eq!(noise[..4], [1.9269153, 1.4872841, 0.9007172, -2.1055210]);
///
/// let mut noise = [0.0; 4];
/// TorchCpu::new(0).normal(&mut noise);
/// assert_eq!(noise, [1.5409961, -0.2934289, -2.1787894, 0.56843126]);
/// ```
///
/// Source: `aten/src/ATen/native/cpu/DistributionTemplates.h` and `aten/src/ATen/core/DistributionsHelper.h` of
/// PyTorch.
#[derive(Debug, Clone)]
pub struct TorchCpu {
    engine: Mt19937,
    next_normal: Option<f64>,
}

impl TorchCpu {
    /// Creates the generator of `manual_seed(seed)`. As in torch, only the low 32 bits of the seed count.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt19937::new(seed as u32), next_normal: None }
    }

    /// Draws one value by the scalar path, in double precision.
    pub(super) fn single(&mut self) -> f64 {
        if let Some(value) = self.next_normal.take() {
            return value;
        }
        let angle = std::f64::consts::TAU * self.uniform_f64();
        let radius = (-2.0 * ln_1p(-self.uniform_f64())).sqrt();
        self.next_normal = Some(radius * sin(angle));
        radius * cos(angle)
    }

    /// Fills `out` with what `torch.rand` of that many float32 values draws next from this generator: values in `[0, 1)`.
    ///
    /// ```
    /// let mut values = [0.0; 3];
    /// ldm_ort::rng::TorchCpu::new(0).uniform(&mut values);
    /// assert_eq!(values, [0.49625659, 0.76822180, 0.088477433]);
    /// ```
    pub fn uniform(&mut self, out: &mut [f32]) {
        self.uniform_of(24, out);
    }

    /// Uniform values in `[0, 1)`, the low `bits` of a word each, of which there are at most 24.
    pub(super) fn uniform_of(&mut self, bits: u32, mut out: &mut [f32]) {
        let values = 1_u32 << bits;
        let unit = 1.0 / values as f32;
        while !out.is_empty() {
            let words = self.engine.take(out.len());
            let (now, later) = out.split_at_mut(words.len());
            for (value, &word) in now.iter_mut().zip(words) {
                *value = (word & (values - 1)) as f32 * unit;
            }
            out = later;
        }
    }

    /// Draws a uniform value in `[0, 1)` of 53 bits from two words, the high one first.
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.engine.word());
        let low = u64::from(self.engine.word());
        (((high << 32) | low) & ((1 << 53) - 1)) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }
}

impl Generator for TorchCpu {
    /// Fills `out` with the next `torch.randn` of that many float32 values.
    ///
    /// Two draws of half the size equal one draw only if each half is a multiple of 16.
    fn normal(&mut self, out: &mut [f32]) {
        if out.len() < 16 {
            for value in out {
                *value = self.single() as f32;
            }
            return;
        }
        self.uniform(out);
        box_muller(out);
        // The last 16 values are redrawn if the last block is partial, including some of the previous block.
        if !out.len().is_multiple_of(16) {
            let last = out.len() - 16;
            self.uniform(&mut out[last..]);
            box_muller(&mut out[last..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_what_torch_draws() {
        let bound = |n, want: f32| if n < 16 { f32::EPSILON * want.abs() } else { 0.0 };
        crate::rng::golden::assert_equals_golden("torch_cpu", TorchCpu::new, bound);
    }

    #[test]
    fn only_the_low_half_of_the_seed_counts() {
        let (mut a, mut b) = ([0.0; 20], [0.0; 20]);
        TorchCpu::new(42).normal(&mut a);
        TorchCpu::new(42 + (1 << 32)).normal(&mut b);
        assert_eq!(a, b);
    }
}
