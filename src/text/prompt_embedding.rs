//! The embedding of one prompt.

use ndarray::ArrayD;

/// What a model's text encoders make of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptEmbedding {
    /// Tokens to attend to, `[tokens, width]` float32.
    pub tokens: ArrayD<f32>,
    /// The text as one vector, `[width]`, where the denoiser takes one.
    pub pooled: Option<ArrayD<f32>>,
    /// `[tokens]`: 1 for each that is no padding and 0 for the others, where the denoiser is to tell them apart.
    pub mask: Option<ArrayD<f32>>,
    /// What was cut off, where the prompt is longer than an encoder reads.
    pub warnings: Vec<String>,
}

impl PromptEmbedding {
    /// The embedding of nothing: zeros of the same shapes.
    pub fn zeros(&self) -> Self {
        let zeros = |a: &ArrayD<f32>| ArrayD::zeros(a.raw_dim());
        let (pooled, mask) = (self.pooled.as_ref().map(zeros), self.mask.clone());
        Self { tokens: zeros(&self.tokens), pooled, mask, warnings: Vec::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        let more = self.pooled.iter().chain(&self.mask).map(|values| values.len()).sum::<usize>();
        size_of::<f32>() * (self.tokens.len() + more)
    }
}
