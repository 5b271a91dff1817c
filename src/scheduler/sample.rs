//! Operations on samples that many solvers share: clipping a predicted original sample, and keeping earlier model
//! outputs.

use super::Scheduler;
use super::settings::SchedulerSettings;
use crate::error::Result;
use std::ops::Range;

/// The quantity that a model predicts, the key `prediction_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PredictionType {
    /// The noise in the sample.
    Epsilon,
    /// The original sample, x0.
    Sample,
    /// The velocity `sqrt(alpha) noise - sqrt(1 - alpha) x0` (Salimans and Ho 2022, appendix D).
    Velocity,
    /// The flow `noise - x0`, the direction of the straight path from x0 to noise.
    Flow,
}

impl PredictionType {
    /// Reads the key `prediction_type`.
    ///
    /// # Errors
    /// A value that is not among the class's choices.
    pub(super) fn from_settings(settings: &SchedulerSettings) -> Result<Self> {
        Ok(match settings.choice("prediction_type")? {
            "sample" | "original_sample" => Self::Sample,
            "v_prediction" => Self::Velocity,
            "flow_prediction" => Self::Flow,
            _ => Self::Epsilon,
        })
    }
}

/// Clipping or thresholding of a predicted original sample.
#[derive(Debug)]
pub(super) enum Bounds {
    /// Neither.
    None,
    /// Clips to plus and minus this value, `clip_sample`.
    Clip(f32),
    /// Dynamic thresholding (Saharia et al. 2022, "Photorealistic Text-to-Image Diffusion Models with Deep Language
    /// Understanding", section 2.3): each image is clipped to a quantile of its own magnitudes and divided by it.
    Threshold {
        /// The quantile, in [0, 1].
        ratio: f32,
        /// The largest threshold; the smallest is 1.
        max: f32,
        /// The number of images in a batch.
        images: usize,
        /// A buffer for one image's magnitudes, reused between steps.
        magnitudes: Vec<f32>,
    },
}

impl Bounds {
    /// Reads `thresholding` and, if the class has it, `clip_sample`. `thresholding` takes precedence.
    ///
    /// # Errors
    /// A value of the wrong type.
    pub(super) fn from_settings(settings: &SchedulerSettings, images: usize) -> Result<Self> {
        if settings.switch("thresholding")? {
            let ratio = settings.float("dynamic_thresholding_ratio")? as f32;
            if !(0.0..=1.0).contains(&ratio) {
                return Err(settings.error("dynamic_thresholding_ratio", "expected 0 to 1", "0.995 is usual"));
            }
            let max = settings.float("sample_max_value")? as f32;
            return Ok(Self::Threshold { ratio, max, images: images.max(1), magnitudes: Vec::new() });
        }
        if settings.switch("clip_sample")? {
            return Ok(Self::Clip(settings.float("clip_sample_range")? as f32));
        }
        Ok(Self::None)
    }

    /// Splits a batch of `len` values into parts that can be processed one after the other, each with its part of the
    /// model output. The whole batch is one part if the threshold depends on a whole image or the output holds
    /// variances.
    pub(super) fn blocks<'a>(
        &self,
        len: usize,
        model_output: &'a [f32],
    ) -> impl Iterator<Item = (Range<usize>, &'a [f32])> + use<'a> {
        let whole = matches!(self, Self::Threshold { .. }) || model_output.len() != len;
        blocks_of(if whole { len } else { BLOCK }, len)
            .map(move |block| (block.clone(), if whole { model_output } else { &model_output[block] }))
    }

    /// Returns the limit for clipping each value by itself, infinity for none; `None` if the threshold depends on the
    /// whole image and [`Self::apply`] has to be used.
    pub(super) fn limit(&self) -> Option<f32> {
        match self {
            Self::None => Some(f32::INFINITY),
            Self::Clip(range) => Some(*range),
            Self::Threshold { .. } => None,
        }
    }

    /// Clips or thresholds the predicted original samples of a batch, or of a block of it, in place.
    pub(super) fn apply(&mut self, denoised: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Clip(range) => denoised.iter_mut().for_each(|v| *v = clamp(*v, -*range, *range)),
            Self::Threshold { ratio, max, images, magnitudes } => {
                let size = denoised.len() / *images;
                for one in denoised.chunks_mut(size.max(1)) {
                    magnitudes.clear();
                    magnitudes.extend(one.iter().map(|v| v.abs()));
                    let limit = clamp(quantile(magnitudes, *ratio), 1.0, *max);
                    one.iter_mut().for_each(|v| *v = clamp(*v, -limit, limit) / limit);
                }
            }
        }
    }
}

/// Clamps as `torch.clamp` does: NaN stays NaN, and the upper bound wins if the bounds cross.
pub(super) fn clamp(value: f32, low: f32, high: f32) -> f32 {
    let value = if value < low { low } else { value };
    if value > high { high } else { value }
}

/// Computes `torch.quantile` with linear interpolation, in float32. Reorders `values`.
fn quantile(values: &mut [f32], ratio: f32) -> f32 {
    let rank = ratio * (values.len() - 1) as f32;
    let below = (rank.floor() as usize).min(values.len() - 1);
    let weight = rank - rank.floor();
    let (_, low, rest) = values.select_nth_unstable_by(below, f32::total_cmp);
    let low = *low;
    if weight == 0.0 {
        return low;
    }
    let high = rest.iter().copied().min_by(f32::total_cmp).unwrap_or(low);
    if weight < 0.5 { low + weight * (high - low) } else { high - (high - low) * (1.0 - weight) }
}

/// The number of values in a block. A step's data for one block fits into the first-level cache, so that several passes
/// over a block load it from memory once.
const BLOCK: usize = 1024;

/// Returns the blocks of `len` values.
pub(super) fn blocks(len: usize) -> impl Iterator<Item = Range<usize>> {
    blocks_of(BLOCK, len)
}

fn blocks_of(size: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(size.max(1)).map(move |start| start..len.min(start + size))
}

/// The latest tensors of a run, newest first. All memory is allocated with the first entry.
#[derive(Debug)]
pub(super) struct History {
    /// Never empty.
    buffers: Vec<Vec<f32>>,
    len: usize,
}

impl History {
    /// Creates a history of up to `capacity` tensors, at least one.
    pub(super) fn new(capacity: usize) -> Self {
        Self { buffers: vec![Vec::new(); capacity.max(1)], len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a newest entry of `len` unspecified values and returns it for writing, together with the older entries,
    /// newest first.
    pub(super) fn advance_with_older(&mut self, len: usize) -> (&mut [f32], &[Vec<f32>]) {
        self.buffers.iter_mut().for_each(|buffer| buffer.resize(len, 0.0));
        self.buffers.rotate_right(1);
        self.len = self.buffers.len().min(self.len + 1);
        let (newest, older) = self.buffers.split_at_mut(1);
        (&mut newest[0], &older[..self.len - 1])
    }

    /// Adds a newest entry of `len` unspecified values and returns it for writing.
    pub(super) fn advance(&mut self, len: usize) -> &mut [f32] {
        self.advance_with_older(len).0
    }

    /// Adds a copy of `values`.
    pub(super) fn push(&mut self, values: &[f32]) {
        self.advance(values.len()).copy_from_slice(values);
    }
}

/// Index 0 is the newest entry.
impl std::ops::Index<usize> for History {
    type Output = [f32];

    fn index(&self, age: usize) -> &[f32] {
        &self.buffers[..self.len][age]
    }
}

/// Returns entry `index` of a table as Python does, counting from the end if negative.
pub(super) fn lookup(table: &[f32], index: i64) -> Option<f32> {
    let index = if index < 0 { index + table.len() as i64 } else { index };
    usize::try_from(index).ok().and_then(|index| table.get(index)).copied()
}

/// Returns the entry of a timestep, as [`lookup`] does.
///
/// # Errors
/// The table has no such entry.
pub(super) fn lookup_timestep(settings: &SchedulerSettings, table: &[f32], timestep: i64) -> Result<f32> {
    lookup(table, timestep).ok_or_else(|| {
        settings.error(
            "num_train_timesteps",
            format!("the schedule visits timestep {timestep}, but training has {}", table.len()),
            "lower steps_offset, or match num_train_timesteps to trained_betas",
        )
    })
}

/// Writes `sqrt(alpha) x0 + sqrt(1 - alpha) noise` to `out`.
pub(super) fn add_noise(alpha: f32, x0: &[f32], noise: &[f32], out: &mut [f32]) {
    let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
    mix(signal, x0, sigma, noise, out);
}

/// Writes the predicted original sample to `out`, given the model output at `step` and the sample `x`.
///
/// If a sample is `a x0 + s n`, as [`Scheduler::add_noise`] computes it, then x0 is `(x - s m) / a` for an epsilon
/// prediction `m`; `a x / r² - s m / r` with `r² = a² + s²` for a velocity, which is defined for samples of unit
/// variance; and `(x - s m) / (a + s)` for a flow.
pub(super) fn predict_x0(
    scheduler: &dyn Scheduler,
    prediction_type: PredictionType,
    step: usize,
    model_output: &[f32],
    x: &[f32],
    out: &mut [f32],
) {
    let mut factors = [0.0; 2];
    scheduler.add_noise(step, &[1.0, 0.0], &[0.0, 1.0], &mut factors);
    let [a, s] = factors;
    let r = a.hypot(s);
    let (x_weight, output_weight) = match prediction_type {
        PredictionType::Sample => (0.0, 1.0),
        PredictionType::Epsilon => (1.0 / a.max(1e-8), -s / a.max(1e-8)),
        PredictionType::Velocity => (a / (r * r), -s / r),
        PredictionType::Flow => (1.0 / (a + s), -s / (a + s)),
    };
    mix(x_weight, x, output_weight, model_output, out);
}

/// Writes `a x + b y` to `out`.
pub(super) fn mix(a: f32, x: &[f32], b: f32, y: &[f32], out: &mut [f32]) {
    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
        *out = a * x + b * y;
    }
}
