//! The result of a request.

use std::sync::Arc;

use ndarray::ArrayD;

use crate::denoise::{DeviceCopies, Evaluations};
use crate::image::Rgb8;
use crate::plan::RunSettings;

/// A finished image.
#[derive(Debug, Clone)]
pub struct FinishedImage {
    /// Its index in the request, prompts outermost.
    pub index: usize,
    /// Its prompt.
    pub prompt: String,
    /// The negative prompt.
    pub negative_prompt: String,
    /// Its own seed.
    pub seed: u64,
    /// Its pixels.
    pub pixels: Rgb8,
    /// The side in latents of the tiles in which it was decoded; `None` if it was decoded whole.
    pub decode_tile: Option<usize>,
    /// Its final latents `[c, h/f, w/f]`, before the division by the scaling factor.
    pub latents: ArrayD<f32>,
    /// Calls of the denoiser, of all stages so far.
    pub calls: usize,
    /// Evaluations of the denoiser's graph at each stage so far, that of the file's own tables first.
    pub evaluations: Vec<Evaluations>,
    /// The settings of the request as it was run at each stage so far.
    pub settings: Vec<Arc<RunSettings>>,
    /// The precision of the denoiser at each stage so far, such as `bf16 (amx_bf16)`.
    pub precisions: Vec<String>,
    /// The copies of a denoising loop on the provider's device, in the last stage; `None` if it was the host's.
    pub device_copies: Option<DeviceCopies>,
    /// Seconds from the start of its batch to its pixels, its share of the batch's denoising, of all stages so far.
    pub seconds: f64,
    /// The number of `[[stage]]` tables it went through.
    pub stages: usize,
}

/// The durations of the parts of a request, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Timings {
    /// Opening graphs whose turn it was.
    pub open: f64,
    /// Prompts, noise and starting images.
    pub prepare: f64,
    /// The denoising loop.
    pub denoise: f64,
    /// Previews on the way.
    pub preview: f64,
    /// Latents to pixels.
    pub decode: f64,
    /// Images that were decoded in tiles.
    pub tiled: usize,
    /// Prompts and negative prompts that were encoded: each one once, as long as it is remembered.
    pub texts: usize,
    /// Calls of the denoiser, each for a whole batch.
    pub calls: usize,
    /// Evaluations of the denoiser's graph, each for a whole batch.
    pub evaluations: Evaluations,
}
