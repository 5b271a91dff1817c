//! Inverse multistep DPM-Solver and DPM-Solver++ (Lu et al. 2022), from an image to its noise.

use super::dpm_solver::{self, DpmSolver};
use super::dpm_update::Algorithm;
use super::settings::SchedulerSettings;
use super::solver_schedule::ScheduleOptions;
use super::{CustomScheduleSupport, ScheduleRequest, Scheduler, SchedulerEntry};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "dpm-multistep-inverse",
    class: "DPMSolverMultistepInverseScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: true,
    custom_schedules: CustomScheduleSupport::NONE,
    about: "Inverse DPM-Solver++: from an image to the noise that generates it.",
    keys: &dpm_solver::KEYS,
    build,
};

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let options = ScheduleOptions { cosine_fractions: false, repeats_last: true, inverse: true };
    Ok(Box::new(DpmSolver::from_settings(settings, request, options, Algorithm::is_stochastic)?))
}
