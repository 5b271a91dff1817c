//! Custom schedules: lists of timesteps or of sigmas instead of a number of steps.

use super::linspace::linspace;

/// A custom schedule, in place of `num_inference_steps` alone.
#[derive(Debug, Clone, PartialEq)]
pub enum CustomSchedule {
    /// The training timestep of each step, falling: diffusers' `set_timesteps(timesteps=...)`.
    Timesteps(Vec<f64>),
    /// Sigmas, falling: diffusers' `set_timesteps(sigmas=...)`. With [`FinalSigma::InList`] the last entry is the
    /// sigma at which the last step ends.
    Sigmas(Vec<f64>),
}

/// Origin of the final sigma, at which the last step of a custom list of sigmas ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinalSigma {
    /// The list's last entry: n steps take n + 1 entries.
    InList,
    /// Appended by the class: n steps take n entries.
    Appended,
}

/// The kinds of custom schedule that a class accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustomScheduleSupport {
    /// True if it accepts a list of timesteps.
    pub timesteps: bool,
    /// Origin of the final sigma if it accepts a list of sigmas; `None` if it does not.
    pub sigmas: Option<FinalSigma>,
}

impl CustomScheduleSupport {
    pub(super) const NONE: Self = Self { timesteps: false, sigmas: None };
    pub(super) const TIMESTEPS: Self = Self { timesteps: true, sigmas: None };
    pub(super) const BOTH: Self = Self { timesteps: true, sigmas: Some(FinalSigma::InList) };
    pub(super) const FLOW: Self = Self { timesteps: true, sigmas: Some(FinalSigma::Appended) };
    pub(super) const FLOW_SIGMAS: Self = Self { timesteps: false, sigmas: Some(FinalSigma::Appended) };
}

impl CustomSchedule {
    /// Returns sigmas that fall evenly from 1 to `1/steps`.
    pub fn falling_evenly(steps: usize) -> Self {
        Self::Sigmas(linspace(1.0, 1.0 / steps.max(1) as f64, steps))
    }

    /// Returns the `[run]` key that sets it: `timesteps` or `sigmas`.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Timesteps(_) => "timesteps",
            Self::Sigmas(_) => "sigmas",
        }
    }
}
