//! A run of DPM-Solver in its multistep form over a schedule of its family, from noise to image or back: Lu et al.
//! 2022, "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps" and
//! "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models".

use super::config::{Key, Kind, Settings, keys};
use super::dpm_update::{Algorithm, Converter};
use super::multistep::Multistep;
use super::sample::{estimate, mix};
use super::solver::{self, Level, Manner};
use super::{Noise, ScheduleRequest, Scheduler, noise};
use crate::error::Result;

/// The keys of the classes of both directions.
pub(super) const KEYS: [Key; 23] = [
    keys::NUM_TRAIN_TIMESTEPS,
    keys::beta_start(0.0001),
    keys::beta_end(0.02),
    keys::beta_schedule("linear"),
    keys::TRAINED_BETAS,
    Key::new("solver_order", Kind::Order { default: 2, most: 3, lowers: true }),
    keys::prediction_type(&["epsilon", "sample", "v_prediction", "flow_prediction"]),
    keys::THRESHOLDING,
    keys::DYNAMIC_THRESHOLDING_RATIO,
    keys::SAMPLE_MAX_VALUE,
    Key::new(
        "algorithm_type",
        Kind::Choice {
            default: "dpmsolver++",
            valid: &["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"],
            foreign: &["deis"],
        },
    ),
    Key::new(
        "solver_type",
        Kind::Choice { default: "midpoint", valid: &["midpoint", "heun"], foreign: &["logrho", "bh1", "bh2"] },
    ),
    Key::switch("lower_order_final", true),
    Key::switch("euler_at_final", false),
    keys::USE_KARRAS_SIGMAS,
    keys::USE_EXPONENTIAL_SIGMAS,
    keys::USE_BETA_SIGMAS,
    Key::switch("use_flow_sigmas", false),
    Key::float("flow_shift", 1.0),
    Key::float("lambda_min_clipped", f64::NEG_INFINITY),
    solver::VARIANCE_TYPE,
    keys::timestep_spacing("linspace"),
    keys::STEPS_OFFSET,
];

/// A run over a schedule of the family.
#[derive(Debug)]
pub(super) struct DpmSolver {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    flow: bool,
    converter: Converter,
    multistep: Multistep,
}

impl DpmSolver {
    /// Reads [`KEYS`]. `manner` is how the class spaces its steps, `without_third` an algorithm that it has no third
    /// order for.
    ///
    /// # Errors
    /// Values that nobody knows, exclude each other or leave no timestep.
    pub(super) fn from_settings(
        settings: &Settings,
        request: &ScheduleRequest,
        manner: Manner,
        without_third: fn(Algorithm) -> bool,
    ) -> Result<Self> {
        let algorithm = Algorithm::from_settings(settings)?;
        let alphas = noise::positive_alphas_cumprod(settings)?;
        let schedule = solver::schedule(settings, request, &alphas, manner)?;
        let steps = schedule.timesteps.len();
        Ok(Self {
            multistep: Multistep::from_settings(settings, algorithm, steps, without_third(algorithm))?,
            timesteps: schedule.timesteps,
            sigmas: schedule.sigmas,
            flow: settings.switch("use_flow_sigmas")?,
            converter: Converter::from_settings(settings, algorithm, request.images)?,
        })
    }
}

impl Scheduler for DpmSolver {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let Self { sigmas, flow, converter, multistep, .. } = self;
        let level = |step: usize| Level::new(sigmas[step], *flow);
        let blocks = converter.blocks(x.len(), model_output);
        let convert = |model_output: &[f32], x: &[f32], out: &mut [f32]| {
            converter.convert(level(step), sigmas[step], model_output, x, out);
        };
        multistep.step(step, blocks, level, convert, x, noise);
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        let level = Level::new(self.sigmas[step], self.flow);
        mix(level.alpha, x0, level.sigma, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, self.converter.prediction, step, model_output, x, out);
    }
}
