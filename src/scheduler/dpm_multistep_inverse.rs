//! The multistep DPM-Solver and DPM-Solver++ of Lu et al. 2022 run backwards, from a picture to its noise.

use super::config::{Key, Kind, Settings, keys};
use super::dpm_update::{Algorithm, Converter};
use super::multistep::Multistep;
use super::sample::mix;
use super::solver::{self, Level, Manner};
use super::{Accepts, Entry, Noise, Request, Scheduler, noise};
use crate::error::Result;

pub(super) const ENTRY: Entry = Entry {
    name: "dpm-multistep-inverse",
    class: "DPMSolverMultistepInverseScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    accepts: Accepts::NOTHING,
    about: "DPM-Solver++ run backwards, from a picture to the noise it comes from.",
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
        Key::switch("use_flow_sigmas", false),
        Key::float("flow_shift", 1.0),
        Key::float("lambda_min_clipped", f64::NEG_INFINITY),
        solver::VARIANCE_TYPE,
        keys::timestep_spacing("linspace"),
        keys::STEPS_OFFSET,
    ],
    build,
};

#[derive(Debug)]
struct DpmMultistepInverse {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    flow: bool,
    converter: Converter,
    multistep: Multistep,
}

fn build(settings: &Settings, request: &Request) -> Result<Box<dyn Scheduler>> {
    let algorithm = Algorithm::from_settings(settings)?;
    let alphas = noise::alphas_cumprod(settings)?;
    let manner = Manner { cosine_fractions: false, repeats_last: true, inverse: true };
    let schedule = solver::schedule(settings, request, &alphas, manner)?;
    let without_third = algorithm.is_stochastic();
    Ok(Box::new(DpmMultistepInverse {
        multistep: Multistep::from_settings(settings, algorithm, schedule.timesteps.len(), without_third)?,
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        flow: settings.switch("use_flow_sigmas")?,
        converter: Converter::from_settings(settings, algorithm, request.images)?,
    }))
}

impl Scheduler for DpmMultistepInverse {
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
