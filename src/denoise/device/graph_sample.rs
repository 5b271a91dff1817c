//! Arrays in the form of the denoiser's graph.

use ndarray::{ArrayD, ArrayViewD};

use crate::bundle::DenoiserSignature;
use crate::denoise::form::Form;
use crate::error::Result;

/// Arrays of the host in the form of the denoiser's graph.
pub(super) struct GraphSample<'v> {
    pub form: Form<'v>,
    /// The sample.
    pub sample: ArrayViewD<'v, f32>,
    /// The denoiser's first input: the sample, scaled, and channels or tokens behind it.
    pub input: ArrayViewD<'v, f32>,
    /// `[rows, c, h, w]` of the input.
    pub input_shape: [usize; 4],
}

impl<'v> GraphSample<'v> {
    /// The sample, and the denoiser's input as it is; both are written to the rooms if the graph has another form.
    pub fn new(
        signature: &'v DenoiserSignature,
        [sample, input]: [&'v ArrayD<f32>; 2],
        [sample_room, input_room]: [&'v mut Vec<f32>; 2],
    ) -> Result<Self> {
        let form = Form::of(signature, sample.shape().get(1).copied().unwrap_or_default());
        Ok(Self {
            form,
            sample: form.sample(sample.view(), sample_room)?,
            input_shape: input.shape().try_into().unwrap_or_default(),
            input: form.sample(input.view(), input_room)?,
        })
    }
}
