//! DPM-Solver++ (Lu et al. 2022) for networks with EDM's scalings.

use super::betas::ln_f32;
use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::dpm_update::Algorithm;
use super::edm::{self, Scalings};
use super::multistep::Multistep;
use super::sample::Bounds;
use super::settings::SchedulerSettings;
use super::solver_schedule::NoiseLevel;
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerEntry, sigmas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "edm-dpm-multistep",
    class: "EDMDPMSolverMultistepScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::NONE,
    about: "DPM-Solver++ of order 1 to 3 for networks with EDM's scalings (Playground v2.5).",
    keys: &keys::joined::<16>(
        &edm::KEYS,
        &[
            SchedulerKey::new("solver_order", SchedulerKeyKind::Order { default: 2, max: 3, clamp: true }),
            keys::THRESHOLDING,
            keys::DYNAMIC_THRESHOLDING_RATIO,
            keys::SAMPLE_MAX_VALUE,
            SchedulerKey::new(
                "algorithm_type",
                SchedulerKeyKind::Choice {
                    default: "dpmsolver++",
                    valid: &["dpmsolver++", "sde-dpmsolver++"],
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
        ],
    ),
    build,
};

#[derive(Debug)]
struct EdmDpmMultistep {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    init_noise_sigma: f64,
    scalings: Scalings,
    bounds: Bounds,
    multistep: Multistep,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let algorithm = Algorithm::from_settings(settings)?;
    let mut sigmas = edm::sigmas(settings, request.steps, false)?;
    let timesteps = edm::timesteps(&sigmas);
    let to_zero = settings.choice("final_sigmas_type")? == "zero";
    sigmas.push(if to_zero { 0.0 } else { settings.float("sigma_min")? as f32 });
    Ok(Box::new(EdmDpmMultistep {
        multistep: Multistep::from_settings(settings, algorithm, timesteps.len(), algorithm.is_stochastic())?,
        timesteps,
        sigmas,
        init_noise_sigma: edm::init_noise_sigma(settings)?,
        scalings: Scalings::from_settings(settings)?,
        bounds: Bounds::from_settings(settings, request.images)?,
    }))
}

impl Scheduler for EdmDpmMultistep {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    fn scale_model_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        self.scalings.scale_model_input(self.sigmas[step], x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let Self { sigmas, scalings, bounds, multistep, .. } = self;
        // Samples are variance-exploding: x0 is never scaled down.
        let noise_level =
            |step: usize| NoiseLevel { alpha: 1.0, sigma: sigmas[step], lambda: 0.0 - ln_f32(sigmas[step]) };
        let predict_x0 = scalings.x0_predictor(sigmas[step]);
        let blocks = bounds.blocks(x.len(), model_output);
        let convert = |model_output: &[f32], x: &[f32], out: &mut [f32]| {
            for ((out, x), m) in out.iter_mut().zip(x).zip(model_output) {
                *out = predict_x0(*x, *m);
            }
            bounds.apply(out);
        };
        multistep.step(step, blocks, noise_level, convert, x, noise);
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigmas[step], x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        self.scalings.predict_x0(self.sigmas[step], model_output, x, out);
    }
}
