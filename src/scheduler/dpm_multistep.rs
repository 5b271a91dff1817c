//! DPM-Solver and DPM-Solver++ in their multistep forms (Lu et al. 2022), with the stochastic variants of the latter
//! paper's appendix.

use super::config::{Key, Settings, keys};
use super::dpm_solver::{self, DpmSolver};
use super::dpm_update::Algorithm;
use super::solver::{self, Manner};
use super::{Accepts, Alias, ScheduleRequest, Scheduler, SchedulerEntry, Setting};
use crate::error::Result;

const SDE: (&str, Setting) = ("algorithm_type", Setting::Word("sde-dpmsolver++"));
const THIRD: (&str, Setting) = ("solver_order", Setting::Integer(3));

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "dpm-multistep",
    class: "DPMSolverMultistepScheduler",
    aliases: &[
        Alias::plain("DPM++ 2M"),
        Alias::plain("dpmpp_2m"),
        Alias { name: "DPM++ 2M SDE", settings: &[SDE] },
        Alias { name: "dpmpp_2m_sde", settings: &[SDE] },
        Alias { name: "DPM++ 2M SDE Heun", settings: &[SDE, ("solver_type", Setting::Word("heun"))] },
        Alias { name: "DPM++ 3M", settings: &[THIRD] },
        Alias { name: "DPM++ 3M SDE", settings: &[SDE, THIRD] },
        Alias { name: "dpmpp_3m_sde", settings: &[SDE, THIRD] },
    ],
    order: 1,
    stochastic: false,
    inverse: false,
    accepts: Accepts::TIMESTEPS,
    about: "DPM-Solver++ of order 1 to 3, one call a step; a good choice at 15 to 30 steps.",
    keys: &keys::joined::<28>(
        &dpm_solver::KEYS,
        &[
            Key::switch("use_lu_lambdas", false),
            keys::FINAL_SIGMAS_TYPE,
            keys::RESCALE_BETAS_ZERO_SNR,
            Key::switch("use_dynamic_shifting", false),
            solver::TIME_SHIFT_TYPE,
        ],
    ),
    build,
};

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let manner = Manner { cosine_fractions: true, repeats_last: false, inverse: false };
    let without_third = |algorithm| algorithm == Algorithm::NoiseSde;
    Ok(Box::new(DpmSolver::from_settings(settings, request, manner, without_third)?))
}
