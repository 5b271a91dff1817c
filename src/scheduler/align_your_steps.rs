//! Schedules optimized for a model: Sabour et al. 2024, "Align Your Steps: Optimizing Sampling Schedules in Diffusion
//! Models", arXiv 2404.14507. The numbers are those that diffusers has as `AysSchedules`.

use super::custom::Custom;
use super::spacing::linspace;

/// A schedule known by name.
#[derive(Debug, PartialEq)]
pub struct Named {
    /// The name in pipeline.toml.
    pub name: &'static str,
    /// What it was optimized for.
    pub about: &'static str,
    /// Its ten timesteps, where its model has timesteps.
    timesteps: Option<[f64; 10]>,
    /// Its ten noise levels, and the least one of training.
    sigmas: [f64; 11],
}

/// The schedules known by name.
pub const NAMED: &[Named] = &[
    Named {
        name: "align-your-steps-sd15",
        about: "Align Your Steps for Stable Diffusion 1.5",
        timesteps: Some([999.0, 850.0, 736.0, 645.0, 545.0, 455.0, 343.0, 233.0, 124.0, 24.0]),
        sigmas: [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029],
    },
    Named {
        name: "align-your-steps-sdxl",
        about: "Align Your Steps for Stable Diffusion XL",
        timesteps: Some([999.0, 845.0, 730.0, 587.0, 443.0, 310.0, 193.0, 116.0, 53.0, 13.0]),
        sigmas: [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029],
    },
    Named {
        name: "align-your-steps-svd",
        about: "Align Your Steps for Stable Video Diffusion",
        timesteps: None,
        sigmas: [700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002],
    },
];

impl Named {
    /// The steps the schedule was optimized for.
    pub const STEPS: usize = 10;

    /// Its timesteps; there are [`Named::STEPS`] of them and no other number.
    pub fn timesteps(&self) -> Option<Custom> {
        self.timesteps.map(|list| Custom::Timesteps(list.to_vec()))
    }

    /// Its noise levels for any number of steps, at least 1, with the zero at the end: for other numbers than
    /// [`Named::STEPS`] interpolated linearly in their logarithms, as the paper's authors do.
    pub fn sigmas(&self, steps: usize) -> Custom {
        let mut levels = if steps == Self::STEPS {
            self.sigmas.to_vec()
        } else {
            let logs = self.sigmas.map(f64::ln);
            let last = logs.len() - 1;
            let at = |place: f64| {
                let below = (place.floor() as usize).min(last - 1);
                (logs[below] + (logs[below + 1] - logs[below]) * (place - below as f64)).exp()
            };
            linspace(0.0, last as f64, steps.max(1) + 1).into_iter().map(at).collect()
        };
        if let Some(end) = levels.last_mut() {
            *end = 0.0;
        }
        Custom::Sigmas(levels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_steps_are_the_table_and_others_pass_through_its_ends() {
        for named in NAMED {
            let Custom::Sigmas(ten) = named.sigmas(10) else { panic!("{}", named.name) };
            assert_eq!(ten[..10], named.sigmas[..10]);
            assert_eq!(ten[10], 0.0);
            for steps in [1, 2, 5, 20, 37] {
                let Custom::Sigmas(list) = named.sigmas(steps) else { panic!("{}", named.name) };
                assert_eq!(list.len(), steps + 1);
                assert!((list[0] / named.sigmas[0] - 1.0).abs() < 1e-12, "{list:?}");
                assert!(list.windows(2).all(|pair| pair[0] > pair[1]), "{list:?}");
            }
            // Every second of twenty steps is one of the ten.
            let Custom::Sigmas(twenty) = named.sigmas(20) else { panic!("{}", named.name) };
            for (i, sigma) in ten[..10].iter().enumerate() {
                assert!((twenty[2 * i] / sigma - 1.0).abs() < 1e-12, "{i}");
            }
        }
    }
}
