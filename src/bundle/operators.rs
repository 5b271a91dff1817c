//! Operators that only some providers support.

use super::onnx::{GraphFile, Operator, PACKED};

/// An operator in a graph that most providers do not support.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The operator.
    pub operator: Operator,
    /// The number of its occurrences.
    pub count: usize,
    /// The providers that support it, by their names in pipeline.toml; empty if none is known.
    pub runs_on: &'static [&'static str],
    /// The reason, in a few words.
    pub reason: &'static str,
}

impl Obstacle {
    /// Returns true if this provider cannot run the whole graph.
    pub fn rules_out(&self, provider: &str) -> bool {
        !self.runs_on.contains(&provider)
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {}: {}; ", self.count, self.operator, self.reason)?;
        match self.runs_on {
            [] => f.write_str("no provider is known to support it"),
            names => write!(f, "only {} can run it", names.join(", ")),
        }
    }
}

const FUSED: &str = "a fused operator without a CPU kernel";

/// Operators of `com.microsoft` without a CPU kernel, with the providers known to have one. For the CPU, the list is
/// that of all operators that the official build of ONNX Runtime 1.31.1 defines without registering a kernel
/// (`get_all_operator_schema`, `get_all_opkernel_def` of its Python module); for CUDA and DirectML, it is ONNX
/// Runtime's table of operator kernels.
const FUSED_OPERATORS: &[(&str, &[&str])] = &[
    ("BiasAdd", &["cuda", "rocm", "directml"]),
    ("BiasSplitGelu", &["cuda", "rocm", "directml"]),
    ("GroupNorm", &["cuda", "rocm", "directml"]),
    ("NhwcConv", &["cuda", "rocm", "directml"]),
    ("NhwcFusedConv", &["xnnpack"]),
    ("SkipGroupNorm", &["cuda", "rocm"]),
    ("BiasSoftmax", &["cuda", "rocm"]),
    ("BiasDropout", &["cuda", "rocm"]),
    ("GatedRelativePositionBias", &["cuda", "rocm"]),
    ("RelativePositionBias", &["cuda", "rocm"]),
    ("GemmFastGelu", &["rocm"]),
    ("PackedAttention", &["cuda"]),
    ("PackedMultiHeadAttention", &["cuda"]),
    ("GemmFloat8", &["cuda"]),
    ("QOrderedAttention", &["cuda"]),
    ("QOrderedGelu", &["cuda"]),
    ("QOrderedLayerNormalization", &["cuda"]),
    ("QOrderedMatMul", &["cuda"]),
    ("RemovePadding", &["cuda"]),
    ("RestorePadding", &["cuda"]),
    ("FusedMatMulActivation", &["directml"]),
    ("BitmaskBiasDropout", &["cuda", "rocm"]),
    ("BitmaskDropout", &["cuda", "rocm"]),
    ("ComplexMul", &["cuda", "rocm"]),
    ("ComplexMulConj", &["cuda", "rocm"]),
    ("DecoderAttention", &["cuda", "rocm"]),
    ("DecoderMaskedSelfAttention", &["cuda"]),
    ("DequantizeBFP", &[]),
    ("DequantizeWithOrder", &["cuda"]),
    ("DynamicSparseAttention", &[]),
    ("GatedDeltaNet", &[]),
    ("GemmaRotaryEmbedding", &["cuda"]),
    ("Irfft", &["cuda", "rocm"]),
    ("IsAllFinite", &["cuda", "rocm"]),
    ("LongformerAttention", &["cuda", "rocm"]),
    ("MatMulBlockQuantizedFp4Weight", &[]),
    ("MatMulBlockQuantizedFp8Weight", &[]),
    ("MatMulNBitsMlp", &[]),
    ("MatMulNBitsQkv", &[]),
    ("MulInteger", &[]),
    ("PackedSparseAttentionIndexer", &[]),
    ("PagedAttention", &["cuda"]),
    ("QLinearReduceMean", &[]),
    ("QOrderedLongformerAttention", &["cuda"]),
    ("QuantizeBFP", &[]),
    ("QuantizeWithOrder", &["cuda"]),
    ("ReduceSumInteger", &[]),
    ("Rfft", &["cuda", "rocm"]),
    ("Snpe", &[]),
    ("SparseAttentionIndexer", &[]),
    ("SparsePagedAttention", &[]),
    ("TorchEmbedding", &[]),
    ("VarlenCausalConvWithState", &[]),
];

/// Returns the operators of `com.microsoft` known to have no CPU kernel.
pub fn operators_without_cpu_kernel() -> impl Iterator<Item = &'static str> {
    FUSED_OPERATORS.iter().map(|(name, _)| *name)
}

/// Returns a graph's operators that some providers do not support, sorted by name.
pub fn obstacles(graph: &GraphFile) -> Vec<Obstacle> {
    graph
        .operators
        .iter()
        .filter_map(|(operator, &count)| {
            let (runs_on, reason) = restriction(operator)?;
            Some(Obstacle { operator: operator.clone(), count, runs_on, reason })
        })
        .collect()
}

fn restriction(operator: &Operator) -> Option<(&'static [&'static str], &'static str)> {
    match operator.domain.as_str() {
        "" | "ai.onnx.ml" | "ai.onnx.training" | "ai.onnx.preview.training" => None,
        "com.microsoft" if operator.name == "EPContext" => {
            Some((&["openvino", "qnn", "tensorrt"], "a blob compiled for one provider and device"))
        }
        "com.microsoft" if operator.name == format!("MultiHeadAttention{PACKED}") => {
            Some((&["cuda", "rocm", "directml"], "attention over packed keys and values has no CPU kernel"))
        }
        "com.microsoft" => {
            FUSED_OPERATORS.iter().find(|(name, _)| *name == operator.name).map(|&(_, runs_on)| (runs_on, FUSED))
        }
        "com.microsoft.nchwc" => Some((&["cpu"], "the graph was saved after optimization for one CPU type")),
        "com.microsoft.dml" => Some((&["directml"], "the graph was saved after optimization for DirectML")),
        "com.ms.internal.nhwc" => Some((&[], "the graph was saved after optimization for another provider")),
        "trt.plugins" => Some((&["tensorrt"], "a plugin of TensorRT")),
        _ => Some((&[], "an operator from a separate library")),
    }
}
