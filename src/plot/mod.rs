//! What a schedule looks like: timesteps, noise and signal-to-noise over the steps of a run, as numbers and as a
//! image.
//!
//! ```
//! use ldm_ort::plot::{Curve, svg};
//! use ldm_ort::scheduler::{self, Config, ScheduleRequest};
//!
//! let mut curves = Vec::new();
//! for name in ["euler", "DPM++ 2M Karras"] {
//!     let scheduler = scheduler::build(name, None, &Config::new(), &ScheduleRequest::new(20, 1))?;
//!     curves.push(Curve::of(name, scheduler.as_ref(), 20));
//! }
//! assert!(curves[0].sigmas.is_sorted_by(|a, b| a > b));
//! assert!(svg("two schedules", &curves)?.starts_with("<svg"));
//! # Ok::<(), ldm_ort::Error>(())
//! ```

mod axis;
mod draw;

pub use draw::svg;

use crate::scheduler::Scheduler;

/// The schedule of one run, an entry for each call of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What it is called in the legend.
    pub name: String,
    /// Where in the run the call stands, in steps of the user's: 0, 1, 2 and so on, or 0, ½, 1 and so on for a method
    /// of two calls a step.
    pub positions: Vec<f64>,
    /// What the model is told.
    pub timesteps: Vec<f64>,
    /// How much noise there is for one part of image: at least 0, infinite where nothing of the image is left.
    /// The same measure for all schedulers, whether theirs keep the variance or let it grow.
    pub sigmas: Vec<f64>,
    /// The signal-to-noise ratio, `1 / sigma²`.
    pub snr: Vec<f64>,
}

impl Curve {
    /// Reads the schedule of a run of `steps` steps off a scheduler.
    pub fn of(name: impl Into<String>, scheduler: &dyn Scheduler, steps: usize) -> Self {
        let timesteps = scheduler.timesteps().to_vec();
        let calls = timesteps.len();
        // PNDM's start takes more calls than its order says.
        let calls_per_step = (scheduler.order() as f64).max(calls as f64 / steps.max(1) as f64);
        let levels = || (0..calls).map(|call| level(scheduler, call));
        Self {
            name: name.into(),
            positions: (0..calls).map(|call| call as f64 / calls_per_step).collect(),
            timesteps,
            // SCM's first angle lies a hair beyond a right one, where the image's share is below zero.
            sigmas: levels().map(|(signal, noise)| noise / signal.abs()).collect(),
            snr: levels().map(|(signal, noise)| (signal / noise).powi(2)).collect(),
        }
    }
}

/// How much of the image and how much noise the sample of a call holds.
fn level(scheduler: &dyn Scheduler, call: usize) -> (f64, f64) {
    let (mut signal, mut noise) = ([0.0], [0.0]);
    scheduler.add_noise(call, &[1.0], &[0.0], &mut signal);
    scheduler.add_noise(call, &[0.0], &[1.0], &mut noise);
    (f64::from(signal[0]), f64::from(noise[0]))
}

#[cfg(test)]
mod tests {
    use super::Curve;
    use crate::scheduler::{self, Config, ScheduleRequest};

    fn curve(name: &str, config: &str, steps: usize) -> Curve {
        let config: Config = serde_json::from_str(config).unwrap();
        let scheduler = scheduler::build(name, Some(&config), &Config::new(), &ScheduleRequest::new(steps, 1)).unwrap();
        Curve::of(name, scheduler.as_ref(), steps)
    }

    #[test]
    fn schedulers_of_one_schedule_have_one_noise() {
        let spaced = r#"{"timestep_spacing": "trailing", "beta_schedule": "scaled_linear"}"#;
        let [ddim, euler] = ["ddim", "euler"].map(|name| curve(name, spaced, 10));
        assert_eq!(ddim.timesteps, euler.timesteps);
        for ((a, b), snr) in ddim.sigmas.iter().zip(&euler.sigmas).zip(&euler.snr) {
            assert!((a / b - 1.0).abs() < 1e-3, "{a} is not {b}");
            assert!((snr * b * b - 1.0).abs() < 1e-9, "{snr} does not belong to {b}");
        }
    }

    #[test]
    fn noise_falls_from_call_to_call_and_rises_where_a_run_is_inverse() {
        for entry in scheduler::table() {
            let mut curve = curve(entry.name, "{}", 12);
            if entry.inverse {
                curve.sigmas.reverse();
                // A run that begins with the image itself begins without noise.
                assert_eq!(curve.sigmas.last() == Some(&0.0), entry.name == "ddim-inverse");
                curve.sigmas[11] = curve.sigmas[11].max(f64::MIN_POSITIVE);
            }
            let calls = curve.timesteps.len();
            assert!([&curve.positions, &curve.sigmas, &curve.snr].iter().all(|v| v.len() == calls), "{}", entry.name);
            assert!(curve.positions.iter().all(|p| (0.0..12.0).contains(p)), "{}: {:?}", entry.name, curve.positions);
            assert!(curve.sigmas.iter().all(|sigma| *sigma > 0.0), "{}: {:?}", entry.name, curve.sigmas);
            if entry.name != "pndm" {
                assert!(curve.sigmas.is_sorted_by(|a, b| 1.0001 * a >= *b), "{}: {:?}", entry.name, curve.sigmas);
            }
        }
    }

    #[test]
    fn a_method_of_two_calls_stands_at_half_steps() {
        let heun = curve("heun", "{}", 3);
        assert_eq!(heun.positions, [0.0, 0.5, 1.0, 1.5, 2.0]);
        // The middle of a step of DPM2 lies between its ends.
        let kdpm2 = curve("kdpm2", "{}", 3);
        assert!(kdpm2.sigmas.is_sorted_by(|a, b| a > b), "{:?}", kdpm2.sigmas);
    }

    #[test]
    fn without_a_image_noise_is_infinite() {
        let curve = curve("ddim", r#"{"timestep_spacing": "trailing", "rescale_betas_zero_snr": true}"#, 5);
        assert_eq!((curve.sigmas[0], curve.snr[0]), (f64::INFINITY, 0.0));
    }
}
