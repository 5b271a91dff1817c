//! Keeps OpenVINO from merging an attention mask with what is added to it (docs/known-issues.md).
//!
//! Exporters make a bias of a mask of zeros and ones: `(1 - mask) · c`, with the least number of float32 as `c`. OpenVINO
//! computes that as `mask · -c + c`, and adds `c` to whatever is added next, such as the relative positions of T5, of which
//! nothing is left beside so large a number. A minimum with zero after the product changes no value of the bias, and is no
//! sum to be merged.

use super::edits::{Edits, node};
use super::facts::TensorFacts;
use super::indexed_graph::{IndexedGraph, input, is, output};
use crate::bundle::proto::NodeProto;
use crate::tensor::DType;

/// The largest `c` that is taken for a mask's: adding it to a number below one leaves nothing of that in float32.
const LEAST: f64 = -1e8;

/// Adds a minimum to every such product, and returns their number.
pub fn rewrite(source: &IndexedGraph<'_>, facts: &TensorFacts, edits: &mut Edits) -> usize {
    let mut sites = 0;
    for (at, product) in source.nodes.iter().enumerate() {
        if !edits.is_replaced(at)
            && let Some(bias) = output(product)
            && is_mask_bias(source, facts, product)
        {
            let merged = edits.name(source, "mask_bias");
            let zero = edits.floats(source, "zero", &[], &[0.0]);
            let minimum = node("Min", &[&merged, &zero], bias, Vec::new());
            edits.replace(at, vec![NodeProto { output: vec![merged], ..product.clone() }, minimum]);
            sites += 1;
        }
    }
    sites
}

/// Returns true for `(1 - mask) · c`.
fn is_mask_bias(source: &IndexedGraph<'_>, facts: &TensorFacts, product: &NodeProto) -> bool {
    let [Some(first), Some(second)] = [0, 1].map(|at| input(product, at)) else { return false };
    let is_inverted = |name: &str| {
        let maker = source.maker(name).filter(|maker| is(maker, "Sub"));
        maker.and_then(|maker| input(maker, 0)).is_some_and(|one| facts.scalar(one) == Some(1.0))
    };
    let is_least = |name: &str| facts.dtype(name) == Some(DType::F32) && facts.scalar(name).is_some_and(|c| c <= LEAST);
    is(product, "Mul") && (is_inverted(first) && is_least(second) || is_least(first) && is_inverted(second))
}
