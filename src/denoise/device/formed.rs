//! Arrays in the form of the denoiser's graph.

use ndarray::ArrayViewD;

use crate::denoise::form::Form;

/// Arrays of the host in the form of the denoiser's graph.
pub(super) struct Formed<'v> {
    pub form: Form<'v>,
    /// The sample.
    pub sample: ArrayViewD<'v, f32>,
    /// The denoiser's first input: the sample, scaled, and channels or tokens behind it.
    pub input: ArrayViewD<'v, f32>,
    /// `[rows, c, h, w]` of the input.
    pub input_shape: [usize; 4],
}
