//! Guidance: several predictions joined into one.

/// How predictions under different conditions are joined.
///
/// A batch of `n` images is predicted [`Guidance::branches`] times, one branch after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Guidance {
    /// The conditional prediction alone: one branch.
    Off,
    /// Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598): the branches are the unconditional prediction
    /// `u` and the conditional one `c`, joined as `u + scale (c − u)`.
    ClassifierFree {
        /// The weight of the condition, above 1.
        scale: f64,
        /// How much of the conditional prediction's standard deviation is brought back, in [0, 1] (Lin et al. 2023,
        /// arXiv 2305.08891, section 3.4).
        rescale: f64,
    },
    /// The two guidances of InstructPix2Pix (Brooks et al. 2023, arXiv 2211.09800, equation 3): the branches are `b` told
    /// text and image, `i` told the image alone, and `u` told nothing, joined as
    /// `u + text (b − i) + image (i − u)`.
    Instruct {
        /// The weight of the text, above 1.
        text: f64,
        /// The weight of the image, 1 or above.
        image: f64,
    },
}

/// What one branch of a batch is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// The prompt, or else the negative prompt.
    pub prompt: bool,
    /// The image that the task is given, or else nothing in its place.
    pub image: bool,
}

impl Guidance {
    /// Classifier-free guidance of this weight, which is none at 1 and below.
    pub fn classifier_free(scale: f64, rescale: f64) -> Self {
        if scale > 1.0 { Self::ClassifierFree { scale, rescale } } else { Self::Off }
    }

    /// What the branches are told, in their order.
    pub fn branches(&self) -> &'static [Branch] {
        const TOLD: Branch = Branch { prompt: true, image: true };
        const IMAGE: Branch = Branch { prompt: false, image: true };
        const NOTHING: Branch = Branch { prompt: false, image: false };
        match self {
            Self::Off => &[TOLD],
            Self::ClassifierFree { .. } => &[IMAGE, TOLD],
            Self::Instruct { .. } => &[TOLD, IMAGE, NOTHING],
        }
    }

    /// Which of the branches is told all there is: the one that is left where guidance is not at work.
    pub(super) fn told(&self) -> usize {
        self.branches().iter().position(|branch| branch.prompt && branch.image).unwrap_or(0)
    }

    /// Joins the branches of one batch into `out`.
    ///
    /// `out` holds `images` predictions of equal size one after the other, and `predictions` as many for each branch,
    /// in float32.
    pub fn combine(&self, predictions: &[f32], images: usize, out: &mut [f32]) {
        let branch = |index: usize| predictions.get(index * out.len()..).unwrap_or_default();
        match *self {
            Self::Off => {
                let told = branch(0);
                for (o, &c) in out.iter_mut().zip(told) {
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
                        let factor = rescale as f32 * (deviation(c) / deviation(o)) as f32 + (1.0 - rescale as f32);
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
            let ratio = deviation(&out[range.clone()]) / deviation(&conditional[range]);
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
