//! What solvers do to samples: bounding a predicted image, and remembering what the model said.

use super::Scheduler;
use super::config::Settings;
use crate::error::Result;
use std::ops::Range;

/// What a model's answer is an estimate of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prediction {
    /// The noise in the sample.
    Epsilon,
    /// The image.
    Sample,
    /// `sqrt(alpha) noise - sqrt(1 - alpha) image` (Salimans and Ho 2022, appendix D).
    Velocity,
    /// The noise less the image, the direction of a straight path between them.
    Flow,
}

impl Prediction {
    /// Reads the key `prediction_type`.
    ///
    /// # Errors
    /// A word that is not among the class's choices.
    pub(super) fn from_settings(settings: &Settings) -> Result<Self> {
        Ok(match settings.choice("prediction_type")? {
            "sample" | "original_sample" => Self::Sample,
            "v_prediction" => Self::Velocity,
            "flow_prediction" => Self::Flow,
            _ => Self::Epsilon,
        })
    }
}

/// How a predicted image is kept in bounds.
#[derive(Debug)]
pub(super) enum Bounds {
    /// It is not.
    None,
    /// Cut off at plus and minus this value.
    Clip(f32),
    /// Dynamic thresholding (Saharia et al. 2022, "Photorealistic Text-to-Image Diffusion Models with Deep Language
    /// Understanding", section 2.3): each image is cut off at a quantile of its own magnitudes, and divided by it.
    Threshold {
        /// Which quantile.
        ratio: f32,
        /// The most an image is cut off at; the least is 1.
        max: f32,
        /// Images in a batch.
        images: usize,
        /// Holds one image's magnitudes; kept from step to step.
        magnitudes: Vec<f32>,
    },
}

impl Bounds {
    /// Reads `thresholding` and, where the class has it, `clip_sample`; the former goes first.
    ///
    /// # Errors
    /// A value of the wrong type.
    pub(super) fn from_settings(settings: &Settings, images: usize) -> Result<Self> {
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

    /// The parts of a batch of `len` values that can be worked on one after the other, each with its part of the
    /// model's answer: blocks, or the whole batch where an image's bounds depend on all of it or the answer holds
    /// variances too.
    pub(super) fn blocks<'a>(
        &self,
        len: usize,
        model_output: &'a [f32],
    ) -> impl Iterator<Item = (Range<usize>, &'a [f32])> + use<'a> {
        let whole = matches!(self, Self::Threshold { .. }) || model_output.len() != len;
        blocks_of(if whole { len } else { BLOCK }, len)
            .map(move |block| (block.clone(), if whole { model_output } else { &model_output[block] }))
    }

    /// What each value is cut off at by itself, infinity where it is not; `None` where its bounds depend on the whole
    /// image, which only [`Self::apply`] knows.
    pub(super) fn limit(&self) -> Option<f32> {
        match self {
            Self::None => Some(f32::INFINITY),
            Self::Clip(range) => Some(*range),
            Self::Threshold { .. } => None,
        }
    }

    /// Bounds the predicted images of a batch, or of a block of it, in place.
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

/// `torch.clamp`: what is not a number stays so, and where the bounds cross, the upper one counts.
pub(super) fn clamp(value: f32, low: f32, high: f32) -> f32 {
    let value = if value < low { low } else { value };
    if value > high { high } else { value }
}

/// `torch.quantile` with linear interpolation, in float32. Reorders `values`.
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

/// How many values a block has: what a step reads and writes of it stays in the nearest cache, so that several passes
/// over a block cost the memory no more than one.
const BLOCK: usize = 1024;

/// The blocks of `len` values.
pub(super) fn blocks(len: usize) -> impl Iterator<Item = Range<usize>> {
    blocks_of(BLOCK, len)
}

fn blocks_of(size: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(size.max(1)).map(move |start| start..len.min(start + size))
}

/// The last few tensors of a run, the newest first. All of its memory is taken at the first entry.
#[derive(Debug)]
pub(super) struct History {
    /// Never empty.
    buffers: Vec<Vec<f32>>,
    len: usize,
}

impl History {
    /// Room for so many tensors, at least one.
    pub(super) fn new(capacity: usize) -> Self {
        Self { buffers: vec![Vec::new(); capacity.max(1)], len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes room for a newest entry of `len` values and hands it out to be written, beside those before it, the
    /// newest first; what it holds is unspecified.
    pub(super) fn advance_beside(&mut self, len: usize) -> (&mut [f32], &[Vec<f32>]) {
        self.buffers.iter_mut().for_each(|buffer| buffer.resize(len, 0.0));
        self.buffers.rotate_right(1);
        self.len = self.buffers.len().min(self.len + 1);
        let (newest, older) = self.buffers.split_at_mut(1);
        (&mut newest[0], &older[..self.len - 1])
    }

    /// Makes room for a newest entry of `len` values and hands it out to be written; what it holds is unspecified.
    pub(super) fn advance(&mut self, len: usize) -> &mut [f32] {
        self.advance_beside(len).0
    }

    /// Remembers a copy of `values`.
    pub(super) fn push(&mut self, values: &[f32]) {
        self.advance(values.len()).copy_from_slice(values);
    }
}

/// Counted from the newest, 0, backwards.
impl std::ops::Index<usize> for History {
    type Output = [f32];

    fn index(&self, age: usize) -> &[f32] {
        &self.buffers[..self.len][age]
    }
}

/// SchedulerEntry `index` of a table as Python indexes it, from the end where negative.
pub(super) fn at(table: &[f32], index: i64) -> Option<f32> {
    let index = if index < 0 { index + table.len() as i64 } else { index };
    usize::try_from(index).ok().and_then(|index| table.get(index)).copied()
}

/// As [`at`], for a timestep of a schedule; an error about the number of training timesteps where there is none.
///
/// # Errors
/// The table has no such entry.
pub(super) fn at_timestep(settings: &Settings, table: &[f32], timestep: i64) -> Result<f32> {
    at(table, timestep).ok_or_else(|| {
        settings.error(
            "num_train_timesteps",
            format!("the schedule asks for timestep {timestep}, and there are {} of them", table.len()),
            "lower steps_offset, or match num_train_timesteps to trained_betas",
        )
    })
}

/// Writes `sqrt(alpha) x0 + sqrt(1 - alpha) noise` to `out`.
pub(super) fn add_noise(alpha: f32, x0: &[f32], noise: &[f32], out: &mut [f32]) {
    let (keep, add) = (alpha.sqrt(), (1.0 - alpha).sqrt());
    mix(keep, x0, add, noise, out);
}

/// Writes the image that the model's answer at `step` stands for, given the sample `x`, to `out`.
///
/// Where a sample is `a x0 + s n`, as [`Scheduler::add_noise`] makes it, the image is `(x - s m) / a` of an answer that
/// is the noise; `a x / r² - s m / r` with `r² = a² + s²` of a velocity, which is told of samples of unit variance; and
/// `(x - s m) / (a + s)` of the noise less the image.
pub(super) fn estimate(
    scheduler: &dyn Scheduler,
    prediction: Prediction,
    step: usize,
    model_output: &[f32],
    x: &[f32],
    out: &mut [f32],
) {
    let mut level = [0.0; 2];
    scheduler.add_noise(step, &[1.0, 0.0], &[0.0, 1.0], &mut level);
    let [a, s] = level;
    let r = a.hypot(s);
    let (of_x, of_answer) = match prediction {
        Prediction::Sample => (0.0, 1.0),
        Prediction::Epsilon => (1.0 / a.max(1e-8), -s / a.max(1e-8)),
        Prediction::Velocity => (a / (r * r), -s / r),
        Prediction::Flow => (1.0 / (a + s), -s / (a + s)),
    };
    mix(of_x, x, of_answer, model_output, out);
}

/// Writes `a x + b y` to `out`.
pub(super) fn mix(a: f32, x: &[f32], b: f32, y: &[f32], out: &mut [f32]) {
    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
        *out = a * x + b * y;
    }
}
