//! Custom schedules: lists of timesteps or of sigmas instead of a number of steps.

use super::config::SchedulerSettings;
use super::sigmas::{Ramp, sigma_to_t_f32};
use super::spacing::linspace;
use super::{ScheduleRequest, SchedulerEntry, table};
use crate::error::{Error, Result, count_of};

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

    /// Returns the number of steps that the list gives with this scheduler.
    pub fn steps(&self, entry: &SchedulerEntry) -> usize {
        match self {
            Self::Timesteps(list) => list.len(),
            Self::Sigmas(list) if entry.custom_schedules.sigmas == Some(FinalSigma::InList) => {
                list.len().saturating_sub(1)
            }
            Self::Sigmas(list) => list.len(),
        }
    }

    /// Checks that the class accepts this kind of list and that its values form a schedule.
    ///
    /// # Errors
    /// [`Error::Scheduler`] naming the key; if the class does not accept it, the hint lists the classes that do.
    pub(super) fn check(
        &self,
        settings: &SchedulerSettings,
        entry: &SchedulerEntry,
        request: &ScheduleRequest,
    ) -> Result<()> {
        let key = self.key();
        let error = |problem: String, help: String| -> Result<()> { Err(settings.error(key, problem, help)) };
        let takes = |support: CustomScheduleSupport| match self {
            Self::Timesteps(_) => support.timesteps,
            Self::Sigmas(_) => support.sigmas.is_some(),
        };
        if !takes(entry.custom_schedules) {
            let others: Vec<_> = table().iter().filter(|e| takes(e.custom_schedules)).map(|e| e.name).collect();
            return error(
                "this scheduler does not accept a custom list".to_owned(),
                format!("set steps instead, or choose one of {}", others.join(", ")),
            );
        }
        let (Self::Timesteps(list) | Self::Sigmas(list)) = self;
        let steps = self.steps(entry);
        if steps == 0 || steps != request.steps {
            let problem = format!(
                "a list of {} gives {}, but steps = {}",
                count_of(list.len(), "entry"),
                count_of(steps, "step"),
                request.steps
            );
            return error(problem, "remove steps, or make the list match".to_owned());
        }
        if let Some(pair) =
            list.windows(2).find(|pair| pair[0].partial_cmp(&pair[1]) != Some(std::cmp::Ordering::Greater))
        {
            return error(format!("{} comes after {}; expected a falling list", pair[1], pair[0]), String::new());
        }
        match self {
            Self::Timesteps(_) => self.check_timesteps(settings, list),
            Self::Sigmas(_) => check_sigmas(settings, list),
        }
    }

    fn check_timesteps(&self, settings: &SchedulerSettings, list: &[f64]) -> Result<()> {
        let train = settings.count("num_train_timesteps")? as f64;
        // Flow timesteps lie in (0, num_train_timesteps], timesteps of a beta table in [0, num_train_timesteps).
        let is_flow = !settings.has("beta_schedule");
        let inside = |t: &f64| *t >= 0.0 && if is_flow { *t > 0.0 && *t <= train } else { *t < train };
        if let Some(t) = list.iter().find(|t| !inside(t)) {
            let range = if is_flow { format!("above 0 to {train}") } else { format!("0 to {}", train - 1.0) };
            return Err(settings.error(self.key(), format!("{t} is not a training timestep; expected {range}"), ""));
        }
        let shaped = ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"];
        let flow = (!is_flow).then_some("use_flow_sigmas");
        for name in shaped.into_iter().filter(|_| !is_flow).chain(flow) {
            if settings.switch(name)? {
                return Err(clash(settings, self.key(), name));
            }
        }
        Ok(())
    }
}

fn check_sigmas(settings: &SchedulerSettings, list: &[f64]) -> Result<()> {
    if let Some(sigma) = list.iter().find(|sigma| !sigma.is_finite() || **sigma < 0.0) {
        return Err(settings.error("sigmas", format!("{sigma} is not a sigma; expected 0 or more"), ""));
    }
    if settings.has("use_flow_sigmas") {
        if !settings.switch("use_flow_sigmas")? {
            return Err(settings.error(
                "sigmas",
                "only flow sigmas can be set as a list",
                "set use_flow_sigmas = true",
            ));
        }
        if Ramp::from_settings(settings)?.is_some() {
            return Err(clash(settings, "sigmas", "use_karras_sigmas (or another use_*_sigmas)"));
        }
    }
    // A step starts from a sigma above zero; only the final sigma may be zero.
    if list.first().is_some_and(|first| *first == 0.0) {
        return Err(settings.error("sigmas", "the first sigma is 0, which leaves nothing to denoise", ""));
    }
    Ok(())
}

fn clash(settings: &SchedulerSettings, key: &str, name: &str) -> Error {
    settings.error(key, format!("{name} is on and computes the schedule itself"), format!("set {name} = false"))
}

/// Returns the custom timesteps of a request, if any.
pub(super) fn timesteps(request: &ScheduleRequest) -> Option<&[f64]> {
    match &request.custom {
        Some(CustomSchedule::Timesteps(list)) => Some(list),
        _ => None,
    }
}

/// Returns the custom sigmas of a request, if any, and the timestep at which each step starts. `log_sigmas` are the
/// logarithms of the training sigmas.
pub(super) fn sigmas(request: &ScheduleRequest, log_sigmas: &[f32]) -> Option<(Vec<f64>, Vec<f32>)> {
    let Some(CustomSchedule::Sigmas(list)) = &request.custom else { return None };
    let sigmas: Vec<f32> = list.iter().map(|sigma| *sigma as f32).collect();
    let timesteps = sigmas.iter().take(request.steps).map(|sigma| sigma_to_t_f32(*sigma, log_sigmas)).collect();
    Some((timesteps, sigmas))
}
