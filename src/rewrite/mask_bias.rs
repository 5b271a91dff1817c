//! Keeps OpenVINO from merging an attention mask with what is added to it (docs/known-issues.md).
//!
//! Exporters make a bias of a mask of zeros and ones: `(1 - mask) · c`, with the least number of float32 as `c`. OpenVINO
//! computes that as `mask · -c + c`, and adds `c` to whatever is added next, such as the relative positions of T5, of which
//! nothing is left beside so large a number. A minimum with zero after the product changes no value of the bias, and is no
//! sum to be merged.

use super::edits::{Edits, node};
use super::facts::TensorFacts;
use super::indexed_graph::{IndexedGraph, input, is, output};
use super::numbers::TensorValues;
use crate::bundle::proto::NodeProto;
use crate::tensor::DType;

/// The largest `c` that is taken for a mask's. Of a number below one, float32 keeps three digits beside -10000, which some
/// exporters write, and nothing beside its least number; half precision keeps nothing beside either.
const LEAST: f64 = -1e3;

/// Adds a minimum to every such product, and returns their number.
pub fn rewrite(source: &IndexedGraph<'_>, facts: &TensorFacts, edits: &mut Edits) -> usize {
    let mut sites = 0;
    for (at, product) in source.nodes.iter().enumerate() {
        if !edits.is_replaced(at)
            && let Some(bias) = output(product)
            && let Some(dtype) = mask_bias(source, facts, product)
        {
            let merged = edits.name(source, "mask_bias");
            let zero = zero(source, edits, dtype);
            let minimum = node("Min", &[&merged, &zero], bias, Vec::new());
            edits.replace(at, vec![NodeProto { output: vec![merged], ..product.clone() }, minimum]);
            sites += 1;
        }
    }
    sites
}

/// Stores a zero of a type, and returns its name.
fn zero(source: &IndexedGraph<'_>, edits: &mut Edits, dtype: DType) -> String {
    let name = edits.name(source, "zero");
    let (data_type, raw_data) = (dtype.to_onnx(), vec![0; if dtype == DType::F16 { 2 } else { 4 }]);
    edits.store_tensor(TensorValues { data_type, name: name.clone(), raw_data, ..TensorValues::default() });
    name
}

/// Returns the type of `(1 - mask) · c`.
fn mask_bias(source: &IndexedGraph<'_>, facts: &TensorFacts, product: &NodeProto) -> Option<DType> {
    let [first, second] = [input(product, 0)?, input(product, 1)?];
    let is_inverted = |name: &str| {
        let maker = source.maker(name).filter(|maker| is(maker, "Sub"));
        maker.and_then(|maker| input(maker, 0)).is_some_and(|one| facts.scalar(one) == Some(1.0))
    };
    let is_least = |name: &str| facts.scalar(name).is_some_and(|c| c <= LEAST);
    let is_bias = is_inverted(first) && is_least(second) || is_least(first) && is_inverted(second);
    let dtype = facts.dtype(first).or(facts.dtype(second))?;
    (is(product, "Mul") && is_bias && matches!(dtype, DType::F32 | DType::F16)).then_some(dtype)
}
