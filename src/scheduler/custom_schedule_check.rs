//! The fit of a custom schedule to a scheduler.

use super::custom_schedule::{CustomSchedule, CustomScheduleSupport, FinalSigma};
use super::entry::SchedulerEntry;
use super::schedule_request::ScheduleRequest;
use super::settings::SchedulerSettings;
use super::sigmas::Ramp;
use super::table::table;
use crate::error::{Error, Result, count_of};

impl CustomSchedule {
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
