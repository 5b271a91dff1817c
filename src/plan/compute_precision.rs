//! The precision in which a component's provider computes, and the differences from float32 that it explains.

use super::execution_plan::ExecutionPlan;
use super::opening::Opening;
use crate::kernels::OperandType;
use crate::tensor::DType;

/// The precision of a component's products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputePrecision {
    /// 24 bits.
    Float32,
    /// 11 bits: float16, and TF32, which CUDA's float32 products are by default.
    Half,
    /// 8 bits.
    Bf16,
    /// Integers of 8 bits.
    Int8,
}

/// The largest difference from float32 on the CPU that a precision explains.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Tolerance {
    /// The norm of the difference by the norm of the reference.
    pub relative_l2: f64,
    /// The largest difference by the largest magnitude of the reference.
    pub largest: f64,
}

impl ComputePrecision {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Half => "half",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// The differences that it explains (docs/providers.md has those that were measured).
    pub fn tolerance(self) -> Tolerance {
        let (relative_l2, largest) = match self {
            Self::Float32 => (1e-3, 5e-3),
            Self::Half => (2e-2, 1e-1),
            Self::Bf16 | Self::Int8 => (1e-1, 3e-1),
        };
        Tolerance { relative_l2, largest }
    }
}

impl ExecutionPlan {
    /// The lowest precision in which a component may compute: that of its provider with its options, and that of the
    /// graph's own weights and products.
    pub fn compute_precision(&self, opening: &Opening<'_>) -> ComputePrecision {
        let graph = opening.graph;
        let has_half = graph.weight_types.iter().any(|(dtype, _)| matches!(dtype, DType::F16));
        let has_bf16 = graph.weight_types.iter().any(|(dtype, _)| matches!(dtype, DType::Bf16));
        let of_graph = match () {
            () if graph.multiplies_in_integers() => ComputePrecision::Int8,
            () if self.is_widened(opening.kind) => ComputePrecision::Float32,
            () if has_bf16 => ComputePrecision::Bf16,
            () if has_half => ComputePrecision::Half,
            () => ComputePrecision::Float32,
        };
        let providers = self.device.providers_of(opening.kind).iter();
        let of_providers = providers.map(|name| match name.as_str() {
            "cpu" if self.has_int8(opening.kind) => ComputePrecision::Int8,
            "cpu" if self.operands_of(opening.kind) == Some(OperandType::Bf16) => ComputePrecision::Bf16,
            "cpu" => ComputePrecision::Float32,
            name => {
                let options = self.provider_options(opening.kind, name);
                of_provider(name, |key| options.get(key).map(String::as_str))
            }
        });
        of_providers.fold(of_graph, ComputePrecision::max)
    }
}

/// The precision of a provider other than the CPU with these options.
fn of_provider<'o>(name: &str, option: impl Fn(&str) -> Option<&'o str>) -> ComputePrecision {
    let is_on = |key: &str| option(key).is_some_and(|value| matches!(value, "1" | "true" | "True"));
    let is_off = |key: &str| option(key).is_some_and(|value| matches!(value, "0" | "false" | "False"));
    match name {
        "webgpu" | "directml" | "xnnpack" | "rocm" => ComputePrecision::Float32,
        "cuda" if is_off("use_tf32") => ComputePrecision::Float32,
        "migraphx" if is_on("migraphx_int8_enable") => ComputePrecision::Int8,
        "migraphx" if !is_on("migraphx_fp16_enable") => ComputePrecision::Float32,
        "tensorrt" if is_on("trt_int8_enable") => ComputePrecision::Int8,
        "tensorrt" if is_on("trt_bf16_enable") => ComputePrecision::Bf16,
        // The provider computes in float32 on CPUs, unlike OpenVINO by itself, and in float16 on GPUs and NPUs.
        "openvino" => {
            let told = ["precision", "load_config"].map(|key| option(key).unwrap_or_default().to_ascii_lowercase());
            let says = |names: &[&str]| told.iter().any(|told| names.iter().any(|name| told.contains(name)));
            match () {
                () if says(&["bf16"]) => ComputePrecision::Bf16,
                () if says(&["f16", "fp16"]) => ComputePrecision::Half,
                () if says(&["f32", "fp32", "accuracy"]) => ComputePrecision::Float32,
                () if option("device_type").is_none_or(|device| device == "CPU") => ComputePrecision::Float32,
                () => ComputePrecision::Half,
            }
        }
        // TF32 on NVIDIA's GPUs, float16 on the others.
        _ => ComputePrecision::Half,
    }
}
