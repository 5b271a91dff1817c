//! The schedules and noise levels of the DPM-Solver family.

use super::ScheduleRequest;
use super::betas::ln_f32;
use super::config::{SchedulerKey, SchedulerKeyKind};
use super::linspace::linspace;
use super::sample::lookup_timestep;
use super::settings::SchedulerSettings;
use super::sigmas::{self, Ramp};
use super::spacing::{inverse_solver_timesteps, solver_timesteps};
use crate::elementary::exp;
use crate::error::Result;

/// The solvers of this family ignore learned variances; DDPM's words for fixed variances have no effect.
pub(super) const VARIANCE_TYPE: SchedulerKey = SchedulerKey::new(
    "variance_type",
    SchedulerKeyKind::MaybeChoice {
        valid: &["learned", "learned_range"],
        foreign: &["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"],
    },
);

/// The form of the resolution-dependent shift of flow sigmas; other classes' files have "linear".
pub(super) const TIME_SHIFT_TYPE: SchedulerKey = SchedulerKey::new(
    "time_shift_type",
    SchedulerKeyKind::Choice { default: "exponential", valid: &["exponential"], foreign: &["linear"] },
);

/// A noise level: `alpha_t`, the factor of x0; `sigma_t`, the factor of noise; and `lambda_t`, half the logarithm of
/// the signal-to-noise ratio.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoiseLevel {
    pub alpha: f32,
    pub sigma: f32,
    pub lambda: f32,
}

impl NoiseLevel {
    /// Creates it from the schedule's `sigma`: the ratio of noise to x0, or with `flow` the fraction of noise.
    pub(super) fn new(sigma: f32, flow: bool) -> Self {
        let (alpha, sigma) = if flow {
            (1.0 - sigma, sigma)
        } else {
            let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
            (alpha, sigma * alpha)
        };
        Self { alpha, sigma, lambda: ln_f32(alpha) - ln_f32(sigma) }
    }
}

/// The timesteps of a run, and the sigma of each with the final sigma after them.
#[derive(Debug)]
pub(super) struct SolverSchedule {
    pub timesteps: Vec<f64>,
    pub sigmas: Vec<f32>,
}

/// Differences between the schedules of this family's classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScheduleOptions {
    /// True if Karras sigmas keep fractional timesteps with cosine betas.
    pub cosine_fractions: bool,
    /// True if a final sigma above zero repeats the last of `use_*_sigmas`, instead of the smallest training sigma.
    pub repeats_last: bool,
    /// True if the run goes from an image to its noise. Duplicate timesteps are then visited once.
    pub inverse: bool,
}

/// The sigmas of `use_flow_sigmas`, the highest first.
fn flow_sigmas(
    settings: &SchedulerSettings,
    request: &ScheduleRequest,
    train: usize,
    [is_dynamic, is_linear]: [bool; 2],
) -> Result<Vec<f64>> {
    let shift = match request.mu.filter(|_| is_dynamic) {
        Some(_) if is_linear => {
            let help = "set time_shift_type = \"exponential\"";
            return Err(settings.error("time_shift_type", "this scheduler does not support a linear shift", help));
        }
        Some(mu) => exp(mu),
        None => settings.float("flow_shift")?,
    };
    let shifted = |alpha: f64| {
        let sigma = 1.0 - alpha;
        shift * sigma / (1.0 + (shift - 1.0) * sigma)
    };
    let alphas = linspace(1.0, 1.0 / train as f64, request.steps + 1);
    Ok(alphas.into_iter().skip(1).rev().map(shifted).collect())
}

/// Builds the schedule of a solver's configuration.
///
/// # Errors
/// Switches that contradict each other, or values that leave no timestep.
pub(super) fn build_schedule(
    settings: &SchedulerSettings,
    request: &ScheduleRequest,
    alphas: &[f32],
    options: ScheduleOptions,
) -> Result<SolverSchedule> {
    let steps = request.steps;
    let train = settings.count("num_train_timesteps")?;
    let training = sigmas::training_sigmas(alphas);
    let logs = sigmas::log_sigmas(&training);
    let (sigma_min, sigma_max) = (f64::from(training[0]), f64::from(training[training.len() - 1]));
    let (start, end) = if options.inverse { (sigma_min, sigma_max) } else { (sigma_max, sigma_min) };
    let last = last_timestep(settings, alphas, train)?;
    let cosine = settings.unchecked_word("beta_schedule") == Some("squaredcos_cap_v2");
    let lu = settings.switch("use_lu_lambdas")?;
    let dynamic = settings.switch("use_dynamic_shifting")?;
    let linear = settings.has("time_shift_type") && settings.choice("time_shift_type")? == "linear";

    let mut timesteps;
    let mut sigmas: Vec<f64>;
    let mut spaced = true;
    let ramp = Ramp::from_settings(settings)?;
    if ramp == Some(Ramp::Karras) || ramp.is_some() && !lu {
        let ramp = ramp.unwrap_or(Ramp::Karras);
        sigmas = ramp.sigmas(settings, end, start, steps)?;
        timesteps = sigmas.iter().map(|sigma| sigmas::sigma_to_t(*sigma, &logs)).collect::<Vec<_>>();
        if ramp == Ramp::Karras && !(cosine && options.cosine_fractions) {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
    } else if lu {
        let (low, high) = (f64::from(logs[0]), f64::from(logs[logs.len() - 1]));
        let ramp = linspace(0.0, 1.0, steps);
        sigmas = ramp.into_iter().map(|ramp| exp(high + ramp * (low - high))).collect();
        timesteps = sigmas.iter().map(|sigma| sigmas::sigma_to_t(*sigma, &logs)).collect();
        if !cosine {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
    } else if settings.switch("use_flow_sigmas")? {
        sigmas = flow_sigmas(settings, request, train, [dynamic, linear])?;
        timesteps = sigmas.iter().map(|sigma| sigma * train as f64).collect();
    } else {
        spaced = false;
        timesteps = if options.inverse {
            inverse_solver_timesteps(settings, steps, last)?
        } else {
            solver_timesteps(settings, request, last)?
        };
        sigmas = timesteps.iter().map(|t| sigmas::interpolate(*t, &training)).collect();
    }
    let to_zero = settings.has("final_sigmas_type") && settings.choice("final_sigmas_type")? == "zero";
    sigmas.push(match sigmas.last() {
        _ if to_zero => 0.0,
        Some(lowest) if spaced && options.repeats_last => *lowest,
        _ if options.inverse => f64::from(lookup_timestep(settings, &training, last as i64 - 1)?),
        _ => sigma_min,
    });
    if options.inverse {
        remove_repeats(&mut timesteps);
    }
    Ok(SolverSchedule {
        timesteps: timesteps.into_iter().map(f64::trunc).collect(),
        sigmas: sigmas.into_iter().map(|sigma| sigma as f32).collect(),
    })
}

/// Keeps the first of equal timesteps.
fn remove_repeats(timesteps: &mut Vec<f64>) {
    let mut seen = Vec::new();
    timesteps.retain(|t| {
        !seen.contains(t) && {
            seen.push(*t);
            true
        }
    });
}

/// Returns the highest timestep of a run plus one. It is lower than the number of training timesteps if
/// `lambda_min_clipped` cuts off the noisiest ones.
fn last_timestep(settings: &SchedulerSettings, alphas: &[f32], train: usize) -> Result<usize> {
    if !settings.has("lambda_min_clipped") {
        return Ok(train);
    }
    let clip = settings.float("lambda_min_clipped")? as f32;
    let clipped =
        alphas.iter().rev().take_while(|alpha| ln_f32(alpha.sqrt()) - ln_f32((1.0 - **alpha).sqrt()) < clip).count();
    if clipped >= train {
        let problem = format!("{clip} leaves no timestep");
        return Err(settings.error("lambda_min_clipped", problem, "-5.1 is usual for the cosine schedule"));
    }
    Ok(train - clipped)
}
