//! The multistep DPM-Solver and DPM-Solver++ of Lu et al. 2022 run backwards, from an image to its noise.

use super::config::Settings;
use super::dpm_solver::{self, DpmSolver};
use super::dpm_update::Algorithm;
use super::solver::Manner;
use super::{Accepts, ScheduleRequest, Scheduler, SchedulerEntry};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "dpm-multistep-inverse",
    class: "DPMSolverMultistepInverseScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: true,
    accepts: Accepts::NOTHING,
    about: "DPM-Solver++ run backwards, from an image to the noise it comes from.",
    keys: &dpm_solver::KEYS,
    build,
};

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let manner = Manner { cosine_fractions: false, repeats_last: true, inverse: true };
    Ok(Box::new(DpmSolver::from_settings(settings, request, manner, Algorithm::is_stochastic)?))
}
