//! k-diffusion's `sample_dpm_2`: the midpoint method, with the midpoint in the logarithm of sigma.

use super::betas::{exp_f32, ln_f32};
use super::config::keys;
use super::sample::{PredictionType, blocks, predict_x0};
use super::settings::SchedulerSettings;
use super::sigma_schedule::{self, interleave};
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerAlias, SchedulerEntry, sigmas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "kdpm2",
    class: "KDPM2DiscreteScheduler",
    aliases: &[SchedulerAlias::plain("DPM2"), SchedulerAlias::plain("dpm_2")],
    order: 2,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::BOTH,
    about: "k-diffusion's DPM-Solver-2: two evaluations per step, the first leads to its midpoint.",
    keys: &keys::joined::<11>(
        &sigma_schedule::schedule_keys(0.00085, 0.012, keys::beta_schedule("linear")),
        &[keys::prediction_type(&["epsilon", "v_prediction"])],
    ),
    build,
};

#[derive(Debug)]
struct Kdpm2 {
    timesteps: Vec<f64>,
    /// One per step, and a zero at the end.
    sigmas: Vec<f32>,
    /// The sigma at the midpoint of each step.
    sigmas_interpol: Vec<f32>,
    init_noise_sigma: f32,
    prediction_type: PredictionType,
    sample: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let schedule = sigma_schedule::build_schedule(settings, request, sigma_schedule::KarrasVariant::Whole)?;
    let sigmas_interpol: Vec<f32> = schedule
        .sigmas
        .windows(2)
        .map(|pair| {
            let (from, to) = (ln_f32(pair[0]), ln_f32(pair[1]));
            exp_f32(from - (from - to) * 0.5)
        })
        .collect();
    let pairs = sigmas_interpol.iter().zip(schedule.timesteps.iter().skip(1));
    let pairs = pairs.map(|(sigma, t)| (sigmas::sigma_to_t(f64::from(*sigma), &schedule.logs), *t));
    Ok(Box::new(Kdpm2 {
        timesteps: interleave(schedule.timesteps[0], pairs),
        sigmas: schedule.sigmas,
        sigmas_interpol,
        init_noise_sigma: schedule.init_noise_sigma,
        prediction_type: PredictionType::from_settings(settings)?,
        sample: Vec::new(),
    }))
}

impl Kdpm2 {
    /// Returns the sigma of the sample at an evaluation.
    fn sigma_at(&self, evaluation: usize) -> f32 {
        let sigmas = if evaluation.is_multiple_of(2) { &self.sigmas } else { &self.sigmas_interpol };
        sigmas[evaluation / 2]
    }
}

impl Scheduler for Kdpm2 {
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

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], _: &mut dyn Noise) -> Result<()> {
        let (sigma, sigma_interpol, next) =
            (self.sigmas[step / 2], self.sigmas_interpol[step / 2], self.sigmas[step / 2 + 1]);
        if step.is_multiple_of(2) {
            self.sample.resize(x.len(), 0.0);
            for block in blocks(x.len()) {
                let (x, model_output) = (&mut x[block.clone()], &model_output[block.clone()]);
                self.sample[block].copy_from_slice(x);
                sigmas::euler(self.prediction_type, sigma, sigma, sigma_interpol - sigma, model_output, x);
            }
        } else {
            let predict_x0 = sigmas::x0_predictor(self.prediction_type, sigma_interpol, sigma_interpol);
            let dt = next - sigma;
            for ((x, m), sample) in x.iter_mut().zip(model_output).zip(&self.sample) {
                *x = sample + (*x - predict_x0(*x, *m)) / sigma_interpol * dt;
            }
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
