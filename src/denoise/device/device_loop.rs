//! A run to be made on a device.

use std::ops::Range;

use crate::denoise::UnmaskedLatents;
use crate::scheduler::{LinearSteps, Noise, Scheduler};

/// A run whose samples stay on the device of the denoiser's provider.
pub struct DeviceLoop<'m> {
    /// A scheduler that has taken no step.
    pub scheduler: &'m dyn Scheduler,
    /// The combinations of the evaluations `span`.
    pub steps: &'m LinearSteps,
    /// The evaluations, indices into the scheduler's timesteps.
    pub span: Range<usize>,
    /// The latents that an inpainting mask preserves.
    pub unmasked: Option<&'m UnmaskedLatents>,
}

/// The noise of a run.
pub struct RunNoise<'n> {
    /// Another scheduler of the same run that has taken no step, which scales the noise.
    pub scheduler: &'n mut dyn Scheduler,
    /// The noise.
    pub noise: &'n mut dyn Noise,
}

/// The tensors that a run copied between the host and the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct DeviceCopies {
    /// To the device before the first step: the sample, and all that does not change.
    pub before: usize,
    /// To the device during the run.
    pub during: usize,
    /// To the host: the last sample, and what the watcher requests.
    pub to_host: usize,
}
