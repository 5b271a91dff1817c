//! The forms of a graph's inputs and outputs: element types, ranks and fixed batches.

use crate::bundle::component::Component;
use crate::error::{Error, Result};
use crate::tensor::{Dim, TensorInfo};

/// Name, element type and shape of each tensor, one a line.
pub(super) fn describe(tensors: &[TensorInfo]) -> String {
    let width = tensors.iter().map(|t| t.name.chars().count()).max().unwrap_or(0);
    tensors
        .iter()
        .map(|t| {
            let shape: Vec<String> = t.shape.iter().map(ToString::to_string).collect();
            format!("\n    {:width$}  {}  [{}]", t.name, t.dtype, shape.join(", "))
        })
        .collect()
}

/// The only output of this rank; of several, the one with one of these names.
pub(super) fn output(component: &Component, rank: usize, names: &[&str]) -> Result<TensorInfo> {
    let outputs = &component.graph.outputs;
    let fitting: Vec<&TensorInfo> = outputs.iter().filter(|o| o.shape.len() == rank).collect();
    let found = match (fitting.as_slice(), outputs.as_slice()) {
        ([only], _) => Some(*only),
        // An output without a stated shape reads as one without axes; where it is the only one, it is the one.
        ([], [only]) if only.shape.is_empty() => Some(only),
        (several, _) => names.iter().find_map(|name| several.iter().find(|o| o.name == *name).copied()),
    };
    found.cloned().ok_or_else(|| {
        Error::model(
            &component.graph.path,
            format!(
                "{} has {} outputs with {rank} axes where one is wanted; its outputs are{}",
                component.kind,
                fitting.len(),
                describe(outputs)
            ),
            "this graph is of a kind that is not run; export the model with scripts/export.py",
        )
    })
}

/// The first axis, if the graph fixes it for any of these. Batches are padded to it.
///
/// # Errors
/// [`Error::Model`] for more rows than a batch could sensibly be padded to.
pub(super) fn fixed_batch<'a>(
    component: &Component,
    tensors: impl IntoIterator<Item = &'a TensorInfo>,
) -> Result<Option<usize>> {
    const MOST: usize = 1024;
    let fixed = tensors.into_iter().find_map(|t| Some((t, t.shape.first()?.fixed()?)));
    match fixed {
        Some((info, rows)) if rows > MOST => Err(Error::model(
            &component.graph.path,
            format!("{info} is fixed to a batch of {rows}; expected {MOST} at most"),
            "export the model again, with a batch that is free or 1",
        )),
        _ => Ok(fixed.map(|(_, rows)| rows)),
    }
}

pub(super) fn is_number(t: &TensorInfo) -> bool {
    t.dtype.is_float() || t.dtype.is_integer()
}

pub(super) fn is_float(t: &TensorInfo, rank: usize) -> bool {
    t.dtype.is_float() && t.shape.len() == rank
}

/// The length of an axis, if the graph fixes it.
pub(super) fn axis_length(info: &TensorInfo, axis: usize) -> Option<usize> {
    info.shape.get(axis).and_then(Dim::fixed)
}
