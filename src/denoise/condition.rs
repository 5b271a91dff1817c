//! The inputs of a denoiser beside the noisy sample and the timestep.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice};

use super::feed::pad_rows;
use crate::bundle::{DenoiserSignature, Filler, InputAxis, Role};
use crate::error::{Error, Result};
use crate::tensor::{Dim, TensorInfo};

/// The inputs of a denoiser beside the noisy sample and the timestep.
///
/// The latent diffusion paper (arXiv 2112.10752, section 3.3) has two, concatenated channels and cross-attention
/// conditioning ([`Role::Context`]); later families add vectors and classes. Every tensor has `n` rows, one an image, for
/// each branch of the guidance (see [`Guidance::branches`](super::Guidance::branches)), one branch after the other.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// The values of the denoiser's inputs, in the shapes that [`Role`] documents. Values of inputs that the denoiser does
    /// not have are left out of a run.
    pub inputs: BTreeMap<Role, ArrayD<f32>>,
    /// Channels to concatenate behind the sample's own, `[rows, c, h, w]`, never scaled by the scheduler.
    pub channels: Option<ArrayD<f32>>,
}

impl Condition {
    /// The value of one input.
    pub fn of(role: Role, value: ArrayD<f32>) -> Self {
        Self { inputs: BTreeMap::from([(role, value)]), channels: None }
    }

    /// The value of an input.
    pub fn get(&self, role: Role) -> Option<&ArrayD<f32>> {
        self.inputs.get(&role)
    }

    /// Sets the value of an input.
    pub fn set(&mut self, role: Role, value: ArrayD<f32>) {
        self.inputs.insert(role, value);
    }

    /// The number of tokens to attend to.
    pub(super) fn tokens(&self) -> usize {
        self.get(Role::Context).and_then(|tokens| tokens.shape().get(1)).copied().unwrap_or(0)
    }

    /// Fills the optional inputs of a denoiser that have no value with their default.
    ///
    /// # Errors
    /// [`Error::Model`] naming the input of the graph at `path` that has no value and is not optional.
    pub(super) fn fill_absent(&mut self, signature: &DenoiserSignature, rows: usize, path: &Path) -> Result<()> {
        for (&role, info) in &signature.inputs {
            let row = role.row();
            if row.filler == Filler::Loop || self.inputs.contains_key(&role) {
                continue;
            }
            let Some(default) = row.default else {
                return Err(Error::model(
                    path,
                    format!("nothing in this task fills input {}", info.name),
                    "choose a task that does (`ldm-ort inspect` says which this model can do)",
                ));
            };
            self.set(role, filled(default, info, row.axes_of(info, signature.is_packed()), rows));
        }
        Ok(())
    }

    /// Pads every input to `rows` rows.
    pub(super) fn padded(self, rows: usize) -> Result<Self> {
        let inputs = self.inputs.into_iter().map(|(role, value)| Ok((role, pad_rows(value, rows)?)));
        Ok(Self { inputs: inputs.collect::<Result<_>>()?, channels: self.channels })
    }

    /// These rows of the values of a graph's inputs, for those that have a value.
    pub(super) fn rows<'c>(
        &'c self,
        inputs: &'c BTreeMap<Role, TensorInfo>,
        rows: Slice,
    ) -> impl Iterator<Item = (&'c TensorInfo, ArrayViewD<'c, f32>)> {
        inputs.iter().filter_map(move |(role, info)| Some((info, self.get(*role)?.slice_axis(Axis(0), rows))))
    }
}

/// A constant in the shape of an input of these axes; a free axis other than that of the rows has length 1.
fn filled(value: f32, info: &TensorInfo, axes: &[InputAxis], rows: usize) -> ArrayD<f32> {
    let length = |(axis, dim): (&InputAxis, &Dim)| match axis {
        InputAxis::Rows => rows,
        _ => dim.fixed().unwrap_or(1),
    };
    let shape: Vec<usize> = axes.iter().zip(&info.shape).map(length).collect();
    ArrayD::from_elem(IxDyn(&shape), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn defaults_have_a_row_each_and_the_lengths_of_the_graph() {
        let shape = vec![Dim::Fixed(1), Dim::Free("tokens".into()), Dim::Fixed(8)];
        let info = TensorInfo { name: "any".into(), dtype: DType::F32, shape };
        let filled = filled(0.5, &info, Role::Context.row().axes_of(&info, false), 6);
        assert_eq!(filled.shape(), [6, 1, 8]);
        assert!(filled.iter().all(|value| *value == 0.5));
    }

    #[test]
    fn every_input_is_padded_with_its_last_row() {
        let value = |rows: usize| ArrayD::from_shape_fn(IxDyn(&[rows, 2]), |at| at[0] as f32);
        let mut condition = Condition::of(Role::TextEmbeds, value(3));
        condition.set(Role::TimeIds, value(1));
        let padded = condition.padded(4).unwrap();
        let column = |role| padded.get(role).unwrap().index_axis(Axis(1), 1).iter().copied().collect::<Vec<f32>>();
        assert_eq!(column(Role::TextEmbeds), [0.0, 1.0, 2.0, 2.0]);
        assert_eq!(column(Role::TimeIds), [0.0; 4]);
    }
}
