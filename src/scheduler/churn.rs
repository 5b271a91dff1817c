//! The churn of Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", algorithm 2:
//! a step first adds some noise, and then removes more.

use super::Noise;
use super::config::{Key, Kind, Settings};
use crate::error::Result;

/// The arguments of `step()` that every class with churn takes.
pub(super) const KEYS: [Key; 4] = [
    Key::argument("s_churn", Kind::Float(0.0)),
    Key::argument("s_tmin", Kind::Float(0.0)),
    Key::argument("s_tmax", Kind::Float(f64::INFINITY)),
    Key::argument("s_noise", Kind::Float(1.0)),
];

#[derive(Debug)]
pub(super) struct Churn {
    /// How much noise a step adds, as a fraction of its sigma.
    fraction: f64,
    /// The sigmas at which it does.
    min: f64,
    max: f64,
    /// The deviation of that noise.
    deviation: f32,
    drawn: Vec<f32>,
}

impl Churn {
    /// Reads [`KEYS`] for a run of `calls` calls.
    ///
    /// # Errors
    /// A value that is not a number.
    pub(super) fn from_settings(settings: &Settings, calls: usize) -> Result<Self> {
        Ok(Self {
            fraction: (settings.float("s_churn")? / calls as f64).min(std::f64::consts::SQRT_2 - 1.0),
            min: settings.float("s_tmin")?,
            max: settings.float("s_tmax")?,
            deviation: settings.float("s_noise")? as f32,
            drawn: Vec::new(),
        })
    }

    /// Adds the noise that goes with a step at `sigma` to `x`, if any, and returns the sigma that `x` then has.
    pub(super) fn raise(&mut self, sigma: f32, x: &mut [f32], noise: &mut dyn Noise) -> f32 {
        if !((self.min..=self.max).contains(&f64::from(sigma)) && self.fraction > 0.0) {
            return sigma;
        }
        let raised = sigma * (self.fraction + 1.0) as f32;
        self.drawn.resize(x.len(), 0.0);
        noise.fill(&mut self.drawn);
        let added = (raised * raised - sigma * sigma).sqrt();
        for (x, drawn) in x.iter_mut().zip(&self.drawn) {
            *x += drawn * self.deviation * added;
        }
        raised
    }
}
