//! DPM-Solver++ as a solver of the reverse SDE, k-diffusion's `sample_dpmpp_sde`: two evaluations per step, the second
//! at its midpoint, with noise from one Brownian path per image (Lu et al. 2022, arXiv 2211.01095; Karras et al. 2022,
//! arXiv 2206.00364).
//!
//! The noise of a step is the change of the path while sigma falls. The half step and the whole step therefore share
//! noise, and more steps refine the same image. The path is torchsde's for its seed, which is the image's seed or, as
//! in diffusers, `noise_sampler_seed`. Every image of a batch follows the path that it would follow alone; diffusers
//! creates one path for the whole batch. The path draws from the run's noise stream, as torchsde draws on the sample's
//! device.
//!
//! torch's float32 exponentials are, depending on the CPU, one unit in the last place off for about one in a hundred.
//! Times of the path are rounded to six decimals, so that such a unit shows in about one run in a hundred, as a
//! difference of about 1e-3 in one step's noise. Here exponentials are rounded to the nearest.

use super::betas::{exp_f32, ln_f32};
use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::sample::{PredictionType, predict_x0};
use super::settings::SchedulerSettings;
use super::sigma_schedule::{self, interleave};
use super::{
    CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerAlias, SchedulerEntry, sigmas, spacing,
};
use crate::elementary::{exp, exp_m1, ln};
use crate::error::Result;
use crate::rng::BrownianTree;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "dpm-sde",
    class: "DPMSolverSDEScheduler",
    aliases: &[SchedulerAlias::plain("DPM++ SDE"), SchedulerAlias::plain("dpmpp_sde")],
    order: 2,
    stochastic: true,
    inverse: false,
    custom_schedules: CustomScheduleSupport::BOTH,
    about: "DPM-Solver++ on the SDE: two evaluations per step, with noise that more steps refine and do not change.",
    keys: &keys::joined::<13>(
        &sigma_schedule::schedule_keys(0.00085, 0.012, keys::beta_schedule("linear")),
        &[
            keys::prediction_type(&["epsilon", "v_prediction"]),
            SchedulerKey::new("noise_sampler_seed", SchedulerKeyKind::MaybeInteger),
            SchedulerKey::argument("s_noise", SchedulerKeyKind::Float(1.0)),
        ],
    ),
    build,
};

#[derive(Debug)]
struct DpmSde {
    timesteps: Vec<f64>,
    /// One per step, and a zero at the end.
    sigmas: Vec<f32>,
    init_noise_sigma: f32,
    prediction_type: PredictionType,
    images: usize,
    noise_sampler_seed: Option<u64>,
    s_noise: f32,
    sample: Vec<f32>,
    noise: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let timesteps = spacing::precise_timesteps(settings, request)?;
    let schedule =
        sigma_schedule::build_schedule_over(timesteps, settings, request, sigma_schedule::KarrasVariant::OwnEnds)?;
    let spaced = schedule.spaced.windows(2).map(|pair| {
        let (from, to) = (-ln(pair[0]), -ln(pair[1]));
        sigmas::sigma_to_t(exp(-(from + (to - from) * 0.5)), &schedule.logs)
    });
    let pairs = spaced.zip(schedule.timesteps.iter().skip(1)).map(|(middle, t)| (middle, *t));
    let noise_sampler_seed = match settings.maybe_integer("noise_sampler_seed")? {
        Some(seed) => Some(u64::try_from(seed).map_err(|_| {
            settings.error("noise_sampler_seed", format!("expected 0 or more, found {seed}"), "choose another seed")
        })?),
        None => None,
    };
    Ok(Box::new(DpmSde {
        timesteps: interleave(schedule.timesteps[0], pairs),
        sigmas: schedule.sigmas,
        init_noise_sigma: schedule.init_noise_sigma,
        prediction_type: PredictionType::from_settings(settings)?,
        images: request.images.max(1),
        noise_sampler_seed,
        s_noise: settings.float("s_noise")? as f32,
        sample: Vec::new(),
        noise: Vec::new(),
    }))
}

/// Returns the time of a sigma, its negative logarithm.
fn t_from_sigma(sigma: f32) -> f32 {
    -ln_f32(sigma)
}

/// Returns the sigma of a time.
fn sigma_from_t(time: f32) -> f32 {
    exp_f32(-time)
}

/// Returns the time midway between two sigmas.
fn midpoint(sigma: f32, next: f32) -> f32 {
    let (from, to) = (t_from_sigma(sigma), t_from_sigma(next));
    from + (to - from) * 0.5
}

impl DpmSde {
    /// Returns the sigma of the sample at an evaluation.
    fn sigma_at(&self, evaluation: usize) -> f32 {
        let (sigma, next) = (self.sigmas[evaluation / 2], self.sigmas[evaluation / 2 + 1]);
        if evaluation.is_multiple_of(2) { sigma } else { sigma_from_t(midpoint(sigma, next)) }
    }

    /// Fills `self.noise` with the unit-variance noise of a step from one sigma to another.
    fn sample_noise(&mut self, from: f32, to: f32, noise: &dyn Noise) {
        let positive = || self.sigmas.iter().copied().filter(|sigma| *sigma > 0.0);
        let (min, max) = (positive().fold(f32::INFINITY, f32::min), positive().fold(0.0, f32::max));
        let root = (to - from).abs().sqrt();
        let each = (self.noise.len() / self.images).max(1);
        for (image, part) in self.noise.chunks_mut(each).enumerate() {
            let seed = self.noise_sampler_seed.unwrap_or_else(|| noise.seed(image));
            let path = BrownianTree::new(seed, f64::from(min), f64::from(max));
            let mut draw = |seed, out: &mut [f32]| noise.fill_seeded(seed, out);
            path.change(f64::from(from), f64::from(to), &mut draw, part);
            part.iter_mut().for_each(|value| *value /= root);
        }
    }
}

impl Scheduler for DpmSde {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        f64::from(self.init_noise_sigma)
    }

    fn order(&self) -> usize {
        2
    }

    fn scale_model_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        sigmas::scale_model_input(self.sigma_at(step), x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let (sigma, next) = (self.sigmas[step / 2], self.sigmas[step / 2 + 1]);
        if next == 0.0 {
            sigmas::euler(self.prediction_type, sigma, sigma, next - sigma, model_output, x);
            return Ok(());
        }
        let first = step.is_multiple_of(2);
        let middle = midpoint(sigma, next);
        if first {
            self.sample.resize(x.len(), 0.0);
            self.sample.copy_from_slice(x);
        }

        // The deterministic part ends below the target sigma; noise raises it to the target.
        let time = t_from_sigma(sigma);
        let from = sigma_from_t(time);
        // A list of sigmas that ends above zero leaves one evaluation for its last step.
        let whole = !first || step + 1 == self.timesteps.len();
        let to = sigma_from_t(if whole { t_from_sigma(next) } else { middle });
        let sigma_up = to.min((to * to * (from * from - to * to) / (from * from)).sqrt());
        let t_down = t_from_sigma((to * to - sigma_up * sigma_up).sqrt());
        let sample_weight = sigma_from_t(t_down) / from;
        let x0_weight = exp_m1(f64::from(time - t_down)) as f32;

        self.noise.resize(x.len(), 0.0);
        self.sample_noise(from, to, noise);
        let at = self.sigma_at(step);
        let predict_x0 = sigmas::x0_predictor(self.prediction_type, at, at);
        let saved = self.sample.iter().zip(&self.noise);
        for ((x, m), (sample, noise)) in x.iter_mut().zip(model_output).zip(saved) {
            *x = sample_weight * sample - x0_weight * predict_x0(*x, *m) + noise * self.s_noise * sigma_up;
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigma_at(step), x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, self.prediction_type, step, model_output, x, out);
    }
}
