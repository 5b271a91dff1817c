//! What the solvers of the DPM family share: their schedules, and noise levels as they see them.

use super::ScheduleRequest;
use super::config::{Key, Kind, Settings};
use super::noise::ln_f32;
use super::sample::at_timestep;
use super::sigmas::{self, Ramp};
use super::spacing::{inverse_solver_timesteps, linspace, solver_timesteps};
use crate::error::Result;

/// A learned variance is cut off and ignored by these solvers; the words of DDPM's fixed ones mean nothing to them.
pub(super) const VARIANCE_TYPE: Key = Key::new(
    "variance_type",
    Kind::MaybeChoice {
        valid: &["learned", "learned_range"],
        foreign: &["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"],
    },
);

/// How the shift of flow sigmas goes with an image's size; other classes' files say "linear".
pub(super) const TIME_SHIFT_TYPE: Key =
    Key::new("time_shift_type", Kind::Choice { default: "exponential", valid: &["exponential"], foreign: &["linear"] });

/// A noise level: how much of the image, how much noise, and half the logarithm of the signal-to-noise ratio.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub alpha: f32,
    pub sigma: f32,
    pub lambda: f32,
}

impl Level {
    /// From the ratio `sigma` of noise to image, or, under `flow`, from the fraction of noise.
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

/// Timesteps of a run, and the sigma of each with the final one after them.
#[derive(Debug)]
pub(super) struct Schedule {
    pub timesteps: Vec<f64>,
    pub sigmas: Vec<f32>,
}

/// Where the classes of this family differ in their schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    /// Karras sigmas keep fractional timesteps under cosine betas.
    pub cosine_fractions: bool,
    /// A final sigma that is not zero repeats the last one of spaced sigmas, and is not the least one of training.
    pub repeats_last: bool,
    /// The run goes from the image to its noise; timesteps that come out twice are visited once.
    pub inverse: bool,
}

/// The schedule that the configuration of a solver of this family asks for.
///
/// # Errors
/// Switches that exclude each other, or values that leave no timestep.
pub(super) fn schedule(
    settings: &Settings,
    request: &ScheduleRequest,
    alphas: &[f32],
    manner: Manner,
) -> Result<Schedule> {
    let steps = request.steps;
    let train = settings.count("num_train_timesteps")?;
    let training = sigmas::training_sigmas(alphas);
    let logs = sigmas::log_sigmas(&training);
    let (least, most) = (f64::from(training[0]), f64::from(training[training.len() - 1]));
    let (start, end) = if manner.inverse { (least, most) } else { (most, least) };
    let last = last_timestep(settings, alphas, train)?;
    let cosine = settings.unchecked_word("beta_schedule") == Some("squaredcos_cap_v2");
    let lu = settings.switch("use_lu_lambdas")?;
    let dynamic = settings.switch("use_dynamic_shifting")?;
    let linear = settings.has("time_shift_type") && settings.choice("time_shift_type")? == "linear";

    let mut timesteps;
    let mut levels: Vec<f64>;
    let mut spaced = true;
    let ramp = Ramp::from_settings(settings)?;
    if ramp == Some(Ramp::Karras) || ramp.is_some() && !lu {
        let ramp = ramp.unwrap_or(Ramp::Karras);
        levels = ramp.sigmas(settings, end, start, steps)?;
        timesteps = levels.iter().map(|sigma| sigmas::timestep_of(*sigma, &logs)).collect::<Vec<_>>();
        if ramp == Ramp::Karras && !(cosine && manner.cosine_fractions) {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
    } else if lu {
        let (low, high) = (f64::from(logs[0]), f64::from(logs[logs.len() - 1]));
        let ramp = linspace(0.0, 1.0, steps);
        levels = ramp.into_iter().map(|ramp| (high + ramp * (low - high)).exp()).collect();
        timesteps = levels.iter().map(|sigma| sigmas::timestep_of(*sigma, &logs)).collect();
        if !cosine {
            timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        }
    } else if settings.switch("use_flow_sigmas")? {
        let shift = match request.mu.filter(|_| dynamic) {
            Some(_) if linear => {
                let help = "set time_shift_type = \"exponential\"";
                return Err(settings.error("time_shift_type", "the class has no linear shift", help));
            }
            Some(mu) => mu.exp(),
            None => settings.float("flow_shift")?,
        };
        levels = linspace(1.0, 1.0 / train as f64, steps + 1)
            .into_iter()
            .skip(1)
            .rev()
            .map(|alpha| {
                let sigma = 1.0 - alpha;
                shift * sigma / (1.0 + (shift - 1.0) * sigma)
            })
            .collect();
        timesteps = levels.iter().map(|sigma| sigma * train as f64).collect();
    } else {
        spaced = false;
        timesteps = if manner.inverse {
            inverse_solver_timesteps(settings, steps, last)?
        } else {
            solver_timesteps(settings, request, last)?
        };
        levels = timesteps.iter().map(|t| sigmas::interpolate(*t, &training)).collect();
    }
    let to_zero = settings.has("final_sigmas_type") && settings.choice("final_sigmas_type")? == "zero";
    levels.push(match levels.last() {
        _ if to_zero => 0.0,
        Some(lowest) if spaced && manner.repeats_last => *lowest,
        _ if manner.inverse => f64::from(at_timestep(settings, &training, last as i64 - 1)?),
        _ => least,
    });
    if manner.inverse {
        let mut seen = Vec::new();
        timesteps.retain(|t| {
            !seen.contains(t) && {
                seen.push(*t);
                true
            }
        });
    }
    Ok(Schedule {
        timesteps: timesteps.into_iter().map(f64::trunc).collect(),
        sigmas: levels.into_iter().map(|sigma| sigma as f32).collect(),
    })
}

/// The highest timestep of a run and one more: lower than the last one of training where `lambda_min_clipped` cuts off
/// the noisiest levels.
fn last_timestep(settings: &Settings, alphas: &[f32], train: usize) -> Result<usize> {
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
