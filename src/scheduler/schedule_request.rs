//! The parameters of a run that a schedule depends on.

use super::custom_schedule::CustomSchedule;

/// The parameters of a run that a scheduler is built for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ScheduleRequest {
    /// The number of steps, at least 1.
    pub steps: usize,
    /// The number of images in a batch, which is the number of equal parts of a sample slice.
    pub images: usize,
    /// The resolution-dependent shift of the schedule, for schedulers with `use_dynamic_shifting`.
    pub mu: Option<f64>,
    /// The fraction of the schedule, counted from its end, that contains all steps, for schedulers with
    /// [`SchedulerEntry::takes_strength`](super::SchedulerEntry::takes_strength); 1 is the whole schedule.
    pub strength: f64,
    /// A custom schedule of `steps` steps, if any.
    pub custom: Option<CustomSchedule>,
}

impl ScheduleRequest {
    /// Creates a request for a run of `steps` steps over batches of `images` images.
    pub fn new(steps: usize, images: usize) -> Self {
        Self { steps, images, mu: None, strength: 1.0, custom: None }
    }

    /// Returns the custom timesteps, if any.
    pub(super) fn custom_timesteps(&self) -> Option<&[f64]> {
        match &self.custom {
            Some(CustomSchedule::Timesteps(list)) => Some(list),
            _ => None,
        }
    }
}
