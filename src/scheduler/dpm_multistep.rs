//! DPM-Solver and DPM-Solver++ in their multistep forms: Lu et al. 2022, "DPM-Solver: A Fast ODE Solver for Diffusion
//! Probabilistic Model Sampling in Around 10 Steps" and "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion
//! Probabilistic Models", with the stochastic variants of the latter's appendix.

use super::config::{Key, Kind, Settings, keys};
use super::dpm_update::{Algorithm, Converter};
use super::multistep::Multistep;
use super::sample::mix;
use super::solver::{self, Level, Manner};
use super::{Accepts, Alias, Entry, Noise, Request, Scheduler, Setting, noise};
use crate::error::Result;

const SDE: (&str, Setting) = ("algorithm_type", Setting::Word("sde-dpmsolver++"));
const THIRD: (&str, Setting) = ("solver_order", Setting::Integer(3));

pub(super) const ENTRY: Entry = Entry {
    name: "dpm-multistep",
    class: "DPMSolverMultistepScheduler",
    aliases: &[
        Alias::plain("DPM++ 2M"),
        Alias::plain("dpmpp_2m"),
        Alias { name: "DPM++ 2M SDE", settings: &[SDE] },
        Alias { name: "dpmpp_2m_sde", settings: &[SDE] },
        Alias { name: "DPM++ 2M SDE Heun", settings: &[SDE, ("solver_type", Setting::Word("heun"))] },
        Alias { name: "DPM++ 3M", settings: &[THIRD] },
        Alias { name: "DPM++ 3M SDE", settings: &[SDE, THIRD] },
        Alias { name: "dpmpp_3m_sde", settings: &[SDE, THIRD] },
    ],
    order: 1,
    stochastic: false,
    accepts: Accepts::TIMESTEPS,
    about: "DPM-Solver++ of order 1 to 3, one call a step; a good choice at 15 to 30 steps.",
    keys: &[
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
        Key::switch("use_lu_lambdas", false),
        Key::switch("use_flow_sigmas", false),
        Key::float("flow_shift", 1.0),
        keys::FINAL_SIGMAS_TYPE,
        Key::float("lambda_min_clipped", f64::NEG_INFINITY),
        solver::VARIANCE_TYPE,
        keys::timestep_spacing("linspace"),
        keys::STEPS_OFFSET,
        keys::RESCALE_BETAS_ZERO_SNR,
        Key::switch("use_dynamic_shifting", false),
        solver::TIME_SHIFT_TYPE,
    ],
    build,
};

#[derive(Debug)]
struct DpmMultistep {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    flow: bool,
    converter: Converter,
    multistep: Multistep,
}

fn build(settings: &Settings, request: &Request) -> Result<Box<dyn Scheduler>> {
    let algorithm = Algorithm::from_settings(settings)?;
    let alphas = noise::positive_alphas_cumprod(settings)?;
    let manner = Manner { cosine_fractions: true, repeats_last: false, inverse: false };
    let schedule = solver::schedule(settings, request, &alphas, manner)?;
    let without_third = algorithm == Algorithm::NoiseSde;
    Ok(Box::new(DpmMultistep {
        multistep: Multistep::from_settings(settings, algorithm, schedule.timesteps.len(), without_third)?,
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        flow: settings.switch("use_flow_sigmas")?,
        converter: Converter::from_settings(settings, algorithm, request.images)?,
    }))
}

impl Scheduler for DpmMultistep {
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
}
