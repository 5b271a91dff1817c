//! Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598) and its rescaling (Lin et al. 2023,
//! arXiv 2305.08891, section 3.4).

/// How far a prediction is pushed from the unconditional towards the conditional one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    /// The weight `w` in `u + w (c - u)`. At 1 and below guidance is off, and the unconditional half is not computed.
    pub scale: f64,
    /// How much of the guided prediction's standard deviation is brought back to the conditional one's, in [0, 1].
    pub rescale: f64,
}

impl Guidance {
    /// No guidance: the conditional prediction alone.
    pub const OFF: Self = Self { scale: 1.0, rescale: 0.0 };

    /// Whether both predictions are needed.
    pub fn is_on(&self) -> bool {
        self.scale > 1.0
    }

    /// Joins the two predictions of one batch into `out`.
    ///
    /// All three slices hold `images` predictions of equal size one after the other, in float32.
    pub fn combine(&self, unconditional: &[f32], conditional: &[f32], images: usize, out: &mut [f32]) {
        let scale = self.scale as f32;
        for ((o, &u), &c) in out.iter_mut().zip(unconditional).zip(conditional) {
            *o = u + scale * (c - u);
        }
        if self.rescale > 0.0 {
            let each = out.len() / images.max(1);
            let rescale = self.rescale as f32;
            for (o, c) in out.chunks_mut(each.max(1)).zip(conditional.chunks(each.max(1))) {
                let factor = rescale * (deviation(c) / deviation(o)) as f32 + (1.0 - rescale);
                o.iter_mut().for_each(|v| *v *= factor);
            }
        }
    }
}

/// The sample standard deviation, with the n − 1 denominator.
fn deviation(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let sum = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>();
    (sum / (n - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_one_is_the_conditional_prediction() {
        let mut out = [0.0; 4];
        Guidance::OFF.combine(&[9.0; 4], &[1.0, 2.0, 3.0, 4.0], 1, &mut out);
        assert_eq!(out, [1.0, 2.0, 3.0, 4.0]);
        assert!(!Guidance::OFF.is_on());
    }

    #[test]
    fn full_rescale_restores_the_conditional_deviation_of_each_picture() {
        let conditional = [1.0, 2.0, 3.0, 4.0, 10.0, 30.0, 20.0, 0.0];
        let unconditional = [0.5, 0.1, -2.0, 0.7, 3.0, 1.0, -4.0, 2.0];
        let mut out = [0.0; 8];
        Guidance { scale: 7.5, rescale: 1.0 }.combine(&unconditional, &conditional, 2, &mut out);
        for half in 0..2 {
            let range = half * 4..half * 4 + 4;
            let ratio = deviation(&out[range.clone()]) / deviation(&conditional[range]);
            assert!((ratio - 1.0).abs() < 1e-6, "{ratio}");
        }
    }
}
