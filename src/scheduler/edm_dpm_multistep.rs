//! DPM-Solver++ (Lu et al. 2022) for EDM's networks.

use super::config::{Key, Kind, Settings, keys};
use super::dpm_update::Algorithm;
use super::edm::{self, Scalings};
use super::multistep::Multistep;
use super::noise::ln_f32;
use super::sample::Bounds;
use super::solver::Level;
use super::{Accepts, Noise, ScheduleRequest, Scheduler, SchedulerEntry, sigmas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "edm-dpm-multistep",
    class: "EDMDPMSolverMultistepScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: false,
    accepts: Accepts::NOTHING,
    about: "DPM-Solver++ of order 1 to 3 for networks with EDM's scalings (Playground v2.5).",
    keys: &keys::joined::<16>(
        &edm::KEYS,
        &[
            Key::new("solver_order", Kind::Order { default: 2, most: 3, lowers: true }),
            keys::THRESHOLDING,
            keys::DYNAMIC_THRESHOLDING_RATIO,
            keys::SAMPLE_MAX_VALUE,
            Key::new(
                "algorithm_type",
                Kind::Choice { default: "dpmsolver++", valid: &["dpmsolver++", "sde-dpmsolver++"], foreign: &["deis"] },
            ),
            Key::new(
                "solver_type",
                Kind::Choice { default: "midpoint", valid: &["midpoint", "heun"], foreign: &["logrho", "bh1", "bh2"] },
            ),
            Key::switch("lower_order_final", true),
            Key::switch("euler_at_final", false),
        ],
    ),
    build,
};

#[derive(Debug)]
struct EdmDpmMultistep {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    initial: f64,
    scalings: Scalings,
    bounds: Bounds,
    multistep: Multistep,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let algorithm = Algorithm::from_settings(settings)?;
    let mut levels = edm::sigmas(settings, request.steps, false)?;
    let timesteps = edm::timesteps(&levels);
    let to_zero = settings.choice("final_sigmas_type")? == "zero";
    levels.push(if to_zero { 0.0 } else { settings.float("sigma_min")? as f32 });
    Ok(Box::new(EdmDpmMultistep {
        multistep: Multistep::from_settings(settings, algorithm, timesteps.len(), algorithm.is_stochastic())?,
        timesteps,
        sigmas: levels,
        initial: edm::initial(settings)?,
        scalings: Scalings::from_settings(settings)?,
        bounds: Bounds::from_settings(settings, request.images)?,
    }))
}

impl Scheduler for EdmDpmMultistep {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        self.initial
    }

    fn scale_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        self.scalings.scale_input(self.sigmas[step], x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let Self { sigmas, scalings, bounds, multistep, .. } = self;
        // The whole image stands in every sample, with noise on top.
        let level = |step: usize| Level { alpha: 1.0, sigma: sigmas[step], lambda: 0.0 - ln_f32(sigmas[step]) };
        let image_of = scalings.image_of(sigmas[step]);
        let blocks = bounds.blocks(x.len(), model_output);
        let convert = |model_output: &[f32], x: &[f32], out: &mut [f32]| {
            for ((out, x), m) in out.iter_mut().zip(x).zip(model_output) {
                *out = image_of(*x, *m);
            }
            bounds.apply(out);
        };
        multistep.step(step, blocks, level, convert, x, noise);
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigmas[step], x0, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        self.scalings.estimate(self.sigmas[step], model_output, x, out);
    }
}
