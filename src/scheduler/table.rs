//! The table of schedulers.

use super::entry::SchedulerEntry;
use super::{
    ddim, ddim_inverse, ddpm, deis, dpm_multistep, dpm_multistep_inverse, dpm_sde, dpm_singlestep, edm_dpm_multistep,
    edm_euler, euler, euler_ancestral, flow_match_euler, flow_match_heun, heun, ipndm, kdpm2, kdpm2_ancestral, lcm,
    lms, pndm, sa_solver, scm, tcd, unipc,
};

static TABLE: &[SchedulerEntry] = &[
    ddpm::ENTRY,
    ddim::ENTRY,
    pndm::ENTRY,
    lms::ENTRY,
    euler::ENTRY,
    euler_ancestral::ENTRY,
    heun::ENTRY,
    kdpm2::ENTRY,
    kdpm2_ancestral::ENTRY,
    dpm_multistep::ENTRY,
    dpm_singlestep::ENTRY,
    dpm_sde::ENTRY,
    deis::ENTRY,
    unipc::ENTRY,
    ipndm::ENTRY,
    edm_euler::ENTRY,
    edm_dpm_multistep::ENTRY,
    lcm::ENTRY,
    tcd::ENTRY,
    flow_match_euler::ENTRY,
    flow_match_heun::ENTRY,
    sa_solver::ENTRY,
    scm::ENTRY,
    ddim_inverse::ENTRY,
    dpm_multistep_inverse::ENTRY,
];

/// Returns all schedulers.
pub fn table() -> &'static [SchedulerEntry] {
    TABLE
}
