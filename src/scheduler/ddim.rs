//! DDIM: Song et al. 2021, "Denoising Diffusion Implicit Models".

use super::config::{Key, Kind, Settings, keys};
use super::implicit::{Implicit, Level};
use super::sample::at_timestep;
use super::{Accepts, ScheduleRequest, Scheduler, SchedulerEntry, noise, spacing};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "ddim",
    class: "DDIMScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: false,
    accepts: Accepts::NOTHING,
    about: "Denoising diffusion implicit models: deterministic, or stochastic with eta above 0.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        Key::switch("clip_sample", true),
        Key::switch("set_alpha_to_one", true),
        keys::STEPS_OFFSET,
        keys::prediction_type(&["epsilon", "sample", "v_prediction"]),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        Key::float("clip_sample_range", 1.0),
        keys::SAMPLE_MAX_VALUE,
        keys::timestep_spacing_or_compvis("leading"),
        keys::RESCALE_BETAS_ZERO_SNR,
        Key::argument("eta", Kind::Float(0.0)),
        Key::argument("use_clipped_model_output", Kind::Switch(false)),
    ],
    build,
};

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let train = settings.count("num_train_timesteps")?;
    settings.limit_steps(request.steps, train)?;
    let alphas = noise::alphas_cumprod(settings)?;
    let final_alpha = if settings.switch("set_alpha_to_one")? { 1.0 } else { at_timestep(settings, &alphas, 0)? };
    let timesteps = spacing::timesteps(settings, request, true)?;
    let ratio = (train / request.steps) as i64;
    let levels = timesteps
        .iter()
        .map(|t| {
            let (t, previous) = (*t as i64, *t as i64 - ratio);
            Ok(Level {
                alpha: at_timestep(settings, &alphas, t)?,
                next_alpha: if previous >= 0 { at_timestep(settings, &alphas, previous)? } else { final_alpha },
            })
        })
        .collect::<Result<_>>()?;
    Ok(Box::new(Implicit::from_settings(settings, request, timesteps, levels)?))
}
