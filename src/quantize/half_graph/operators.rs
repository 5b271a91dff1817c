//! The operators that compute in float32 in a half-precision graph, with the reasons.

use crate::bundle::proto::NodeProto;
use crate::rewrite::indexed_graph::is_own;

/// An operator that stays in float32.
struct Float32Operator {
    names: &'static [&'static str],
    reason: &'static str,
}

/// ONNX's operators that stay in float32 wherever they are.
const FLOAT32: &[Float32Operator] = &[
    Float32Operator {
        names: &["CumSum", "ReduceLogSum", "ReduceLogSumExp", "ReduceL2", "ReduceSumSquare", "ReduceProd"],
        reason: "sums of squares and running sums leave the range of half precision, or lose their last terms",
    },
    Float32Operator {
        names: &["Range", "GridSample", "RoiAlign", "AffineGrid", "MaxRoiPool", "MaxUnpool"],
        reason: "positions beyond 2048 are not exact in half precision",
    },
    Float32Operator {
        names: &["BatchNormalization", "MeanVarianceNormalization", "LpNormalization", "Det"],
        reason: "variances span more than the range of half precision",
    },
    Float32Operator {
        names: &[
            "NonMaxSuppression",
            "DequantizeLinear",
            "QuantizeLinear",
            "DynamicQuantizeLinear",
            "Multinomial",
            "Upsample",
            "DFT",
            "STFT",
            "MelWeightMatrix",
            "HannWindow",
            "HammingWindow",
            "BlackmanWindow",
            "ImageDecoder",
            "StringNormalizer",
            "TfIdfVectorizer",
        ],
        reason: "the operator is defined for float32, or runtimes have it for float32 alone",
    },
    Float32Operator {
        names: &["If", "Loop", "Scan", "SequenceMap"],
        reason: "branches and loop bodies stay as they are",
    },
];

/// The reason for operators of other domains.
const FOREIGN: &str = "operators of other domains have element types of their own";

/// Inputs that are float32 by the operator's definition, by the operator's name.
const FLOAT32_INPUTS: &[(&str, &[usize])] = &[
    // The region of interest and the scales. Sizes computed from scales in half precision are off by a pixel.
    ("Resize", &[1, 2]),
];

/// Operators that only move values: a half-precision copy of what they move is what their result would be.
pub const MOVES: &[&str] = &[
    "Cast",
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "Neg",
    "Pad",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Returns the reason for which a node stays in float32 wherever it is.
pub fn float32_reason(node: &NodeProto) -> Option<&'static str> {
    if !is_own(node) {
        return Some(FOREIGN);
    }
    let is_it = |operator: &&Float32Operator| operator.names.contains(&node.op_type.as_str());
    FLOAT32.iter().find(is_it).map(|operator| operator.reason)
}

/// Returns true if a node's input is float32 by the operator's definition.
pub fn is_float32_input(node: &NodeProto, at: usize) -> bool {
    let is_it = |(name, inputs): &(&str, &[usize])| *name == node.op_type && inputs.contains(&at);
    is_own(node) && FLOAT32_INPUTS.iter().any(is_it)
}
