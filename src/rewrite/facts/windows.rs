//! The output shapes of operators with windows, and of those that resize images.

use super::tensor_fact::{KnownValue, TensorFact};
use crate::bundle::proto::NodeProto;
use crate::rewrite::indexed_graph::{int, ints, text};
use crate::rewrite::length::{Length, Unknowns};

/// Returns the output shape of a `Conv`.
pub fn convolution(
    node: &NodeProto,
    input: &[Length],
    weight: &[Length],
    unknowns: &mut Unknowns,
) -> Option<Vec<Length>> {
    let [batch, _, lengths @ ..] = input else { return None };
    let [channels, _, kernel @ ..] = weight else { return None };
    let kernel: Vec<i64> = kernel.iter().map(Length::number).collect::<Option<_>>()?;
    Some([[batch.clone(), channels.clone()].to_vec(), windows(node, lengths, &kernel, unknowns)?].concat())
}

/// Returns the output shape of a pooling operator.
pub fn pool(node: &NodeProto, input: &[Length], unknowns: &mut Unknowns) -> Option<Vec<Length>> {
    if int(node, "ceil_mode").unwrap_or(0) != 0 {
        return None;
    }
    let (kept, lengths) = input.split_at_checked(2)?;
    Some([kept.to_vec(), windows(node, lengths, ints(node, "kernel_shape")?, unknowns)?].concat())
}

/// Returns the number of windows of these lengths that fit along each axis.
fn windows(node: &NodeProto, lengths: &[Length], kernel: &[i64], unknowns: &mut Unknowns) -> Option<Vec<Length>> {
    if !matches!(text(node, "auto_pad"), None | Some("" | "NOTSET")) {
        return None;
    }
    let axes = lengths.len();
    let list = |name: &str, default: i64, count: usize| {
        ints(node, name).filter(|v| v.len() == count).map_or_else(|| vec![default; count], <[i64]>::to_vec)
    };
    let (strides, dilations, pads) = (list("strides", 1, axes), list("dilations", 1, axes), list("pads", 0, 2 * axes));
    let mut fit = Vec::with_capacity(axes);
    for (at, (length, kernel)) in lengths.iter().zip(kernel).enumerate() {
        let reach = kernel.checked_sub(1)?.checked_mul(*dilations.get(at)?)?.checked_add(1)?;
        let more = pads.get(at)?.checked_add(*pads.get(at + axes)?)?.checked_sub(reach)?;
        let stride = *strides.get(at)?;
        let room = length.plus(&Length::from(more.checked_add(stride)?))?;
        fit.push(unknowns.quotient(&room, &Length::from(stride)));
    }
    Some(fit)
}

/// Returns the output shape of a `Resize`.
pub fn resize(node: &NodeProto, inputs: &[TensorFact], unknowns: &mut Unknowns) -> Option<Vec<Length>> {
    let shape = inputs.first()?.shape.as_deref()?;
    if ints(node, "axes").is_some() {
        return None;
    }
    let value = |at: usize| inputs.get(at).and_then(|f| f.value.as_ref());
    if let Some(sizes) = value(3) {
        // Other policies keep the aspect ratio.
        let stretches = matches!(text(node, "keep_aspect_ratio_policy"), None | Some("stretch"));
        return sizes.whole().filter(|sizes| stretches && sizes.len() == shape.len()).map(<[Length]>::to_vec);
    }
    // Before operator set 11, the scales were the second input.
    let Some(KnownValue::Real(scales)) = value(if inputs.len() > 2 { 2 } else { 1 }) else { return None };
    let scaled = |(length, &scale): (&Length, &f32)| {
        let is_whole = (1.0..=64.0).contains(&scale) && scale.fract() == 0.0;
        let scaled = is_whole.then(|| length.times(&Length::from(scale as i64))).flatten();
        scaled.unwrap_or_else(|| unknowns.fresh())
    };
    (scales.len() == shape.len()).then(|| shape.iter().zip(scales).map(scaled).collect())
}
