//! The churn of Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", algorithm 2:
//! a step first adds noise, which raises its sigma to `sigma_hat`, then denoises from there.

use super::Noise;
use super::config::{SchedulerKey, SchedulerKeyKind};
use super::settings::SchedulerSettings;
use crate::error::Result;

/// The `step()` arguments of every class with churn.
pub(super) const KEYS: [SchedulerKey; 4] = [
    SchedulerKey::argument("s_churn", SchedulerKeyKind::Float(0.0)),
    SchedulerKey::argument("s_tmin", SchedulerKeyKind::Float(0.0)),
    SchedulerKey::argument("s_tmax", SchedulerKeyKind::Float(f64::INFINITY)),
    SchedulerKey::argument("s_noise", SchedulerKeyKind::Float(1.0)),
];

#[derive(Debug)]
pub(super) struct Churn {
    /// Noise added by a step, as a fraction of its sigma.
    gamma: f64,
    /// The range of sigmas at which noise is added.
    s_tmin: f64,
    s_tmax: f64,
    /// The standard deviation of the added noise.
    s_noise: f32,
    noise: Vec<f32>,
}

impl Churn {
    /// Reads [`KEYS`] for a run of `evaluations` model evaluations.
    ///
    /// # Errors
    /// A value that is not a number.
    pub(super) fn from_settings(settings: &SchedulerSettings, evaluations: usize) -> Result<Self> {
        Ok(Self {
            gamma: (settings.float("s_churn")? / evaluations as f64).min(std::f64::consts::SQRT_2 - 1.0),
            s_tmin: settings.float("s_tmin")?,
            s_tmax: settings.float("s_tmax")?,
            s_noise: settings.float("s_noise")? as f32,
            noise: Vec::new(),
        })
    }

    /// Adds the churn of a step at `sigma`, if any, to `x` and returns `sigma_hat`, the sigma of `x` afterwards.
    pub(super) fn add_noise(&mut self, sigma: f32, x: &mut [f32], noise: &mut dyn Noise) -> f32 {
        if !((self.s_tmin..=self.s_tmax).contains(&f64::from(sigma)) && self.gamma > 0.0) {
            return sigma;
        }
        let sigma_hat = sigma * (self.gamma + 1.0) as f32;
        self.noise.resize(x.len(), 0.0);
        noise.fill(&mut self.noise);
        let added = (sigma_hat * sigma_hat - sigma * sigma).sqrt();
        for (x, noise) in x.iter_mut().zip(&self.noise) {
            *x += noise * self.s_noise * added;
        }
        sigma_hat
    }
}
