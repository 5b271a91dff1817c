//! The sigma schedule of the k-diffusion schedulers: sigmas interpolated over the training timesteps.

use super::config::{SchedulerKey, keys};
use super::settings::SchedulerSettings;
use super::sigmas::{self, Ramp, sigma_to_t_f32};
use super::{CustomSchedule, ScheduleRequest};
use super::{betas, spacing};
use crate::error::Result;

/// Returns the configuration keys of [`build_schedule`] for a class with these default betas.
pub(super) const fn schedule_keys(beta_start: f64, beta_end: f64, beta_schedule: SchedulerKey) -> [SchedulerKey; 10] {
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

/// The timestep of each step, and the sigma of each with a zero after them.
#[derive(Debug)]
pub(super) struct SigmaSchedule {
    pub timesteps: Vec<f64>,
    pub sigmas: Vec<f32>,
    /// The sigmas in double precision, without the last.
    pub spaced: Vec<f64>,
    /// The logarithms of the training sigmas.
    pub logs: Vec<f32>,
    /// The factor that scales unit normal noise to the first sample.
    pub init_noise_sigma: f32,
}

/// A class's treatment of Karras sigmas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KarrasVariant {
    /// Keeps fractional timesteps.
    Plain,
    /// Rounds timesteps to integers.
    Whole,
    /// Spaces them between the schedule's own ends and ignores `sigma_min` and `sigma_max` in a model's file.
    OwnEnds,
}

/// Builds the schedule of a configuration.
///
/// # Errors
/// An unknown value, or more than one of `use_*_sigmas`.
pub(super) fn build_schedule(
    settings: &SchedulerSettings,
    request: &ScheduleRequest,
    karras: KarrasVariant,
) -> Result<SigmaSchedule> {
    build_schedule_over(spacing::timesteps(settings, request, false)?, settings, request, karras)
}

/// Builds the schedule over timesteps that are already spaced.
///
/// # Errors
/// As [`build_schedule`].
pub(super) fn build_schedule_over(
    timesteps: Vec<f64>,
    settings: &SchedulerSettings,
    request: &ScheduleRequest,
    karras: KarrasVariant,
) -> Result<SigmaSchedule> {
    let training = sigmas::training_sigmas(&betas::alphas_cumprod(settings)?);
    let logs = sigmas::log_sigmas(&training);
    let (timesteps, sigmas, spaced) = match custom_sigmas(request, &logs) {
        Some((timesteps, sigmas)) => {
            let spaced = sigmas.iter().take(sigmas.len().saturating_sub(1)).map(|sigma| f64::from(*sigma)).collect();
            (timesteps, sigmas, spaced)
        }
        None => {
            let (timesteps, spaced) = space_sigmas(timesteps, settings, request, karras, &training, &logs)?;
            let sigmas: Vec<f32> = spaced.iter().map(|sigma| *sigma as f32).chain([0.0]).collect();
            (timesteps, sigmas, spaced)
        }
    };
    Ok(SigmaSchedule { timesteps, init_noise_sigma: init_noise_sigma(settings, &sigmas)?, sigmas, spaced, logs })
}

/// Returns the factor that scales unit normal noise to the first sample of a run over these sigmas.
///
/// # Errors
/// An unknown spacing.
pub(super) fn init_noise_sigma(settings: &SchedulerSettings, sigmas: &[f32]) -> Result<f32> {
    let largest = sigmas.iter().copied().fold(0.0, f32::max);
    Ok(match settings.choice("timestep_spacing")? {
        "leading" => (largest * largest + 1.0).sqrt(),
        _ => largest,
    })
}

/// Returns timesteps and sigmas: those at the spaced timesteps, or those of the configured `use_*_sigmas`.
fn space_sigmas(
    mut timesteps: Vec<f64>,
    settings: &SchedulerSettings,
    request: &ScheduleRequest,
    karras: KarrasVariant,
    training: &[f32],
    logs: &[f32],
) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut sigmas: Vec<f64> = timesteps.iter().map(|t| sigmas::interpolate(*t, training)).collect();
    if let Some(ramp) = Ramp::from_settings(settings)? {
        let (min, max) = (sigmas[sigmas.len() - 1], sigmas[0]);
        sigmas = if ramp == Ramp::Karras && karras == KarrasVariant::OwnEnds {
            sigmas::karras(min, max, request.steps, 7.0)
        } else {
            ramp.sigmas(settings, min, max, request.steps)?
        };
        timesteps = sigmas.iter().map(|sigma| sigmas::sigma_to_t(*sigma, logs)).collect();
        if ramp == Ramp::Karras && karras == KarrasVariant::Whole {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
    }
    Ok((timesteps, sigmas))
}

/// Interleaves the timesteps of a second-order method, one for the first step and two for each later one:
/// `[t0, a1, b1, a2, b2, ...]`.
pub(super) fn interleave(first: f64, pairs: impl Iterator<Item = (f64, f64)>) -> Vec<f64> {
    std::iter::once(first).chain(pairs.flat_map(|(a, b)| [a, b])).collect()
}

/// Returns the custom sigmas of a request, if any, and the timestep at which each step starts. `log_sigmas` are the
/// logarithms of the training sigmas.
pub(super) fn custom_sigmas(request: &ScheduleRequest, log_sigmas: &[f32]) -> Option<(Vec<f64>, Vec<f32>)> {
    let Some(CustomSchedule::Sigmas(list)) = &request.custom else { return None };
    let sigmas: Vec<f32> = list.iter().map(|sigma| *sigma as f32).collect();
    let timesteps = sigmas.iter().take(request.steps).map(|sigma| sigma_to_t_f32(*sigma, log_sigmas)).collect();
    Some((timesteps, sigmas))
}
