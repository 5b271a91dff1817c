//! DPM-Solver++ as a solver of the reverse SDE, k-diffusion's `sample_dpmpp_sde`: two calls a step, the second in the
//! middle of it, with the noise of one Brownian path an image (Lu et al. 2022, arXiv 2211.01095; Karras et al. 2022,
//! arXiv 2206.00364).
//!
//! The noise of a step is how much the path changes while sigma falls, so the half step and the whole one share it, and
//! more steps refine one and the same image. The path is torchsde's for its seed, which is the image's own or, as
//! in diffusers, `noise_sampler_seed`; then every image of a batch follows the path that it would follow alone, where
//! diffusers makes one path for the whole batch. The path's own draws are from the run's stream of noise, as torchsde's
//! are from the device that the sample lies on.
//!
//! torch's float32 exponentials are, depending on the CPU, one unit in the last place off for about one in a
//! hundred; times of the path are rounded to six decimals, so that in about one run in a hundred such a unit shows, as a
//! difference of some 1e-3 in one step's noise. Here they are rounded to the nearest.

use super::config::{Key, Kind, Settings, keys};
use super::discrete::{self, interleave};
use super::noise::{exp_f32, ln_f32};
use super::sample::{Prediction, estimate};
use super::{Accepts, Alias, Noise, ScheduleRequest, Scheduler, SchedulerEntry, sigmas, spacing};
use crate::error::Result;
use crate::rng::BrownianTree;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "dpm-sde",
    class: "DPMSolverSDEScheduler",
    aliases: &[Alias::plain("DPM++ SDE"), Alias::plain("dpmpp_sde")],
    order: 2,
    stochastic: true,
    inverse: false,
    accepts: Accepts::BOTH,
    about: "DPM-Solver++ on the SDE: two calls a step, with noise that more steps refine and do not change.",
    keys: &keys::joined::<13>(
        &discrete::schedule_keys(0.00085, 0.012, keys::beta_schedule("linear")),
        &[
            keys::prediction_type(&["epsilon", "v_prediction"]),
            Key::new("noise_sampler_seed", Kind::MaybeInteger),
            Key::argument("s_noise", Kind::Float(1.0)),
        ],
    ),
    build,
};

#[derive(Debug)]
struct DpmSde {
    timesteps: Vec<f64>,
    /// One a step of the user's, and the zero at the end.
    sigmas: Vec<f32>,
    initial: f32,
    prediction: Prediction,
    images: usize,
    noise_sampler_seed: Option<u64>,
    s_noise: f32,
    held_sample: Vec<f32>,
    drawn: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let timesteps = spacing::precise_timesteps(settings, request)?;
    let schedule = discrete::schedule_over(timesteps, settings, request, discrete::Karras::OwnEnds)?;
    let spaced = schedule.spaced.windows(2).map(|pair| {
        let (from, to) = (-pair[0].ln(), -pair[1].ln());
        sigmas::timestep_of((-(from + (to - from) * 0.5)).exp(), &schedule.logs)
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
        initial: schedule.initial,
        prediction: Prediction::from_settings(settings)?,
        images: request.images.max(1),
        noise_sampler_seed,
        s_noise: settings.float("s_noise")? as f32,
        held_sample: Vec::new(),
        drawn: Vec::new(),
    }))
}

/// The time of a noise level.
fn time_of(sigma: f32) -> f32 {
    -ln_f32(sigma)
}

/// The noise level of a time.
fn sigma_of(time: f32) -> f32 {
    exp_f32(-time)
}

/// The time halfway from one noise level to the next.
fn halfway(sigma: f32, next: f32) -> f32 {
    let (from, to) = (time_of(sigma), time_of(next));
    from + (to - from) * 0.5
}

impl DpmSde {
    /// The sigma of the sample that a call is given.
    fn sigma_at(&self, call: usize) -> f32 {
        let (sigma, next) = (self.sigmas[call / 2], self.sigmas[call / 2 + 1]);
        if call.is_multiple_of(2) { sigma } else { sigma_of(halfway(sigma, next)) }
    }

    /// Fills `drawn` with the noise that comes with a fall from one noise level to another, of unit variance.
    fn draw(&mut self, from: f32, to: f32, noise: &dyn Noise) {
        let falling = || self.sigmas.iter().copied().filter(|sigma| *sigma > 0.0);
        let (least, most) = (falling().fold(f32::INFINITY, f32::min), falling().fold(0.0, f32::max));
        let root = (to - from).abs().sqrt();
        let each = (self.drawn.len() / self.images).max(1);
        for (image, part) in self.drawn.chunks_mut(each).enumerate() {
            let seed = self.noise_sampler_seed.unwrap_or_else(|| noise.seed(image));
            let path = BrownianTree::new(seed, f64::from(least), f64::from(most));
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

    fn initial_noise_sigma(&self) -> f64 {
        f64::from(self.initial)
    }

    fn order(&self) -> usize {
        2
    }

    fn scale_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        sigmas::scale_input(self.sigma_at(step), x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let (sigma, next) = (self.sigmas[step / 2], self.sigmas[step / 2 + 1]);
        if next == 0.0 {
            sigmas::euler(self.prediction, sigma, sigma, next - sigma, model_output, x);
            return Ok(());
        }
        let first = step.is_multiple_of(2);
        let middle = halfway(sigma, next);
        if first {
            self.held_sample.resize(x.len(), 0.0);
            self.held_sample.copy_from_slice(x);
        }

        // The deterministic part ends below the target, and noise leads up to it.
        let time = time_of(sigma);
        let from = sigma_of(time);
        // A list of sigmas that ends above zero leaves one call for its last step.
        let whole = !first || step + 1 == self.timesteps.len();
        let to = sigma_of(if whole { time_of(next) } else { middle });
        let up = to.min((to * to * (from * from - to * to) / (from * from)).sqrt());
        let below = time_of((to * to - up * up).sqrt());
        let keep = sigma_of(below) / from;
        let pull = f64::from(time - below).exp_m1() as f32;

        self.drawn.resize(x.len(), 0.0);
        self.draw(from, to, noise);
        let at = self.sigma_at(step);
        let image_of = sigmas::image_of(self.prediction, at, at);
        let known = self.held_sample.iter().zip(&self.drawn);
        for ((x, m), (held, drawn)) in x.iter_mut().zip(model_output).zip(known) {
            *x = keep * held - pull * image_of(*x, *m) + drawn * self.s_noise * up;
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigma_at(step), x0, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, self.prediction, step, model_output, x, out);
    }
}
