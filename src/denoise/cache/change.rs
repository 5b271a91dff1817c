//! What changes between two calls of the model, and what it adds to what it is given.

/// The mean of the absolute differences of two arrays of one length.
pub(super) fn mean_change(one: &[f32], other: &[f32]) -> f64 {
    let sum: f64 = one.iter().zip(other).map(|(a, b)| f64::from((a - b).abs())).sum();
    sum / one.len().max(1) as f64
}

/// The mean of the absolute values.
pub(super) fn mean_size(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(v.abs())).sum::<f64>() / values.len().max(1) as f64
}

/// Writes values in the place of others, in their room where it is large enough.
pub(super) fn refill(place: &mut Vec<f32>, values: &[f32]) {
    place.clear();
    place.extend_from_slice(values);
}

/// What the model added to each of its samples when it was last asked, `v − x`, for each call of a step apart.
#[derive(Debug, Default)]
pub(super) struct Differences(Vec<Vec<f32>>);

impl Differences {
    /// Takes down an answer. Variances, which may stand behind it, are kept as they are.
    pub(super) fn keep(&mut self, stage: usize, sample: &[f32], prediction: &[f32]) {
        if self.0.len() <= stage {
            self.0.resize(stage + 1, Vec::new());
        }
        let given = sample.iter().copied().chain(std::iter::repeat(0.0));
        if let Some(kept) = self.0.get_mut(stage) {
            kept.clear();
            kept.extend(prediction.iter().zip(given).map(|(v, x)| v - x));
        }
    }

    /// Writes `x + (v − x)` of the last answer to a call of this kind; `false` where there was none.
    pub(super) fn add(&self, stage: usize, sample: &[f32], prediction: &mut [f32]) -> bool {
        let Some(kept) = self.0.get(stage).filter(|kept| kept.len() == prediction.len()) else { return false };
        let given = sample.iter().copied().chain(std::iter::repeat(0.0));
        for ((out, difference), x) in prediction.iter_mut().zip(kept).zip(given) {
            *out = x + difference;
        }
        true
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
