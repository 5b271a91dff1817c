//! Align Your Steps, schedules optimized for one model: Sabour et al. 2024, "Align Your Steps: Optimizing Sampling
//! Schedules in Diffusion Models", arXiv 2404.14507. The numbers are diffusers' `AysSchedules`.

use super::custom_schedule::CustomSchedule;
use super::linspace::linspace;
use crate::elementary::{exp, ln};

/// A schedule known by name.
#[derive(Debug, PartialEq)]
pub struct NamedSchedule {
    /// The name in pipeline.toml.
    pub name: &'static str,
    /// The model it was optimized for, as a sentence.
    pub about: &'static str,
    /// The ten timesteps; `None` if the model has no discrete timesteps.
    timesteps: Option<[f64; 10]>,
    /// The ten sigmas, and the smallest training sigma.
    sigmas: [f64; 11],
}

/// All named schedules.
pub const NAMED_SCHEDULES: &[NamedSchedule] = &[
    NamedSchedule {
        name: "align-your-steps-sd15",
        about: "Align Your Steps for Stable Diffusion 1.5",
        timesteps: Some([999.0, 850.0, 736.0, 645.0, 545.0, 455.0, 343.0, 233.0, 124.0, 24.0]),
        sigmas: [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029],
    },
    NamedSchedule {
        name: "align-your-steps-sdxl",
        about: "Align Your Steps for Stable Diffusion XL",
        timesteps: Some([999.0, 845.0, 730.0, 587.0, 443.0, 310.0, 193.0, 116.0, 53.0, 13.0]),
        sigmas: [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029],
    },
    NamedSchedule {
        name: "align-your-steps-svd",
        about: "Align Your Steps for Stable Video Diffusion",
        timesteps: None,
        sigmas: [700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002],
    },
];

impl NamedSchedule {
    /// The number of steps the schedules were optimized for.
    pub const STEPS: usize = 10;

    /// Returns the timesteps, always [`NamedSchedule::STEPS`] of them.
    pub fn timesteps(&self) -> Option<CustomSchedule> {
        self.timesteps.map(|list| CustomSchedule::Timesteps(list.to_vec()))
    }

    /// Returns the sigmas for any number of steps, at least 1, and a zero after them. Numbers other than
    /// [`NamedSchedule::STEPS`] are interpolated linearly in the logarithm, as the paper's authors do.
    pub fn sigmas(&self, steps: usize) -> CustomSchedule {
        let mut sigmas = if steps == Self::STEPS {
            self.sigmas.to_vec()
        } else {
            let logs = self.sigmas.map(ln);
            let last = logs.len() - 1;
            let interpolate = |position: f64| {
                let below = (position.floor() as usize).min(last - 1);
                exp(logs[below] + (logs[below + 1] - logs[below]) * (position - below as f64))
            };
            linspace(0.0, last as f64, steps.max(1) + 1).into_iter().map(interpolate).collect()
        };
        if let Some(end) = sigmas.last_mut() {
            *end = 0.0;
        }
        CustomSchedule::Sigmas(sigmas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_steps_are_the_table_and_others_pass_through_its_ends() {
        for named in NAMED_SCHEDULES {
            let CustomSchedule::Sigmas(ten) = named.sigmas(10) else { panic!("{}", named.name) };
            assert_eq!(ten[..10], named.sigmas[..10]);
            assert_eq!(ten[10], 0.0);
            for steps in [1, 2, 5, 20, 37] {
                let CustomSchedule::Sigmas(list) = named.sigmas(steps) else { panic!("{}", named.name) };
                assert_eq!(list.len(), steps + 1);
                assert!((list[0] / named.sigmas[0] - 1.0).abs() < 1e-12, "{list:?}");
                assert!(list.windows(2).all(|pair| pair[0] > pair[1]), "{list:?}");
            }
            // Every second sigma of a run of twenty steps is one of the ten.
            let CustomSchedule::Sigmas(twenty) = named.sigmas(20) else { panic!("{}", named.name) };
            for (i, sigma) in ten[..10].iter().enumerate() {
                assert!((twenty[2 * i] / sigma - 1.0).abs() < 1e-12, "{i}");
            }
        }
    }
}
