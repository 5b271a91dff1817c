//! Normalizations written out as squares, means and roots, and the sums that they are taken of.

use super::reason;
use super::selection::{Float32Selection, GraphView};
use crate::bundle::ComponentKind;
use crate::bundle::proto::NodeProto;
use crate::rewrite::indexed_graph::{input, is};
use crate::rewrite::numbers::Values;

/// Operators between the mean of squares and the division by its root, beside constants.
const BETWEEN: &[&str] = &["Add", "Max", "Clip", "Sqrt", "Reciprocal", "Pow", "Cast", "Identity", "Div", "Mul"];

/// Adds the nodes of normalizations, in which half precision overflows at activations of 256: torch's operators and
/// transformers' RMS norms compute them in float32.
///
/// A text encoder with RMS norms (T5, Gemma) adds all layers up without a normalization between, and the last product of
/// each layer is the first one to overflow: transformers keeps those weights of T5 in float32.
pub fn mark(view: &GraphView<'_>, kind: ComponentKind, selection: &mut Float32Selection) {
    let is_text = kind.text_encoder_number().is_some();
    for (at, mean) in view.source.nodes.iter().enumerate() {
        let is_mean = is(mean, "ReduceMean") || is(mean, "ReduceSum");
        let Some((square_at, square)) = input(mean, 0).and_then(|name| view.origin(name)).filter(|_| is_mean) else {
            continue;
        };
        let Some(base) = input(square, 0).filter(|_| is_square(view, square)) else { continue };
        selection.add(at, reason::NORMS);
        selection.add(square_at, reason::NORMS);
        mark_division(view, mean, selection);
        match view.origin(base) {
            Some((at, node)) if is(node, "Sub") => {
                selection.add(at, reason::NORMS);
                let mean = input(node, 1).and_then(|name| view.origin(name)).filter(|(_, node)| is(node, "ReduceMean"));
                mean.into_iter().for_each(|(at, _)| selection.add(at, reason::NORMS));
            }
            Some((at, node)) if is_text && is(node, "Add") => mark_residual(view, at, node, selection),
            _ => {}
        }
    }
}

fn is_square(view: &GraphView<'_>, node: &NodeProto) -> bool {
    let exponent = || input(node, 1).and_then(|name| view.source.numbers(name, 1)).map(|numbers| numbers.values);
    match node.op_type.as_str() {
        "Pow" => match exponent() {
            Some(Values::Real(values)) => values == [2.0],
            Some(Values::Whole(values)) => values == [2],
            None => false,
        },
        "Mul" => input(node, 0).is_some() && input(node, 0) == input(node, 1),
        _ => false,
    }
}

/// Adds the nodes after a mean of squares, up to the product or quotient with activations.
fn mark_division(view: &GraphView<'_>, mean: &NodeProto, selection: &mut Float32Selection) {
    let mut open: Vec<&NodeProto> = vec![mean];
    while let Some(node) = open.pop() {
        for (at, next) in view.following(node).filter(|(_, next)| BETWEEN.contains(&next.op_type.as_str())) {
            let reads_one = view.variable_inputs(next).count() == 1;
            if reads_one || is(next, "Div") || is(next, "Mul") {
                selection.add(at, reason::NORMS);
            }
            if reads_one {
                open.push(next);
            }
        }
    }
}

/// Adds the sum of a text encoder's layer and what came before it, and the last product of its feed-forward layer.
fn mark_residual(view: &GraphView<'_>, at: usize, sum: &NodeProto, selection: &mut Float32Selection) {
    selection.add(at, reason::RESIDUALS);
    for (at, product) in sum.input.iter().filter_map(|name| view.origin(name)) {
        let is_gated = |(_, node): (usize, &NodeProto)| is(node, "Mul") || is(node, "Relu");
        if view.is_layer(product) && input(product, 0).and_then(|name| view.origin(name)).is_some_and(is_gated) {
            selection.add(at, reason::RESIDUALS);
        }
    }
}
