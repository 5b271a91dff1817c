//! Rows of the table of schedulers.

use super::alias::SchedulerAlias;
use super::config::SchedulerKey;
use super::custom_schedule::CustomScheduleSupport;
use super::schedule_request::ScheduleRequest;
use super::settings::SchedulerSettings;
use super::step::Scheduler;
use crate::error::Result;

/// One row of the table of schedulers.
pub struct SchedulerEntry {
    /// The name in pipeline.toml, such as `ddim`.
    pub name: &'static str,
    /// diffusers' class, such as `DDIMScheduler`.
    pub class: &'static str,
    /// Its names in AUTOMATIC1111 and ComfyUI, and the keys that those names set.
    pub aliases: &'static [SchedulerAlias],
    /// Model evaluations per step.
    pub order: usize,
    /// True if its steps add noise with the class's defaults.
    pub stochastic: bool,
    /// True if its runs go from an image to the noise that generates it.
    pub inverse: bool,
    /// The custom schedules it accepts.
    pub custom_schedules: CustomScheduleSupport,
    /// One sentence for `ldm-ort list schedulers`.
    pub about: &'static str,
    /// The configuration keys of the class and the arguments of its `step()`, such as `eta`.
    pub keys: &'static [SchedulerKey],
    pub(super) build: fn(&SchedulerSettings, &ScheduleRequest) -> Result<Box<dyn Scheduler>>,
}

impl SchedulerEntry {
    /// Returns true if the class has this key.
    pub fn has_key(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
    }

    /// Returns true if image-to-image runs are planned within the strength's part of the schedule, as for consistency
    /// models, rather than cut from the whole schedule.
    pub fn takes_strength(&self) -> bool {
        self.has_key("original_inference_steps")
    }
}
