//! DDIM: Song et al. 2021, "Denoising Diffusion Implicit Models".

use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::ddim_solver::{DdimSolver, DdimStep};
use super::sample::lookup_timestep;
use super::settings::SchedulerSettings;
use super::{CustomScheduleSupport, ScheduleRequest, Scheduler, SchedulerEntry, betas, spacing};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "ddim",
    class: "DDIMScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::NONE,
    about: "Denoising diffusion implicit models: deterministic, or stochastic with eta above 0.",
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
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        SchedulerKey::float("clip_sample_range", 1.0),
        keys::SAMPLE_MAX_VALUE,
        keys::timestep_spacing_or_compvis("leading"),
        keys::RESCALE_BETAS_ZERO_SNR,
        SchedulerKey::argument("eta", SchedulerKeyKind::Float(0.0)),
        SchedulerKey::argument("use_clipped_model_output", SchedulerKeyKind::Switch(false)),
    ],
    build,
};

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let train = settings.count("num_train_timesteps")?;
    settings.limit_steps(request.steps, train)?;
    let alphas = betas::alphas_cumprod(settings)?;
    let final_alpha_cumprod =
        if settings.switch("set_alpha_to_one")? { 1.0 } else { lookup_timestep(settings, &alphas, 0)? };
    let timesteps = spacing::timesteps(settings, request, true)?;
    let ratio = (train / request.steps) as i64;
    let steps = timesteps
        .iter()
        .map(|t| {
            let (t, prev_timestep) = (*t as i64, *t as i64 - ratio);
            Ok(DdimStep {
                alpha_prod_t: lookup_timestep(settings, &alphas, t)?,
                alpha_prod_t_prev: if prev_timestep >= 0 {
                    lookup_timestep(settings, &alphas, prev_timestep)?
                } else {
                    final_alpha_cumprod
                },
            })
        })
        .collect::<Result<_>>()?;
    Ok(Box::new(DdimSolver::from_settings(settings, request, timesteps, steps)?))
}
