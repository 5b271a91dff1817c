//! The multistep DPM-Solver in both directions, from noise to image and back: Lu et al.
//! 2022, "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps" and
//! "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models".

use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::dpm_update::{Algorithm, OutputConverter};
use super::multistep::Multistep;
use super::sample::{mix, predict_x0};
use super::settings::SchedulerSettings;
use super::solver_schedule::{self, NoiseLevel, ScheduleOptions};
use super::{Noise, ScheduleRequest, Scheduler, betas};
use crate::error::Result;

/// The configuration keys of the classes of both directions.
pub(super) const KEYS: [SchedulerKey; 23] = [
    keys::NUM_TRAIN_TIMESTEPS,
    keys::beta_start(0.0001),
    keys::beta_end(0.02),
    keys::beta_schedule("linear"),
    keys::TRAINED_BETAS,
    SchedulerKey::new("solver_order", SchedulerKeyKind::Order { default: 2, max: 3, clamp: true }),
    keys::prediction_type(&["epsilon", "sample", "v_prediction", "flow_prediction"]),
    keys::THRESHOLDING,
    keys::DYNAMIC_THRESHOLDING_RATIO,
    keys::SAMPLE_MAX_VALUE,
    SchedulerKey::new(
        "algorithm_type",
        SchedulerKeyKind::Choice {
            default: "dpmsolver++",
            valid: &["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"],
            foreign: &["deis"],
        },
    ),
    SchedulerKey::new(
        "solver_type",
        SchedulerKeyKind::Choice {
            default: "midpoint",
            valid: &["midpoint", "heun"],
            foreign: &["logrho", "bh1", "bh2"],
        },
    ),
    SchedulerKey::switch("lower_order_final", true),
    SchedulerKey::switch("euler_at_final", false),
    keys::USE_KARRAS_SIGMAS,
    keys::USE_EXPONENTIAL_SIGMAS,
    keys::USE_BETA_SIGMAS,
    SchedulerKey::switch("use_flow_sigmas", false),
    SchedulerKey::float("flow_shift", 1.0),
    SchedulerKey::float("lambda_min_clipped", f64::NEG_INFINITY),
    solver_schedule::VARIANCE_TYPE,
    keys::timestep_spacing("linspace"),
    keys::STEPS_OFFSET,
];

/// The multistep DPM-Solver over a schedule of its family.
#[derive(Debug)]
pub(super) struct DpmSolver {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    flow: bool,
    converter: OutputConverter,
    multistep: Multistep,
}

impl DpmSolver {
    /// Reads [`KEYS`]. `without_third` returns true for algorithms that have no third order in this class.
    ///
    /// # Errors
    /// Values that are unknown, contradict each other, or leave no timestep.
    pub(super) fn from_settings(
        settings: &SchedulerSettings,
        request: &ScheduleRequest,
        options: ScheduleOptions,
        without_third: fn(Algorithm) -> bool,
    ) -> Result<Self> {
        let algorithm = Algorithm::from_settings(settings)?;
        let alphas = betas::positive_alphas_cumprod(settings)?;
        let schedule = solver_schedule::build_schedule(settings, request, &alphas, options)?;
        let steps = schedule.timesteps.len();
        Ok(Self {
            multistep: Multistep::from_settings(settings, algorithm, steps, without_third(algorithm))?,
            timesteps: schedule.timesteps,
            sigmas: schedule.sigmas,
            flow: settings.switch("use_flow_sigmas")?,
            converter: OutputConverter::from_settings(settings, algorithm, request.images)?,
        })
    }
}

impl Scheduler for DpmSolver {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let Self { sigmas, flow, converter, multistep, .. } = self;
        let noise_level = |step: usize| NoiseLevel::new(sigmas[step], *flow);
        let blocks = converter.blocks(x.len(), model_output);
        let convert = |model_output: &[f32], x: &[f32], out: &mut [f32]| {
            converter.convert(noise_level(step), sigmas[step], model_output, x, out);
        };
        multistep.step(step, blocks, noise_level, convert, x, noise);
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        let level = NoiseLevel::new(self.sigmas[step], self.flow);
        mix(level.alpha, x0, level.sigma, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, self.converter.prediction_type, step, model_output, x, out);
    }
}
