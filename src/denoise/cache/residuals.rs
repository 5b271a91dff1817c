//! Differences between model outputs, and between an output and its input.

/// Returns the mean absolute difference of two arrays of equal length.
pub(super) fn mean_abs_difference(one: &[f32], other: &[f32]) -> f64 {
    let sum: f64 = one.iter().zip(other).map(|(a, b)| f64::from((a - b).abs())).sum();
    sum / one.len().max(1) as f64
}

/// Returns the mean absolute value.
pub(super) fn mean_abs(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(v.abs())).sum::<f64>() / values.len().max(1) as f64
}

/// Replaces the values of `target`, reusing its allocation.
pub(super) fn copy_into(target: &mut Vec<f32>, values: &[f32]) {
    target.clear();
    target.extend_from_slice(values);
}

/// The residual `v − x` of the latest model output, for each evaluation of a step.
#[derive(Debug, Default)]
pub(super) struct OutputResiduals(Vec<Vec<f32>>);

impl OutputResiduals {
    /// Stores the residual of a model output. Variances at its end are stored unchanged.
    pub(super) fn store(&mut self, evaluation: usize, sample: &[f32], prediction: &[f32]) {
        if self.0.len() <= evaluation {
            self.0.resize(evaluation + 1, Vec::new());
        }
        let input = sample.iter().copied().chain(std::iter::repeat(0.0));
        if let Some(stored) = self.0.get_mut(evaluation) {
            stored.clear();
            stored.extend(prediction.iter().zip(input).map(|(v, x)| v - x));
        }
    }

    /// Writes `x + (v − x)`, with the stored residual of this evaluation, to `prediction`; returns `false` if none is
    /// stored.
    pub(super) fn add_to(&self, evaluation: usize, sample: &[f32], prediction: &mut [f32]) -> bool {
        let Some(stored) = self.0.get(evaluation).filter(|stored| stored.len() == prediction.len()) else {
            return false;
        };
        let input = sample.iter().copied().chain(std::iter::repeat(0.0));
        for ((out, difference), x) in prediction.iter_mut().zip(stored).zip(input) {
            *out = x + difference;
        }
        true
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
