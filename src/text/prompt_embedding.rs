//! Prompt embeddings.

use ndarray::ArrayD;

/// A model's embeddings of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptEmbedding {
    /// The prompt embeddings, `[tokens, width]` float32.
    pub tokens: ArrayD<f32>,
    /// The pooled embedding, `[width]`, if the denoiser uses one.
    pub pooled: Option<ArrayD<f32>>,
    /// `[tokens]`: 1 for each token that is not padding and 0 for the others, if the denoiser masks padding.
    pub mask: Option<ArrayD<f32>>,
    /// Warnings if an encoder truncated the prompt.
    pub warnings: Vec<String>,
}

impl PromptEmbedding {
    /// Returns an empty embedding: zeros of the same shapes.
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
