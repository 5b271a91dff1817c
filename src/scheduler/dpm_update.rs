//! What the multistep and the singlestep DPM-Solver compute alike: the algorithms, what they integrate, the weights of
//! their updates.

use super::config::Settings;
use super::noise::exp_f32;
use super::sample::{Bounds, Prediction};
use super::solver::Level;
use crate::error::Result;
use std::ops::Range;

/// Which equation is integrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// Of the noise prediction.
    Noise,
    /// Of the image prediction.
    Image,
    /// The stochastic one of the noise prediction.
    NoiseSde,
    /// The stochastic one of the image prediction.
    ImageSde,
}

/// The weights of sample, answer, its first and second differences and noise in one update.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weights {
    pub sample: f32,
    pub answer: f32,
    pub first: f32,
    pub second: f32,
    pub noise: f32,
}

impl Algorithm {
    /// Reads `algorithm_type` and checks it against the keys it goes with.
    ///
    /// # Errors
    /// A word nobody knows, a final sigma of zero for a solver of the noise.
    pub(super) fn from_settings(settings: &Settings) -> Result<Self> {
        let algorithm = match settings.choice("algorithm_type")? {
            "dpmsolver" => Self::Noise,
            "sde-dpmsolver" => Self::NoiseSde,
            "sde-dpmsolver++" => Self::ImageSde,
            _ => Self::Image,
        };
        // diffusers looks at the value as it was given, before it reads another class's as its own default.
        let of_noise = algorithm.is_of_noise() || settings.is_foreign("algorithm_type")?;
        if of_noise && settings.has("final_sigmas_type") && settings.choice("final_sigmas_type")? == "zero" {
            let problem = "zero cannot be reached by a solver that integrates the noise prediction";
            let help = "set final_sigmas_type = \"sigma_min\", or algorithm_type = \"dpmsolver++\"";
            return Err(settings.error("final_sigmas_type", problem, help));
        }
        Ok(algorithm)
    }

    /// Whether the noise prediction is integrated.
    pub(super) fn is_of_noise(self) -> bool {
        matches!(self, Self::Noise | Self::NoiseSde)
    }

    /// Whether every step draws noise.
    pub(super) fn is_stochastic(self) -> bool {
        matches!(self, Self::NoiseSde | Self::ImageSde)
    }

    /// The weights of an update from one level to another, `h` apart in lambda. `exact` integrates the first
    /// difference exactly, as `heun` and the third order do; `midpoint` takes half of the answer's weight for it.
    pub(super) fn weights(self, exact: bool, to: Level, from: Level, h: f32) -> Weights {
        let (alpha, sigma) = (to.alpha, to.sigma);
        match self {
            Self::Image => {
                let decay = exp_f32(-h) - 1.0;
                Weights {
                    sample: sigma / from.sigma,
                    answer: -(alpha * decay),
                    first: if exact { alpha * (decay / h + 1.0) } else { -(0.5 * (alpha * decay)) },
                    second: -(alpha * ((decay + h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            Self::Noise => {
                let growth = exp_f32(h) - 1.0;
                Weights {
                    sample: alpha / from.alpha,
                    answer: -(sigma * growth),
                    first: if exact { -(sigma * (growth / h - 1.0)) } else { -(0.5 * (sigma * growth)) },
                    second: -(sigma * ((growth - h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            Self::ImageSde => {
                let decay = 1.0 - exp_f32(-2.0 * h);
                Weights {
                    sample: sigma / from.sigma * exp_f32(-h),
                    answer: alpha * decay,
                    first: if exact { alpha * (decay / (-2.0 * h) + 1.0) } else { 0.5 * (alpha * decay) },
                    second: alpha * ((decay - 2.0 * h) / ((2.0 * h) * (2.0 * h)) - 0.5),
                    noise: sigma * decay.sqrt(),
                }
            }
            Self::NoiseSde => {
                let growth = exp_f32(h) - 1.0;
                Weights {
                    sample: alpha / from.alpha,
                    answer: -(2.0 * (sigma * growth)),
                    first: if exact { -(2.0 * (sigma * (growth / h - 1.0))) } else { -(sigma * growth) },
                    second: 0.0,
                    noise: sigma * (exp_f32(2.0 * h) - 1.0).sqrt(),
                }
            }
        }
    }
}

/// Turns a model's answers into what an algorithm integrates.
#[derive(Debug)]
pub(super) struct Converter {
    pub(super) prediction: Prediction,
    of_noise: bool,
    bounds: Bounds,
    images: usize,
}

impl Converter {
    /// Reads `prediction_type`, `variance_type` and the keys of thresholding.
    ///
    /// # Errors
    /// A word that nobody knows, or a prediction the algorithm cannot take.
    pub(super) fn from_settings(settings: &Settings, algorithm: Algorithm, images: usize) -> Result<Self> {
        let prediction = Prediction::from_settings(settings)?;
        if algorithm.is_of_noise() && prediction == Prediction::Flow {
            let help = "set algorithm_type = \"dpmsolver++\" or \"sde-dpmsolver++\"";
            return Err(settings.error("prediction_type", "flow_prediction needs a solver of the image", help));
        }
        settings.maybe_choice("variance_type")?;
        let bounds = Bounds::from_settings(settings, images)?;
        Ok(Self::new(prediction, algorithm.is_of_noise(), bounds, images))
    }

    /// For a model with this kind of answer, to the noise prediction or to the image prediction within bounds.
    pub(super) fn new(prediction: Prediction, of_noise: bool, bounds: Bounds, images: usize) -> Self {
        Self { prediction, of_noise, bounds, images: images.max(1) }
    }

    /// The parts of a batch that [`Self::convert`] can be given one after the other; see [`Bounds::blocks`].
    pub(super) fn blocks<'a>(
        &self,
        len: usize,
        model_output: &'a [f32],
    ) -> impl Iterator<Item = (Range<usize>, &'a [f32])> + use<'a> {
        self.bounds.blocks(len, model_output)
    }

    /// Writes to `answer` what stands for the model's output on the sample `x`. `level` is the sample's, `raw` its
    /// sigma as the schedule holds it.
    pub(super) fn convert(&mut self, level: Level, raw: f32, model_output: &[f32], x: &[f32], answer: &mut [f32]) {
        let Level { alpha, sigma, .. } = level;
        let prediction = self.prediction;
        let size = (x.len() / self.images).max(1);
        // Where the model predicts variances too, they are the second half of each image's answer, and unused.
        let stride = if model_output.len() == 2 * x.len() { 2 * size } else { size };
        for ((answer, x), m) in answer.chunks_mut(size).zip(x.chunks(size)).zip(model_output.chunks(stride)) {
            let values = answer.iter_mut().zip(x).zip(m);
            if self.of_noise {
                for ((answer, x), m) in values {
                    *answer = match prediction {
                        Prediction::Sample => (x - alpha * m) / sigma,
                        Prediction::Velocity => alpha * m + sigma * x,
                        Prediction::Epsilon | Prediction::Flow => *m,
                    };
                }
            } else {
                for ((answer, x), m) in values {
                    *answer = match prediction {
                        Prediction::Sample => *m,
                        Prediction::Velocity => alpha * x - sigma * m,
                        Prediction::Flow => x - raw * m,
                        Prediction::Epsilon => (x - sigma * m) / alpha,
                    };
                }
            }
        }
        if matches!(self.bounds, Bounds::None) {
            return;
        }
        if self.of_noise {
            for (answer, x) in answer.iter_mut().zip(x) {
                *answer = (x - sigma * *answer) / alpha;
            }
        }
        self.bounds.apply(answer);
        if self.of_noise {
            for (answer, x) in answer.iter_mut().zip(x) {
                *answer = (x - alpha * *answer) / sigma;
            }
        }
    }
}
