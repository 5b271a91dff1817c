//! What the samplers of distilled consistency models share: they visit timesteps of the schedule they were distilled on.

use super::config::{Key, Kind, Settings, keys};
use super::{ScheduleRequest, custom};
use crate::error::Result;

/// The keys of both classes.
pub(super) const KEYS: [Key; 17] = [
    keys::NUM_TRAIN_TIMESTEPS,
    keys::beta_start(0.00085),
    keys::beta_end(0.012),
    keys::beta_schedule("scaled_linear"),
    keys::TRAINED_BETAS,
    Key::new("original_inference_steps", Kind::Count(50)),
    Key::switch("clip_sample", false),
    Key::float("clip_sample_range", 1.0),
    Key::switch("set_alpha_to_one", true),
    keys::STEPS_OFFSET,
    keys::prediction_type(&["epsilon", "sample", "v_prediction"]),
    keys::THRESHOLDING,
    keys::DYNAMIC_THRESHOLDING_RATIO,
    keys::SAMPLE_MAX_VALUE,
    keys::timestep_spacing("leading"),
    Key::float("timestep_scaling", 10.0),
    keys::RESCALE_BETAS_ZERO_SNR,
];

/// The run's timesteps, falling: the user's, or evenly some of the `original_inference_steps` of distillation.
///
/// # Errors
/// More steps than there are timesteps.
pub(super) fn timesteps(settings: &Settings, request: &ScheduleRequest) -> Result<Vec<f64>> {
    let steps = request.steps;
    let train = settings.count("num_train_timesteps")?;
    let original = settings.count("original_inference_steps")?;
    if original > train {
        let problem = format!("{original} are more than the {train} timesteps of training");
        return Err(settings.error("original_inference_steps", problem, "50 is usual"));
    }
    if let Some(list) = custom::timesteps(request) {
        return Ok(list.iter().map(|t| t.trunc()).collect());
    }
    if steps > original {
        let problem = format!("{steps} steps are more than the {original} of original_inference_steps");
        return Err(settings.error("steps", problem, "ask for 4 to 8"));
    }
    let used = (original as f64 * request.strength) as usize;
    if steps > used {
        let problem = format!(
            "{steps} steps are more than the {used} that a strength of {} leaves of original_inference_steps",
            request.strength
        );
        return Err(settings.error("steps", problem, "ask for fewer steps, or for more strength"));
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
