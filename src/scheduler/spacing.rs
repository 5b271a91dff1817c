//! Selection of the training timesteps that a run visits.

use super::ScheduleRequest;
use super::linspace::linspace;
use super::settings::SchedulerSettings;
use crate::error::Result;

/// Computes `numpy.arange(start, 0, -step)`. Its length is a rounded-up quotient, which floating point can push over an
/// integer. The result then has an extra value near zero; diffusers' schedules have that step too.
fn descend_to_zero(start: f64, step: f64) -> Vec<f64> {
    let n = (-start / -step).ceil().max(0.0) as usize;
    let delta = (start - step) - start;
    (0..n).map(|i| start + i as f64 * delta).collect()
}

/// Returns the timesteps of a run, falling: the custom ones, or one of the spacings in table 2 of Lin et al. 2023,
/// "Common Diffusion Noise Schedules and Sample Steps are Flawed". With `whole`, `linspace` rounds to integers.
///
/// # Errors
/// An unknown spacing.
pub(super) fn timesteps(settings: &SchedulerSettings, request: &ScheduleRequest, whole: bool) -> Result<Vec<f64>> {
    if let Some(list) = request.custom_timesteps() {
        return Ok(list.iter().map(|t| if whole { t.trunc() } else { f64::from(*t as f32) }).collect());
    }
    let steps = request.steps;
    let train = settings.count("num_train_timesteps")?;
    Ok(match settings.choice("timestep_spacing")? {
        "compvis" => {
            let ratio = train / steps;
            if ratio == 0 || (train - 1).is_multiple_of(ratio) {
                let problem = format!("compvis spacing of {steps} steps exceeds the {train} training timesteps");
                return Err(settings.error(
                    "timestep_spacing",
                    problem,
                    "use one step more or less, and at most half of the training timesteps",
                ));
            }
            (0..train).step_by(ratio).rev().map(|t| t as f64 + 1.0).collect()
        }
        "leading" => {
            let (ratio, offset) = (train / steps, settings.integer("steps_offset")? as f64);
            (0..steps).rev().map(|i| (i * ratio) as f64 + offset).collect()
        }
        "trailing" => descend_to_zero(train as f64, train as f64 / steps as f64)
            .into_iter()
            .map(|t| t.round_ties_even() - 1.0)
            .collect(),
        _ => linspace(0.0, (train - 1) as f64, steps)
            .into_iter()
            .rev()
            .map(|t| if whole { t.round_ties_even() } else { f64::from(t as f32) })
            .collect(),
    })
}

/// Returns the timesteps of [`timesteps`], with the fractions of `linspace` in double precision.
///
/// # Errors
/// An unknown spacing.
pub(super) fn precise_timesteps(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Vec<f64>> {
    if request.custom_timesteps().is_some() || settings.choice("timestep_spacing")? != "linspace" {
        return timesteps(settings, request, false);
    }
    let train = settings.count("num_train_timesteps")?;
    Ok(linspace(0.0, (train - 1) as f64, request.steps).into_iter().rev().collect())
}

/// Returns the timesteps of the DPM-Solver family, falling from `last`: those of [`timesteps`], except that `linspace`
/// and `leading` compute one more and drop it, so that no step is at timestep zero.
///
/// # Errors
/// An unknown spacing.
pub(super) fn solver_timesteps(
    settings: &SchedulerSettings,
    request: &ScheduleRequest,
    last: usize,
) -> Result<Vec<f64>> {
    if let Some(list) = request.custom_timesteps() {
        return Ok(list.iter().map(|t| t.trunc()).collect());
    }
    let steps = request.steps;
    let train = settings.count("num_train_timesteps")?;
    let spacing = if settings.has("timestep_spacing") { settings.choice("timestep_spacing")? } else { "linspace" };
    Ok(match spacing {
        "leading" => {
            let (ratio, offset) = (last / (steps + 1), settings.integer("steps_offset")? as f64);
            (1..=steps).rev().map(|i| (i * ratio) as f64 + offset).collect()
        }
        "trailing" => descend_to_zero(last as f64, train as f64 / steps as f64)
            .into_iter()
            .map(|t| t.round_ties_even() - 1.0)
            .collect(),
        _ => linspace(0.0, last as f64 - 1.0, steps + 1).into_iter().skip(1).rev().map(f64::round_ties_even).collect(),
    })
}

/// Returns the timesteps of an inverse run, rising up to the timestep below `last`; see [`solver_timesteps`].
///
/// # Errors
/// An unknown spacing.
pub(super) fn inverse_solver_timesteps(settings: &SchedulerSettings, steps: usize, last: usize) -> Result<Vec<f64>> {
    let train = settings.count("num_train_timesteps")?;
    Ok(match settings.choice("timestep_spacing")? {
        "leading" => {
            let (ratio, offset) = (last / (steps + 1), settings.integer("steps_offset")? as f64);
            (0..steps).map(|i| (i * ratio) as f64 + offset).collect()
        }
        "trailing" => descend_to_zero(last as f64, train as f64 / steps as f64)
            .into_iter()
            .rev()
            .map(|t| t.round_ties_even() - 1.0)
            .collect(),
        _ => linspace(0.0, last as f64 - 1.0, steps + 1).into_iter().take(steps).map(f64::round_ties_even).collect(),
    })
}
