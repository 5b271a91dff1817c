//! Pads the channels of convolutions that ONNX Runtime's WebGPU provider computes wrongly (docs/known-issues.md).
//!
//! With channels last, the provider multiplies three input channels at a time where their number is a multiple of three
//! and not of four, and the number of output channels is a multiple of four. With more than three input channels the
//! result is wrong. Zeros up to the next multiple of four channels, in the image and in the weights, change nothing else.

use super::edits::{Edits, node};
use super::facts::TensorFacts;
use super::indexed_graph::{IndexedGraph, input, int, ints, is, output};
use super::length::Length;
use crate::bundle::proto::NodeProto;

/// Channels that are multiplied at a time.
const VECTOR: i64 = 4;

/// Pads every such convolution, and returns their number.
pub fn rewrite(source: &IndexedGraph<'_>, facts: &TensorFacts, edits: &mut Edits) -> usize {
    let mut sites = 0;
    for (at, conv) in source.nodes.iter().enumerate() {
        if !edits.is_replaced(at)
            && let Some(nodes) = padded(source, facts, conv, edits)
        {
            edits.replace(at, nodes);
            sites += 1;
        }
    }
    sites
}

/// Returns a convolution with the paddings of its image and of its weights before it, if it needs them.
fn padded(
    source: &IndexedGraph<'_>,
    facts: &TensorFacts,
    conv: &NodeProto,
    edits: &mut Edits,
) -> Option<Vec<NodeProto>> {
    let (image, weights) = (input(conv, 0)?, input(conv, 1)?);
    output(conv)?;
    let shape = facts.shape(weights).filter(|_| is(conv, "Conv"))?;
    let shape: Vec<i64> = shape.iter().map(Length::number).collect::<Option<_>>()?;
    let &[channels_out, channels_in, ref window @ ..] = shape.as_slice() else { return None };
    let is_one_group = int(conv, "group").unwrap_or(1) == 1;
    let is_wrong = channels_in > 3 && channels_in % 3 == 0 && channels_in % VECTOR != 0 && channels_out % VECTOR == 0;
    if !is_one_group || !is_wrong || !(1..=2).contains(&window.len()) || is_product(conv, window) {
        return None;
    }
    let mut ends = vec![0; 2 * shape.len()];
    // The end of the second axis, after the starts of all.
    *ends.get_mut(shape.len() + 1)? = VECTOR - channels_in % VECTOR;
    let ends = edits.list(source, &ends);
    let [padded_image, padded_weights] = ["image", "weights"].map(|_| edits.name(source, "padded"));
    let mut conv = conv.clone();
    for (name, padded) in conv.input.iter_mut().zip([&padded_image, &padded_weights]) {
        name.clone_from(padded);
    }
    let pad = |from: &str, to: &str| node("Pad", &[from, &ends], to, Vec::new());
    Some(vec![pad(image, &padded_image), pad(weights, &padded_weights), conv])
}

/// Returns true for a convolution that the provider computes as a matrix product, which is right.
fn is_product(conv: &NodeProto, window: &[i64]) -> bool {
    let holds = |name: &str, value: i64| ints(conv, name).is_none_or(|own| own.iter().all(|&n| n == value));
    window.iter().all(|&side| side == 1) && holds("strides", 1) && holds("pads", 0)
}
