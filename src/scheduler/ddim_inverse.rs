//! Inverse DDIM, from an image to its noise: Song et al. 2021, "Denoising Diffusion Implicit Models", section 4.3.

use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::ddim_solver::{DdimSolver, DdimStep};
use super::sample::lookup_timestep;
use super::settings::SchedulerSettings;
use super::{CustomScheduleSupport, ScheduleRequest, Scheduler, SchedulerEntry, betas, spacing};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "ddim-inverse",
    class: "DDIMInverseScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: true,
    custom_schedules: CustomScheduleSupport::NONE,
    about: "Inverse DDIM: from an image to the noise that generates it.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        SchedulerKey::switch("clip_sample", true),
        SchedulerKey::switch("set_alpha_to_one", true),
        keys::STEPS_OFFSET,
        keys::prediction_type(&["epsilon", "sample", "v_prediction"]),
        SchedulerKey::float("clip_sample_range", 1.0),
        SchedulerKey::choice("timestep_spacing", "leading", &["leading", "trailing"]),
        keys::RESCALE_BETAS_ZERO_SNR,
        // The older name of set_alpha_to_one, which takes precedence over it.
        SchedulerKey::new("set_alpha_to_zero", SchedulerKeyKind::MaybeSwitch),
    ],
    build,
};

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let train = settings.count("num_train_timesteps")?;
    settings.limit_steps(request.steps, train)?;
    let alphas = betas::alphas_cumprod(settings)?;
    let to_one = match settings.maybe_switch("set_alpha_to_zero")? {
        Some(on) => on,
        None => settings.switch("set_alpha_to_one")?,
    };
    let initial_alpha = if to_one { 1.0 } else { lookup_timestep(settings, &alphas, 0)? };
    let mut timesteps = spacing::timesteps(settings, request, true)?;
    timesteps.reverse();
    let ratio = (train / request.steps) as i64;
    let steps = timesteps
        .iter()
        .map(|t| {
            // The model receives the timestep at the end of a step.
            let (next, t) = (*t as i64, (*t as i64 - ratio).min(train as i64 - 1));
            Ok(DdimStep {
                alpha_prod_t: if t >= 0 { lookup_timestep(settings, &alphas, t)? } else { initial_alpha },
                alpha_prod_t_prev: lookup_timestep(settings, &alphas, next)?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Box::new(DdimSolver::from_settings(settings, request, timesteps, steps)?))
}
