//! The float32 values that a graph stores, in initializers and in `Constant` nodes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::Result;
use crate::quantize::half_precision::{HalfFit, half_fit};
use crate::quantize::output::GraphOutput;
use crate::rewrite::indexed_graph::{IndexedGraph, is, output as made};
use crate::rewrite::numbers::{Numbers, Values};
use crate::tensor::DType;

/// A stored float32 tensor.
pub struct StoredFloats<'g> {
    /// Its shape.
    pub dims: Vec<i64>,
    /// Its values, little-endian.
    pub bytes: Cow<'g, [u8]>,
    /// The result of rounding it to half precision.
    pub fit: HalfFit,
}

impl StoredFloats<'_> {
    /// Smaller tensors are biases, norms and constants.
    const FEWEST: usize = 1024;

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.bytes.len() / 4
    }

    /// Returns true for the values of a layer, which are kept in the external file.
    pub fn is_large(&self) -> bool {
        self.len() >= Self::FEWEST
    }

    /// Returns true if finite values other than float32's limits are beyond half precision's range.
    pub fn is_beyond(&self) -> bool {
        matches!(self.fit, HalfFit::Beyond(_))
    }

    /// Returns the reason for which the nodes that read it stay in float32.
    ///
    /// Values of a bias that are too small for half precision are rounded: what they are added to has larger errors.
    /// A small constant may be a divisor.
    pub fn refusal(&self) -> Option<&str> {
        match &self.fit {
            HalfFit::Beyond(reason) => Some(reason),
            HalfFit::TooSmall(reason) if self.len() == 1 || self.is_large() => Some(reason),
            _ => None,
        }
    }
}

/// Returns all of a graph's float32 values by name, and reports the progress of reading them.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) if the work is stopped, [`Error::Model`](crate::Error::Model) if values
/// cannot be read.
pub fn read<'g>(output: &mut GraphOutput<'g>) -> Result<BTreeMap<String, StoredFloats<'g>>> {
    let source: &'g IndexedGraph<'g> = output.source;
    let mut all = BTreeMap::new();
    for (tensor, place) in source.stored().filter(|(tensor, _)| DType::from_onnx(tensor.data_type) == DType::F32) {
        let bytes = match source.float_bytes(tensor, place) {
            Some(bytes) => Cow::Borrowed(bytes),
            None => Cow::Owned(Vec::new()),
        };
        let count = tensor.dims.iter().product::<i64>().max(0);
        if bytes.len() as i64 != 4 * count {
            return Err(output.damaged(&format!("the values of tensor {} cannot be read", tensor.name)));
        }
        let fit = half_fit(&bytes);
        output.advance(bytes.len() / 4)?;
        all.insert(tensor.name.clone(), StoredFloats { dims: tensor.dims.clone(), bytes, fit });
    }
    for node in source.nodes.iter().filter(|node| is(node, "Constant")) {
        let Some(name) = made(node) else { continue };
        let Some(Numbers { dims, dtype: DType::F32, values: Values::Real(values) }) = source.constant(name) else {
            continue;
        };
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        let fit = half_fit(&bytes);
        all.insert(name.to_owned(), StoredFloats { dims, bytes: Cow::Owned(bytes), fit });
    }
    Ok(all)
}
