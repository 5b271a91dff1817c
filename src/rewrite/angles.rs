//! Sines and cosines of float64 angles in float32 (docs/known-issues.md).
//!
//! Rotary embeddings compute angles in float64, for which ONNX Runtime 1.24, the newest with OpenVINO, has no `Cos`. Whole
//! turns are subtracted in float64, so that what is rounded to float32 is below a half turn: the results are within 3e-7 of
//! those in float64, and are rounded to float32 in any case.

use std::f64::consts::TAU;

use super::edits::{Edits, int, node};
use super::facts::TensorFacts;
use super::indexed_graph::{IndexedGraph, input, is, output};
use super::numbers::TensorValues;
use crate::bundle::proto::NodeProto;
use crate::tensor::DType;

/// Replaces every such node, and returns their number.
pub fn rewrite(source: &IndexedGraph<'_>, facts: &TensorFacts, edits: &mut Edits) -> usize {
    let mut sites = 0;
    for (at, original) in source.nodes.iter().enumerate() {
        let is_angle = |name: &&str| facts.dtype(name) == Some(DType::F64);
        if (is(original, "Cos") || is(original, "Sin"))
            && !edits.is_replaced(at)
            && let (Some(angle), Some(made)) = (input(original, 0).filter(is_angle), output(original))
        {
            let nodes = reduced(source, edits, &original.op_type, angle, made);
            edits.replace(at, nodes);
            sites += 1;
        }
    }
    sites
}

/// Returns nodes that compute `operator` of `angle`: the angle less its nearest number of whole turns, in float32.
fn reduced(source: &IndexedGraph<'_>, edits: &mut Edits, operator: &str, angle: &str, made: &str) -> Vec<NodeProto> {
    let [turn, per_turn, half] = [TAU, TAU.recip(), 0.5].map(|value| scalar(source, edits, value));
    let [turns, shifted, whole, removed, rest, narrow, result] =
        ["turns", "shifted", "whole", "removed", "rest", "narrow", "result"].map(|what| edits.name(source, what));
    let cast = |from: &str, to: &str, dtype: DType| node("Cast", &[from], to, vec![int("to", dtype.to_onnx().into())]);
    vec![
        node("Mul", &[angle, &per_turn], &turns, Vec::new()),
        node("Add", &[&turns, &half], &shifted, Vec::new()),
        node("Floor", &[&shifted], &whole, Vec::new()),
        node("Mul", &[&whole, &turn], &removed, Vec::new()),
        node("Sub", &[angle, &removed], &rest, Vec::new()),
        cast(&rest, &narrow, DType::F32),
        node(operator, &[&narrow], &result, Vec::new()),
        cast(&result, made, DType::F64),
    ]
}

/// Stores a float64 number, and returns its name.
fn scalar(source: &IndexedGraph<'_>, edits: &mut Edits, value: f64) -> String {
    let name = edits.name(source, "number");
    let raw_data = value.to_le_bytes().to_vec();
    let data_type = DType::F64.to_onnx();
    edits.store_tensor(TensorValues { data_type, name: name.clone(), raw_data, ..TensorValues::default() });
    name
}
