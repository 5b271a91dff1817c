//! DDIM run backwards, from an image to its noise: Song et al. 2021, "Denoising Diffusion Implicit Models", section 4.3.

use super::config::{Key, Kind, Settings, keys};
use super::implicit::{Implicit, Level};
use super::sample::at_timestep;
use super::{Accepts, ScheduleRequest, Scheduler, SchedulerEntry, noise, spacing};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "ddim-inverse",
    class: "DDIMInverseScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: true,
    accepts: Accepts::NOTHING,
    about: "DDIM run backwards, from an image to the noise it comes from.",
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
        Key::float("clip_sample_range", 1.0),
        Key::choice("timestep_spacing", "leading", &["leading", "trailing"]),
        keys::RESCALE_BETAS_ZERO_SNR,
        // An older name of set_alpha_to_one, which goes before it where it is given.
        Key::new("set_alpha_to_zero", Kind::MaybeSwitch),
    ],
    build,
};

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let train = settings.count("num_train_timesteps")?;
    settings.limit_steps(request.steps, train)?;
    let alphas = noise::alphas_cumprod(settings)?;
    let to_one = match settings.maybe_switch("set_alpha_to_zero")? {
        Some(given) => given,
        None => settings.switch("set_alpha_to_one")?,
    };
    let initial_alpha = if to_one { 1.0 } else { at_timestep(settings, &alphas, 0)? };
    let mut timesteps = spacing::timesteps(settings, request, true)?;
    timesteps.reverse();
    let ratio = (train / request.steps) as i64;
    let levels = timesteps
        .iter()
        .map(|t| {
            // The model is told the timestep that a step leads to.
            let (next, t) = (*t as i64, (*t as i64 - ratio).min(train as i64 - 1));
            Ok(Level {
                alpha: if t >= 0 { at_timestep(settings, &alphas, t)? } else { initial_alpha },
                next_alpha: at_timestep(settings, &alphas, next)?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(Box::new(Implicit::from_settings(settings, request, timesteps, levels)?))
}
