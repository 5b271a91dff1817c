//! What the samplers in the manner of k-diffusion share: a schedule of sigmas over the training timesteps.

use super::ScheduleRequest;
use super::config::{Key, Settings, keys};
use super::sigmas::{self, Ramp};
use super::{custom, noise, spacing};
use crate::error::Result;

/// The keys of [`schedule`] for a class with these ends of its betas.
pub(super) const fn schedule_keys(beta_start: f64, beta_end: f64, beta_schedule: Key) -> [Key; 10] {
    [
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(beta_start),
        keys::beta_end(beta_end),
        beta_schedule,
        keys::TRAINED_BETAS,
        keys::USE_KARRAS_SIGMAS,
        keys::USE_EXPONENTIAL_SIGMAS,
        keys::USE_BETA_SIGMAS,
        keys::timestep_spacing("linspace"),
        keys::STEPS_OFFSET,
    ]
}

/// Timesteps of the user's steps, and the sigma of each with a zero after them.
#[derive(Debug)]
pub(super) struct Schedule {
    pub timesteps: Vec<f64>,
    pub sigmas: Vec<f32>,
    /// The sigmas before they were rounded, without the last.
    pub spaced: Vec<f64>,
    /// The logarithms of the training timesteps' sigmas.
    pub logs: Vec<f32>,
    /// What unit normal noise is multiplied by.
    pub initial: f32,
}

/// What a class does with Karras sigmas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Karras {
    /// Their timesteps stay as they are found.
    Plain,
    /// Their timesteps are rounded to whole ones.
    Whole,
    /// They run between the schedule's own ends, whatever `sigma_min` and `sigma_max` a model's file carries along.
    OwnEnds,
}

/// The schedule the configuration asks for.
///
/// # Errors
/// A value that nobody knows, or more than one kind of sigmas.
pub(super) fn schedule(settings: &Settings, request: &ScheduleRequest, karras: Karras) -> Result<Schedule> {
    schedule_over(spacing::timesteps(settings, request, false)?, settings, request, karras)
}

/// As [`schedule`], over timesteps that were spaced already.
///
/// # Errors
/// As [`schedule`].
pub(super) fn schedule_over(
    timesteps: Vec<f64>,
    settings: &Settings,
    request: &ScheduleRequest,
    karras: Karras,
) -> Result<Schedule> {
    let training = sigmas::training_sigmas(&noise::alphas_cumprod(settings)?);
    let logs = sigmas::log_sigmas(&training);
    let (timesteps, sigmas, spaced) = match custom::levels(request, &logs) {
        Some((timesteps, sigmas)) => {
            let spaced = sigmas.iter().take(sigmas.len().saturating_sub(1)).map(|sigma| f64::from(*sigma)).collect();
            (timesteps, sigmas, spaced)
        }
        None => {
            let (timesteps, spaced) = ramped(timesteps, settings, request, karras, &training, &logs)?;
            let sigmas: Vec<f32> = spaced.iter().map(|sigma| *sigma as f32).chain([0.0]).collect();
            (timesteps, sigmas, spaced)
        }
    };
    Ok(Schedule { timesteps, initial: initial(settings, &sigmas)?, sigmas, spaced, logs })
}

/// What unit normal noise is multiplied by to become the first sample of a run over these sigmas.
///
/// # Errors
/// A spacing that nobody knows.
pub(super) fn initial(settings: &Settings, sigmas: &[f32]) -> Result<f32> {
    let largest = sigmas.iter().copied().fold(0.0, f32::max);
    Ok(match settings.choice("timestep_spacing")? {
        "leading" => (largest * largest + 1.0).sqrt(),
        _ => largest,
    })
}

/// The noise levels at spaced timesteps, or those of the ramp that the configuration asks for and their timesteps.
fn ramped(
    mut timesteps: Vec<f64>,
    settings: &Settings,
    request: &ScheduleRequest,
    karras: Karras,
    training: &[f32],
    logs: &[f32],
) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut levels: Vec<f64> = timesteps.iter().map(|t| sigmas::interpolate(*t, training)).collect();
    if let Some(ramp) = Ramp::from_settings(settings)? {
        let (least, most) = (levels[levels.len() - 1], levels[0]);
        levels = if ramp == Ramp::Karras && karras == Karras::OwnEnds {
            sigmas::karras(least, most, request.steps, 7.0)
        } else {
            ramp.sigmas(settings, least, most, request.steps)?
        };
        timesteps = levels.iter().map(|sigma| sigmas::timestep_of(*sigma, logs)).collect();
        if ramp == Ramp::Karras && karras == Karras::Whole {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
    }
    Ok((timesteps, levels))
}

/// One timestep for the first step and two for each later one: `[t0, a1, b1, a2, b2, ...]`.
pub(super) fn interleave(first: f64, pairs: impl Iterator<Item = (f64, f64)>) -> Vec<f64> {
    std::iter::once(first).chain(pairs.flat_map(|(a, b)| [a, b])).collect()
}
