//! Runs one image through a graph of a VAE.

use ndarray::{ArrayD, ArrayViewD, Axis, Slice, concatenate};

use crate::bundle::Switch;
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};
use crate::tensor::{TensorInfo, TensorView, switch};

/// The input and output of a graph.
pub(super) struct Ports<'a> {
    pub input: &'a TensorInfo,
    pub output: &'a TensorInfo,
    pub switches: &'a [Switch],
    /// The graph's fixed batch size; one above 1 is filled with copies of the image.
    pub batch: Option<usize>,
}

/// Runs `session` on one image `[1, c, h, w]`.
pub(super) fn run(
    session: &mut Session,
    ports: &Ports<'_>,
    image: ArrayViewD<'_, f32>,
    cancel: &Cancel,
) -> Result<ArrayD<f32>> {
    let rows = ports.batch.unwrap_or(1).max(1);
    let repeated = match rows {
        1 => None,
        _ => {
            Some(concatenate(Axis(0), &vec![image.view(); rows]).map_err(|e| Error::internal("image", e.to_string()))?)
        }
    };
    let batch = repeated.as_ref().map_or(image, |r| r.view());
    let switches: Vec<_> = ports.switches.iter().map(|s| (s.input.name.as_str(), switch(&s.input, s.value))).collect();
    let mut inputs = vec![(ports.input.name.as_str(), TensorView::F32(batch))];
    inputs.extend(switches.iter().map(|(name, value)| (*name, TensorView::Bool(value.view()))));
    let mut outputs = session.run(&inputs, &[&ports.output.name], cancel)?;
    let mut result = outputs.swap_remove(0);
    if result.ndim() == 0 || result.shape()[0] != rows {
        return Err(Error::model(
            session.path(),
            format!("output {}: expected {rows} rows, found {:?}", ports.output.name, result.shape()),
            "export the VAE with scripts/export.py",
        ));
    }
    result.slice_axis_inplace(Axis(0), Slice::from(..1));
    let result = result.as_standard_layout().into_owned();
    session.require_finite(result.as_slice().unwrap_or_default(), &ports.output.name, 0, 0)?;
    Ok(result)
}
