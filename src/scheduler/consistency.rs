//! Keys and timesteps shared by the consistency models' schedulers (LCM, TCD), which visit a subset of the timesteps
//! that the model was distilled on.

use super::ScheduleRequest;
use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::settings::SchedulerSettings;
use crate::error::Result;

/// The configuration keys of both classes.
pub(super) const KEYS: [SchedulerKey; 17] = [
    keys::NUM_TRAIN_TIMESTEPS,
    keys::beta_start(0.00085),
    keys::beta_end(0.012),
    keys::beta_schedule("scaled_linear"),
    keys::TRAINED_BETAS,
    SchedulerKey::new("original_inference_steps", SchedulerKeyKind::Count(50)),
    SchedulerKey::switch("clip_sample", false),
    SchedulerKey::float("clip_sample_range", 1.0),
    SchedulerKey::switch("set_alpha_to_one", true),
    keys::STEPS_OFFSET,
    keys::prediction_type(&["epsilon", "sample", "v_prediction"]),
    keys::THRESHOLDING,
    keys::DYNAMIC_THRESHOLDING_RATIO,
    keys::SAMPLE_MAX_VALUE,
    keys::timestep_spacing("leading"),
    SchedulerKey::float("timestep_scaling", 10.0),
    keys::RESCALE_BETAS_ZERO_SNR,
];

/// Returns the timesteps of a run, falling: the custom ones, or an even selection of the `original_inference_steps` of
/// distillation.
///
/// # Errors
/// The run has more steps than timesteps to choose from.
pub(super) fn timesteps(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Vec<f64>> {
    let steps = request.steps;
    let train = settings.count("num_train_timesteps")?;
    let original = settings.count("original_inference_steps")?;
    if original > train {
        let problem = format!("expected at most the {train} training timesteps, found {original}");
        return Err(settings.error("original_inference_steps", problem, "50 is usual"));
    }
    if let Some(list) = request.custom_timesteps() {
        return Ok(list.iter().map(|t| t.trunc()).collect());
    }
    if steps > original {
        let problem = format!("{steps} steps exceed original_inference_steps = {original}");
        return Err(settings.error("steps", problem, "use 4 to 8"));
    }
    let used = (original as f64 * request.strength) as usize;
    if steps > used {
        let problem = format!(
            "{steps} steps exceed the {used} of original_inference_steps that a strength of {} leaves",
            request.strength
        );
        return Err(settings.error("steps", problem, "use fewer steps or a higher strength"));
    }
    let ratio = train / original;
    let stride = used as f64 / steps as f64;
    Ok((0..steps)
        .map(|i| {
            let index = (i as f64 * stride).floor() as usize;
            ((used - index) * ratio) as f64 - 1.0
        })
        .collect())
}
