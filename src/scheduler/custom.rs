//! Schedules given outright, as lists of timesteps or of noise levels, instead of a number of steps.

use super::config::Settings;
use super::sigmas::{Ramp, timestep_of_f32};
use super::spacing::linspace;
use super::{ScheduleRequest, SchedulerEntry, table};
use crate::error::{Error, Result, count_of};

/// A schedule that the user gives outright.
#[derive(Debug, Clone, PartialEq)]
pub enum Custom {
    /// The training timestep of each step, falling: diffusers' `set_timesteps(timesteps=...)`.
    Timesteps(Vec<f64>),
    /// Noise levels, falling: diffusers' `set_timesteps(sigmas=...)`. Where [`Accepts::sigmas`] is [`Ends::Given`],
    /// the last is where the last step ends.
    Sigmas(Vec<f64>),
}

/// Where the last step of a list of noise levels ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ends {
    /// At the list's last entry: n steps are n + 1 entries.
    Given,
    /// Where the class always ends: n steps are n entries.
    Own,
}

/// The schedules that a class can be given outright.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepts {
    /// Whether it takes a list of timesteps.
    pub timesteps: bool,
    /// Whether it takes a list of noise levels, and how that ends.
    pub sigmas: Option<Ends>,
}

impl Accepts {
    pub(super) const NOTHING: Self = Self { timesteps: false, sigmas: None };
    pub(super) const TIMESTEPS: Self = Self { timesteps: true, sigmas: None };
    pub(super) const BOTH: Self = Self { timesteps: true, sigmas: Some(Ends::Given) };
    pub(super) const FLOW: Self = Self { timesteps: true, sigmas: Some(Ends::Own) };
    pub(super) const FLOW_SIGMAS: Self = Self { timesteps: false, sigmas: Some(Ends::Own) };
}

impl Custom {
    /// Noise levels that fall evenly from 1 to `1/steps`.
    pub fn falling_evenly(steps: usize) -> Self {
        Self::Sigmas(linspace(1.0, 1.0 / steps.max(1) as f64, steps))
    }

    /// The key of `[run]` that it stands under.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Timesteps(_) => "timesteps",
            Self::Sigmas(_) => "sigmas",
        }
    }

    /// The steps of a run on this schedule with a scheduler of this row of the table.
    pub fn steps(&self, entry: &SchedulerEntry) -> usize {
        match self {
            Self::Timesteps(list) => list.len(),
            Self::Sigmas(list) if entry.accepts.sigmas == Some(Ends::Given) => list.len().saturating_sub(1),
            Self::Sigmas(list) => list.len(),
        }
    }

    /// Requires that the class takes such a list, and that this one can be a schedule.
    ///
    /// # Errors
    /// [`Error::Scheduler`] naming the list, and for a class that takes none the classes that do.
    pub(super) fn check(&self, settings: &Settings, entry: &SchedulerEntry, request: &ScheduleRequest) -> Result<()> {
        let key = self.key();
        let error = |problem: String, help: String| -> Result<()> { Err(settings.error(key, problem, help)) };
        let takes = |accepts: Accepts| match self {
            Self::Timesteps(_) => accepts.timesteps,
            Self::Sigmas(_) => accepts.sigmas.is_some(),
        };
        if !takes(entry.accepts) {
            let others: Vec<_> = table().iter().filter(|e| takes(e.accepts)).map(|e| e.name).collect();
            return error(
                "this scheduler takes no such list".to_owned(),
                format!("give steps alone, or choose one of {}", others.join(", ")),
            );
        }
        let (Self::Timesteps(list) | Self::Sigmas(list)) = self;
        let steps = self.steps(entry);
        if steps == 0 || steps != request.steps {
            let problem = format!(
                "a list of {} is {}, and steps = {}",
                count_of(list.len(), "entry"),
                count_of(steps, "step"),
                request.steps
            );
            return error(problem, "leave steps out, or give as many entries".to_owned());
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

    fn check_timesteps(&self, settings: &Settings, list: &[f64]) -> Result<()> {
        let train = settings.count("num_train_timesteps")? as f64;
        // A flow begins at the end of its unit interval, and a table of betas before it.
        let is_flow = !settings.has("beta_schedule");
        let inside = |t: &f64| *t >= 0.0 && if is_flow { *t > 0.0 && *t <= train } else { *t < train };
        if let Some(t) = list.iter().find(|t| !inside(t)) {
            let range = if is_flow { format!("above 0 to {train}") } else { format!("0 to {}", train - 1.0) };
            return Err(settings.error(self.key(), format!("{t} is no timestep of training; expected {range}"), ""));
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

fn check_sigmas(settings: &Settings, list: &[f64]) -> Result<()> {
    if let Some(sigma) = list.iter().find(|sigma| !sigma.is_finite() || **sigma < 0.0) {
        return Err(settings.error("sigmas", format!("{sigma} is no noise level; expected 0 or above"), ""));
    }
    if settings.has("use_flow_sigmas") {
        if !settings.switch("use_flow_sigmas")? {
            return Err(settings.error("sigmas", "only flow sigmas can be given", "set use_flow_sigmas = true"));
        }
        if Ramp::from_settings(settings)?.is_some() {
            return Err(clash(settings, "sigmas", "use_karras_sigmas (or another use_*_sigmas)"));
        }
    }
    // A step begins at a level above none; only where a list ends may there be none left.
    if list.first().is_some_and(|first| *first == 0.0) {
        return Err(settings.error("sigmas", "the first is 0, which leaves nothing to denoise", ""));
    }
    Ok(())
}

fn clash(settings: &Settings, key: &str, name: &str) -> Error {
    settings.error(key, format!("{name} is on, and makes a schedule of its own"), format!("set {name} = false"))
}

/// The user's timesteps, where that is what was given.
pub(super) fn timesteps(request: &ScheduleRequest) -> Option<&[f64]> {
    match &request.custom {
        Some(Custom::Timesteps(list)) => Some(list),
        _ => None,
    }
}

/// The user's noise levels, where those are what was given, and the timestep at which each step begins. `log_sigmas` are
/// the logarithms of the training timesteps' levels.
pub(super) fn levels(request: &ScheduleRequest, log_sigmas: &[f32]) -> Option<(Vec<f64>, Vec<f32>)> {
    let Some(Custom::Sigmas(list)) = &request.custom else { return None };
    let levels: Vec<f32> = list.iter().map(|sigma| *sigma as f32).collect();
    let timesteps = levels.iter().take(request.steps).map(|sigma| timestep_of_f32(*sigma, log_sigmas)).collect();
    Some((timesteps, levels))
}
