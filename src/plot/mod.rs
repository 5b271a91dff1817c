//! Plots of schedules: timesteps, sigmas and signal-to-noise ratios over the steps of a run, as numbers and as an SVG
//! image.
//!
//! ```
//! use ldm_ort::plot::{Curve, svg};
//! use ldm_ort::scheduler::{self, Config, ScheduleRequest};
//!
//! let mut curves = Vec::new();
//! for name in ["euler", "DPM++ 2M Karras"] {
//!     let scheduler = scheduler::build(name, None, &Config::new(), &ScheduleRequest::new(20, 1))?;
//!     curves.push(Curve::from_scheduler(name, scheduler.as_ref(), 20));
//! }
//! assert!(curves[0].sigmas.is_sorted_by(|a, b| a > b));
//! assert!(svg("two schedules", &curves)?.starts_with("<svg"));
//! # Ok::<(), ldm_ort::Error>(())
//! ```

mod axis;
mod draw;

pub use draw::svg;

use crate::scheduler::Scheduler;

/// The schedule of one run, with one entry per model evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The name in the legend.
    pub name: String,
    /// The position of each evaluation in steps: 0, 1, 2 and so on, or 0, ½, 1 and so on for second-order methods.
    pub positions: Vec<f64>,
    /// The timesteps.
    pub timesteps: Vec<f64>,
    /// The ratio of noise to x0: at least 0, infinite for pure noise. It is comparable between variance-preserving and
    /// variance-exploding schedulers.
    pub sigmas: Vec<f64>,
    /// The signal-to-noise ratio, `1 / sigma²`.
    pub snr: Vec<f64>,
}

impl Curve {
    /// Reads the schedule of a run of `steps` steps from a scheduler.
    pub fn from_scheduler(name: impl Into<String>, scheduler: &dyn Scheduler, steps: usize) -> Self {
        let timesteps = scheduler.timesteps().to_vec();
        let calls = timesteps.len();
        // PNDM's start has more evaluations per step than its order.
        let calls_per_step = (scheduler.order() as f64).max(calls as f64 / steps.max(1) as f64);
        let factors = || (0..calls).map(|call| signal_and_noise(scheduler, call));
        Self {
            name: name.into(),
            positions: (0..calls).map(|call| call as f64 / calls_per_step).collect(),
            timesteps,
            // SCM's first angle is slightly above a right angle, where the factor of x0 is negative.
            sigmas: factors().map(|(signal, noise)| noise / signal.abs()).collect(),
            snr: factors().map(|(signal, noise)| (signal / noise).powi(2)).collect(),
        }
    }
}

/// Returns the factors of x0 and noise in the sample of an evaluation.
fn signal_and_noise(scheduler: &dyn Scheduler, call: usize) -> (f64, f64) {
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
        Curve::from_scheduler(name, scheduler.as_ref(), steps)
    }

    #[test]
    fn schedulers_with_the_same_schedule_have_the_same_sigmas() {
        let spaced = r#"{"timestep_spacing": "trailing", "beta_schedule": "scaled_linear"}"#;
        let [ddim, euler] = ["ddim", "euler"].map(|name| curve(name, spaced, 10));
        assert_eq!(ddim.timesteps, euler.timesteps);
        for ((a, b), snr) in ddim.sigmas.iter().zip(&euler.sigmas).zip(&euler.snr) {
            assert!((a / b - 1.0).abs() < 1e-3, "{a} is not {b}");
            assert!((snr * b * b - 1.0).abs() < 1e-9, "{snr} does not belong to {b}");
        }
    }

    #[test]
    fn sigmas_fall_and_rise_for_inverse_runs() {
        for entry in scheduler::table() {
            let mut curve = curve(entry.name, "{}", 12);
            if entry.inverse {
                curve.sigmas.reverse();
                // A run that starts from the image itself starts without noise.
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
    fn second_order_methods_have_half_steps() {
        let heun = curve("heun", "{}", 3);
        assert_eq!(heun.positions, [0.0, 0.5, 1.0, 1.5, 2.0]);
        // The midpoint of a DPM2 step is between its ends.
        let kdpm2 = curve("kdpm2", "{}", 3);
        assert!(kdpm2.sigmas.is_sorted_by(|a, b| a > b), "{:?}", kdpm2.sigmas);
    }

    #[test]
    fn sigma_of_pure_noise_is_infinite() {
        let curve = curve("ddim", r#"{"timestep_spacing": "trailing", "rescale_betas_zero_snr": true}"#, 5);
        assert_eq!((curve.sigmas[0], curve.snr[0]), (f64::INFINITY, 0.0));
    }
}
