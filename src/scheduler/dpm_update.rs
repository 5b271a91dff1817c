//! Algorithms, output conversion and update weights shared by the multistep and the singlestep DPM-Solver.

use super::betas::exp_f32;
use super::sample::{Bounds, PredictionType};
use super::settings::SchedulerSettings;
use super::solver_schedule::NoiseLevel;
use crate::error::Result;
use std::ops::Range;

/// The integrated equation, the key `algorithm_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// `dpmsolver`: the ODE of the epsilon prediction.
    DpmSolver,
    /// `dpmsolver++`: the ODE of the x0 prediction.
    DpmSolverPp,
    /// `sde-dpmsolver`: the SDE of the epsilon prediction.
    SdeDpmSolver,
    /// `sde-dpmsolver++`: the SDE of the x0 prediction.
    SdeDpmSolverPp,
}

/// The weights of an update: of the sample, the model output `d0`, its first and second differences `d1` and `d2`, and
/// the noise.
#[derive(Debug, Clone, Copy)]
pub(super) struct UpdateWeights {
    pub sample: f32,
    pub d0: f32,
    pub d1: f32,
    pub d2: f32,
    pub noise: f32,
}

impl Algorithm {
    /// Reads `algorithm_type` and checks it against the keys it goes with.
    ///
    /// # Errors
    /// An unknown value, or a final sigma of zero for a solver of the epsilon prediction.
    pub(super) fn from_settings(settings: &SchedulerSettings) -> Result<Self> {
        let algorithm = match settings.choice("algorithm_type")? {
            "dpmsolver" => Self::DpmSolver,
            "sde-dpmsolver" => Self::SdeDpmSolver,
            "sde-dpmsolver++" => Self::SdeDpmSolverPp,
            _ => Self::DpmSolverPp,
        };
        // diffusers tests the original value, before it reads another class's word as its own default.
        let predicts_noise = algorithm.predicts_noise() || settings.is_foreign("algorithm_type")?;
        if predicts_noise && settings.has("final_sigmas_type") && settings.choice("final_sigmas_type")? == "zero" {
            let problem = "a solver of the epsilon prediction cannot end at sigma zero";
            let help = "set final_sigmas_type = \"sigma_min\", or algorithm_type = \"dpmsolver++\"";
            return Err(settings.error("final_sigmas_type", problem, help));
        }
        Ok(algorithm)
    }

    /// Returns true if it integrates the epsilon prediction.
    pub(super) fn predicts_noise(self) -> bool {
        matches!(self, Self::DpmSolver | Self::SdeDpmSolver)
    }

    /// Returns true if every step adds noise.
    pub(super) fn is_stochastic(self) -> bool {
        matches!(self, Self::SdeDpmSolver | Self::SdeDpmSolverPp)
    }

    /// Returns the weights of an update between two noise levels, `h` apart in lambda. `exact` integrates the first
    /// difference exactly, as `heun` and the third order do; `midpoint` uses half of the weight of `d0`.
    pub(super) fn weights(self, exact: bool, to: NoiseLevel, from: NoiseLevel, h: f32) -> UpdateWeights {
        let (alpha, sigma) = (to.alpha, to.sigma);
        match self {
            Self::DpmSolverPp => {
                let decay = exp_f32(-h) - 1.0;
                UpdateWeights {
                    sample: sigma / from.sigma,
                    d0: -(alpha * decay),
                    d1: if exact { alpha * (decay / h + 1.0) } else { -(0.5 * (alpha * decay)) },
                    d2: -(alpha * ((decay + h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            Self::DpmSolver => {
                let growth = exp_f32(h) - 1.0;
                UpdateWeights {
                    sample: alpha / from.alpha,
                    d0: -(sigma * growth),
                    d1: if exact { -(sigma * (growth / h - 1.0)) } else { -(0.5 * (sigma * growth)) },
                    d2: -(sigma * ((growth - h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            Self::SdeDpmSolverPp => {
                let decay = 1.0 - exp_f32(-2.0 * h);
                UpdateWeights {
                    sample: sigma / from.sigma * exp_f32(-h),
                    d0: alpha * decay,
                    d1: if exact { alpha * (decay / (-2.0 * h) + 1.0) } else { 0.5 * (alpha * decay) },
                    d2: alpha * ((decay - 2.0 * h) / ((2.0 * h) * (2.0 * h)) - 0.5),
                    noise: sigma * decay.sqrt(),
                }
            }
            Self::SdeDpmSolver => {
                let growth = exp_f32(h) - 1.0;
                UpdateWeights {
                    sample: alpha / from.alpha,
                    d0: -(2.0 * (sigma * growth)),
                    d1: if exact { -(2.0 * (sigma * (growth / h - 1.0))) } else { -(sigma * growth) },
                    d2: 0.0,
                    noise: sigma * (exp_f32(2.0 * h) - 1.0).sqrt(),
                }
            }
        }
    }
}

/// Converts model outputs to the prediction that an algorithm integrates, epsilon or x0.
#[derive(Debug)]
pub(super) struct OutputConverter {
    pub(super) prediction_type: PredictionType,
    predicts_noise: bool,
    bounds: Bounds,
    images: usize,
}

impl OutputConverter {
    /// Reads `prediction_type`, `variance_type` and the keys of thresholding.
    ///
    /// # Errors
    /// An unknown value, or a prediction type that the algorithm does not support.
    pub(super) fn from_settings(settings: &SchedulerSettings, algorithm: Algorithm, images: usize) -> Result<Self> {
        let prediction_type = PredictionType::from_settings(settings)?;
        if algorithm.predicts_noise() && prediction_type == PredictionType::Flow {
            let help = "set algorithm_type = \"dpmsolver++\" or \"sde-dpmsolver++\"";
            return Err(settings.error("prediction_type", "flow_prediction needs a solver of the x0 prediction", help));
        }
        settings.maybe_choice("variance_type")?;
        let bounds = Bounds::from_settings(settings, images)?;
        Ok(Self::new(prediction_type, algorithm.predicts_noise(), bounds, images))
    }

    /// Creates a converter from a prediction type to epsilon, or else to clipped x0.
    pub(super) fn new(prediction_type: PredictionType, predicts_noise: bool, bounds: Bounds, images: usize) -> Self {
        Self { prediction_type, predicts_noise, bounds, images: images.max(1) }
    }

    /// Splits a batch into parts for [`Self::convert`]; see [`Bounds::blocks`].
    pub(super) fn blocks<'a>(
        &self,
        len: usize,
        model_output: &'a [f32],
    ) -> impl Iterator<Item = (Range<usize>, &'a [f32])> + use<'a> {
        self.bounds.blocks(len, model_output)
    }

    /// Converts the model output on the sample `x` and writes it to `converted`. `level` is the sample's noise level,
    /// `schedule_sigma` its sigma in the schedule.
    pub(super) fn convert(
        &mut self,
        level: NoiseLevel,
        schedule_sigma: f32,
        model_output: &[f32],
        x: &[f32],
        converted: &mut [f32],
    ) {
        let NoiseLevel { alpha, sigma, .. } = level;
        let prediction_type = self.prediction_type;
        let size = (x.len() / self.images).max(1);
        // Predicted variances, in the second half of each image's output, are not used.
        let stride = if model_output.len() == 2 * x.len() { 2 * size } else { size };
        for ((converted, x), m) in converted.chunks_mut(size).zip(x.chunks(size)).zip(model_output.chunks(stride)) {
            let values = converted.iter_mut().zip(x).zip(m);
            if self.predicts_noise {
                for ((converted, x), m) in values {
                    *converted = match prediction_type {
                        PredictionType::Sample => (x - alpha * m) / sigma,
                        PredictionType::Velocity => alpha * m + sigma * x,
                        PredictionType::Epsilon | PredictionType::Flow => *m,
                    };
                }
            } else {
                for ((converted, x), m) in values {
                    *converted = match prediction_type {
                        PredictionType::Sample => *m,
                        PredictionType::Velocity => alpha * x - sigma * m,
                        PredictionType::Flow => x - schedule_sigma * m,
                        PredictionType::Epsilon => (x - sigma * m) / alpha,
                    };
                }
            }
        }
        if matches!(self.bounds, Bounds::None) {
            return;
        }
        if self.predicts_noise {
            for (converted, x) in converted.iter_mut().zip(x) {
                *converted = (x - sigma * *converted) / alpha;
            }
        }
        self.bounds.apply(converted);
        if self.predicts_noise {
            for (converted, x) in converted.iter_mut().zip(x) {
                *converted = (x - alpha * *converted) / sigma;
            }
        }
    }
}
