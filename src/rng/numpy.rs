//! numpy's legacy generator.

use super::Generator;
use super::mt19937::Mt19937;
use crate::elementary::ln;

/// `numpy.random.RandomState(seed).randn`, rounded to float32: the latents of diffusers' former ONNX pipelines.
///
/// An MT19937 gives uniform numbers of 53 bits, which Marsaglia's polar method turns into pairs of normal numbers in
/// double precision. The second number of a pair is kept for the next draw, so the sizes of the draws do not matter.
///
/// ```
/// use ldm_ort::rng::{Generator, NumPy};
///
/// let mut noise = [0.0; 4];
/// NumPy::new(42).normal(&mut noise);
/// assert_eq!(noise, [0.49671414, -0.1382643, 0.64768857, 1.5230298]);
/// ```
///
/// Source: `legacy_gauss` in `numpy/random/src/legacy/legacy-distributions.c`; Marsaglia and Bray 1964, "A Convenient
/// Method for Generating Normal Variables".
#[derive(Debug, Clone)]
pub struct NumPy {
    engine: Mt19937,
    next_normal: Option<f64>,
}

impl NumPy {
    /// Creates the generator of `RandomState(seed)`. numpy rejects seeds of more than 32 bits; here their low 32 bits
    /// count.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt19937::new(seed as u32), next_normal: None }
    }

    /// Returns a uniform value in `[0, 1)`: the upper 27 bits of one word and the upper 26 of the next.
    fn uniform(&mut self) -> f64 {
        let high = f64::from(self.engine.word() >> 5);
        let low = f64::from(self.engine.word() >> 6);
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    fn single(&mut self) -> f64 {
        if let Some(value) = self.next_normal.take() {
            return value;
        }
        loop {
            let x = 2.0 * self.uniform() - 1.0;
            let y = 2.0 * self.uniform() - 1.0;
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let factor = (-2.0 * ln(square) / square).sqrt();
                self.next_normal = Some(factor * x);
                return factor * y;
            }
        }
    }
}

impl Generator for NumPy {
    fn normal(&mut self, out: &mut [f32]) {
        for value in out {
            *value = self.single() as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_what_numpy_draws() {
        crate::rng::golden::assert_equals_golden("numpy", NumPy::new, |_, want| f32::EPSILON * want.abs());
    }
}
