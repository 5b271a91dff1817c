//! DPM-Solver and DPM-Solver++ in their multistep forms (Lu et al. 2022), with the stochastic variants from
//! the appendix of the latter paper.

use super::config::{SchedulerKey, keys};
use super::dpm_solver::{self, DpmSolver};
use super::dpm_update::Algorithm;
use super::settings::SchedulerSettings;
use super::solver_schedule::{self, ScheduleOptions};
use super::{AliasValue, CustomScheduleSupport, ScheduleRequest, Scheduler, SchedulerAlias, SchedulerEntry};
use crate::error::Result;

const SDE: (&str, AliasValue) = ("algorithm_type", AliasValue::Word("sde-dpmsolver++"));
const THIRD: (&str, AliasValue) = ("solver_order", AliasValue::Integer(3));

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "dpm-multistep",
    class: "DPMSolverMultistepScheduler",
    aliases: &[
        SchedulerAlias::plain("DPM++ 2M"),
        SchedulerAlias::plain("dpmpp_2m"),
        SchedulerAlias { name: "DPM++ 2M SDE", settings: &[SDE] },
        SchedulerAlias { name: "dpmpp_2m_sde", settings: &[SDE] },
        SchedulerAlias { name: "DPM++ 2M SDE Heun", settings: &[SDE, ("solver_type", AliasValue::Word("heun"))] },
        SchedulerAlias { name: "DPM++ 3M", settings: &[THIRD] },
        SchedulerAlias { name: "DPM++ 3M SDE", settings: &[SDE, THIRD] },
        SchedulerAlias { name: "dpmpp_3m_sde", settings: &[SDE, THIRD] },
    ],
    order: 1,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::TIMESTEPS,
    about: "DPM-Solver++ of order 1 to 3, one evaluation per step; a good choice at 15 to 30 steps.",
    keys: &keys::joined::<28>(
        &dpm_solver::KEYS,
        &[
            SchedulerKey::switch("use_lu_lambdas", false),
            keys::FINAL_SIGMAS_TYPE,
            keys::RESCALE_BETAS_ZERO_SNR,
            SchedulerKey::switch("use_dynamic_shifting", false),
            solver_schedule::TIME_SHIFT_TYPE,
        ],
    ),
    build,
};

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let options = ScheduleOptions { cosine_fractions: true, repeats_last: false, inverse: false };
    let without_third = |algorithm| algorithm == Algorithm::SdeDpmSolver;
    Ok(Box::new(DpmSolver::from_settings(settings, request, options, without_third)?))
}
