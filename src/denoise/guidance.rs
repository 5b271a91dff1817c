//! Guidance: combines the predictions of several branches into one.

/// The combination of predictions under different conditions.
///
/// A batch of `n` images is predicted once per branch of [`Guidance::branches`], one branch after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Guidance {
    /// The conditional prediction alone, one branch.
    Off,
    /// Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598): the branches are the unconditional prediction
    /// `u` and the conditional prediction `c`, combined as `u + scale (c − u)`.
    ClassifierFree {
        /// The guidance scale, above 1.
        scale: f64,
        /// The guidance rescale in [0, 1], which restores the conditional prediction's standard deviation (Lin et al.
        /// 2023, arXiv 2305.08891, section 3.4).
        rescale: f64,
    },
    /// InstructPix2Pix's guidance by text and image (Brooks et al. 2023, arXiv 2211.09800, equation 3): the branches
    /// are `b` with text and image, `i` with the image alone, and `u` without both, combined as
    /// `u + text (b − i) + image (i − u)`.
    Instruct {
        /// The text guidance scale, above 1.
        text: f64,
        /// The image guidance scale, 1 or above.
        image: f64,
    },
}

/// The conditions of one branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuidanceBranch {
    /// True for the prompt, false for the negative prompt.
    pub prompt: bool,
    /// True for the task's input image, false for zeros instead.
    pub image: bool,
}

impl Guidance {
    /// Returns classifier-free guidance with this scale; [`Guidance::Off`] for a scale of 1 or below.
    pub fn classifier_free(scale: f64, rescale: f64) -> Self {
        if scale > 1.0 { Self::ClassifierFree { scale, rescale } } else { Self::Off }
    }

    /// Returns the conditions of each branch, in order.
    pub fn branches(&self) -> &'static [GuidanceBranch] {
        const BOTH: GuidanceBranch = GuidanceBranch { prompt: true, image: true };
        const IMAGE: GuidanceBranch = GuidanceBranch { prompt: false, image: true };
        const NEITHER: GuidanceBranch = GuidanceBranch { prompt: false, image: false };
        match self {
            Self::Off => &[BOTH],
            Self::ClassifierFree { .. } => &[IMAGE, BOTH],
            Self::Instruct { .. } => &[BOTH, IMAGE, NEITHER],
        }
    }

    /// Returns the index of the conditional branch, the only one that runs outside the guidance interval.
    pub(super) fn conditional_branch(&self) -> usize {
        self.branches().iter().position(|branch| branch.prompt && branch.image).unwrap_or(0)
    }

    /// Combines the branches of one batch into `out`.
    ///
    /// `out` holds `images` predictions of equal size, one after the other; `predictions` holds as many for each
    /// branch. Both are float32.
    pub fn combine(&self, predictions: &[f32], images: usize, out: &mut [f32]) {
        let branch = |index: usize| predictions.get(index * out.len()..).unwrap_or_default();
        match *self {
            Self::Off => {
                let conditional = branch(0);
                for (o, &c) in out.iter_mut().zip(conditional) {
                    *o = c;
                }
            }
            Self::ClassifierFree { scale, rescale } => {
                let (unconditional, conditional) = (branch(0), branch(1));
                let each = (out.len() / images.max(1)).max(1);
                for ((o, &u), &c) in out.iter_mut().zip(unconditional).zip(conditional) {
                    *o = u + scale as f32 * (c - u);
                }
                if rescale > 0.0 {
                    for (o, c) in out.chunks_mut(each).zip(conditional.chunks(each)) {
                        let factor = rescale as f32 * (std_dev(c) / std_dev(o)) as f32 + (1.0 - rescale as f32);
                        o.iter_mut().for_each(|v| *v *= factor);
                    }
                }
            }
            Self::Instruct { text, image } => {
                let (conditional, image_only, unconditional) = (branch(0), branch(1), branch(2));
                for (((o, &b), &i), &u) in out.iter_mut().zip(conditional).zip(image_only).zip(unconditional) {
                    *o = u + text as f32 * (b - i) + image as f32 * (i - u);
                }
            }
        }
    }
}

/// Returns the sample standard deviation, with the denominator n − 1.
fn std_dev(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let sum = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>();
    (sum / (n - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_of_one_is_no_guidance() {
        let mut out = [0.0; 4];
        assert_eq!(Guidance::classifier_free(1.0, 0.5), Guidance::Off);
        Guidance::Off.combine(&[1.0, 2.0, 3.0, 4.0], 1, &mut out);
        assert_eq!(out, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn full_rescale_restores_the_conditional_deviation_of_each_image() {
        let unconditional = [0.5, 0.1, -2.0, 0.7, 3.0, 1.0, -4.0, 2.0];
        let conditional = [1.0, 2.0, 3.0, 4.0, 10.0, 30.0, 20.0, 0.0];
        let mut out = [0.0; 8];
        Guidance::classifier_free(7.5, 1.0).combine(&[unconditional, conditional].concat(), 2, &mut out);
        for half in 0..2 {
            let range = half * 4..half * 4 + 4;
            let ratio = std_dev(&out[range.clone()]) / std_dev(&conditional[range]);
            assert!((ratio - 1.0).abs() < 1e-6, "{ratio}");
        }
    }

    #[test]
    fn two_guidances_push_along_two_differences() {
        let mut out = [0.0; 1];
        Guidance::Instruct { text: 7.5, image: 1.5 }.combine(&[5.0, 3.0, 1.0], 1, &mut out);
        assert_eq!(out, [1.0 + 7.5 * 2.0 + 1.5 * 2.0]);
    }
}
