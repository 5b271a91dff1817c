//! The table of execution providers.

use ort::ep::{self, ExecutionProvider};
use ort::session::builder::SessionBuilder;

use super::option_names;
use super::register::{self, ProviderOptions};
use super::requirement::{self, Driver, Requirement};
use crate::session::Flavor;

/// One row of the table of execution providers.
#[derive(Debug)]
pub struct Provider {
    /// The name in pipeline.toml.
    pub name: &'static str,
    /// Its other names.
    pub aliases: &'static [&'static str],
    /// ONNX Runtime's own name.
    pub ort_name: &'static str,
    /// One sentence for `ldm-ort list providers`.
    pub about: &'static str,
    /// The operating systems that support it, spelled as in [`std::env::consts::OS`]; empty means all.
    pub systems: &'static [&'static str],
    /// The libraries that it needs next to ONNX Runtime's own, without prefix and extension; empty if the provider is
    /// part of ONNX Runtime's library.
    pub libraries: &'static [&'static str],
    /// The package that includes it, if this program can fetch one.
    pub flavor: Option<Flavor>,
    /// Installation instructions.
    pub obtain: &'static str,
    /// The options that it takes, if it ignores all others without a message; empty if it refuses them itself.
    pub options: &'static [&'static str],
    /// The driver that it needs.
    pub(super) driver: Option<&'static Driver>,
    /// The software that its messages can name as missing.
    pub(super) requirements: &'static [Requirement],
    /// ONNX Runtime's name of the memory that its tensors are in, if that is not the host's.
    pub(in crate::session) memory: Option<&'static str>,
    /// True if it compiles graphs for the lengths of their axes, which are fixed for it.
    pub(crate) compiles: bool,
    /// Returns true if the loaded ONNX Runtime was built with it.
    pub(super) is_built_in: fn() -> ort::Result<bool>,
    /// Registers it with a session's options.
    pub(super) register: fn(&mut SessionBuilder, &ProviderOptions) -> ort::Result<()>,
}

impl Provider {
    /// Returns true if this operating system supports it.
    pub fn exists_here(&self) -> bool {
        self.systems.is_empty() || self.systems.contains(&std::env::consts::OS)
    }

    /// Returns true if its tensors are not in the host's memory.
    pub fn has_own_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Returns true if it runs graphs whose tensors are bfloat16.
    pub fn takes_bfloat16(&self) -> bool {
        matches!(self.name, "cuda" | "tensorrt" | "nvrtx" | "rocm" | "migraphx")
    }

    /// Returns true for an option that the provider would ignore without a message.
    pub fn ignores(&self, option: &str) -> bool {
        !self.options.is_empty() && !self.options.contains(&option)
    }
}

const DESKTOP: &[&str] = &["linux", "windows"];

/// All execution providers this program can register, in the order of `ldm-ort list providers`.
pub const PROVIDERS: &[Provider] = &[
    Provider {
        name: "cpu",
        aliases: &[],
        ort_name: "CPUExecutionProvider",
        about: "the CPU; part of every build of ONNX Runtime",
        systems: &[],
        libraries: &[],
        flavor: Some(Flavor::Cpu),
        obtain: "`ldm-ort runtime install cpu`",
        options: &[],
        driver: None,
        requirements: &[],
        memory: None,
        compiles: false,
        is_built_in: || Ok(true),
        register: register::nothing,
    },
    Provider {
        name: "cuda",
        aliases: &["nvidia"],
        ort_name: "CUDAExecutionProvider",
        about: "NVIDIA GPUs through CUDA and cuDNN",
        systems: DESKTOP,
        libraries: &["onnxruntime_providers_cuda"],
        flavor: Some(Flavor::Cuda),
        obtain: "`ldm-ort runtime install cuda`, and CUDA 13 and cuDNN 9 from NVIDIA on the library search path",
        options: &[],
        driver: Some(&requirement::NVIDIA_DRIVER),
        requirements: requirement::NVIDIA,
        memory: Some("Cuda"),
        compiles: false,
        is_built_in: ep::CUDA::is_available,
        register: register::with_arena::<ep::CUDA>,
    },
    Provider {
        name: "tensorrt",
        aliases: &["trt"],
        ort_name: "TensorrtExecutionProvider",
        about: "NVIDIA GPUs through TensorRT, which compiles the graph when it is opened",
        systems: DESKTOP,
        libraries: &["onnxruntime_providers_tensorrt"],
        flavor: Some(Flavor::Cuda),
        obtain: "`ldm-ort runtime install cuda`, and CUDA 13, cuDNN 9 and TensorRT 10 from NVIDIA on the library search path",
        options: &[],
        driver: Some(&requirement::NVIDIA_DRIVER),
        requirements: requirement::NVIDIA,
        memory: Some("Cuda"),
        compiles: true,
        is_built_in: ep::TensorRT::is_available,
        register: register::by_name::<ep::TensorRT>,
    },
    Provider {
        name: "nvrtx",
        aliases: &["tensorrt-rtx", "nv-tensorrt-rtx"],
        ort_name: "NvTensorRTRTXExecutionProvider",
        about: "NVIDIA RTX GPUs through TensorRT for RTX",
        systems: DESKTOP,
        libraries: &["onnxruntime_providers_nv_tensorrt_rtx"],
        flavor: None,
        obtain: "a build of ONNX Runtime with TensorRT for RTX, given with `--runtime`, and NVIDIA's TensorRT for RTX",
        options: &[],
        driver: Some(&requirement::NVIDIA_DRIVER),
        requirements: requirement::NVIDIA,
        memory: Some("Cuda"),
        compiles: true,
        is_built_in: ep::NVRTX::is_available,
        register: register::by_name::<ep::NVRTX>,
    },
    Provider {
        name: "directml",
        aliases: &["dml"],
        ort_name: "DmlExecutionProvider",
        about: "any DirectX 12 GPU on Windows",
        systems: &["windows"],
        libraries: &[],
        flavor: Some(Flavor::DirectMl),
        obtain: "`ldm-ort runtime install directml`",
        options: &[],
        driver: None,
        requirements: &[],
        memory: Some("DML"),
        compiles: false,
        is_built_in: ep::DirectML::is_available,
        register: register::directml,
    },
    Provider {
        name: "openvino",
        aliases: &[],
        ort_name: "OpenVINOExecutionProvider",
        about: "Intel CPUs, GPUs and NPUs through OpenVINO",
        systems: DESKTOP,
        libraries: &["onnxruntime_providers_openvino"],
        flavor: Some(Flavor::OpenVino),
        obtain: "`ldm-ort runtime install openvino`, and on Windows OpenVINO itself on the PATH",
        options: &[],
        driver: None,
        requirements: &[],
        memory: None,
        compiles: true,
        is_built_in: ep::OpenVINO::is_available,
        register: register::by_name::<ep::OpenVINO>,
    },
    Provider {
        name: "coreml",
        aliases: &["apple"],
        ort_name: "CoreMLExecutionProvider",
        about: "Apple's CPUs, GPUs and neural engines through Core ML",
        systems: &["macos", "ios"],
        libraries: &[],
        flavor: Some(Flavor::Cpu),
        obtain: "`ldm-ort runtime install cpu` on macOS: the official build includes it",
        options: &[],
        driver: None,
        requirements: &[],
        memory: None,
        compiles: false,
        is_built_in: ep::CoreML::is_available,
        register: register::by_name::<ep::CoreML>,
    },
    Provider {
        name: "webgpu",
        aliases: &[],
        ort_name: "WebGpuExecutionProvider",
        about: "any GPU with Vulkan, Metal or Direct3D 12, through Dawn",
        systems: &[],
        libraries: &[],
        flavor: Some(Flavor::WebGpu),
        obtain: "`ldm-ort runtime install webgpu`, and the GPU's driver for Vulkan, Metal or Direct3D 12",
        options: option_names::WEBGPU,
        driver: Some(&requirement::VULKAN_LOADER),
        requirements: requirement::WEBGPU,
        memory: Some("WebGPU_Buf"),
        compiles: true,
        is_built_in: ep::WebGPU::is_available,
        register: register::by_name::<ep::WebGPU>,
    },
    Provider {
        name: "migraphx",
        aliases: &["amd"],
        ort_name: "MIGraphXExecutionProvider",
        about: "AMD GPUs through MIGraphX",
        systems: DESKTOP,
        libraries: &["onnxruntime_providers_migraphx"],
        flavor: None,
        obtain: "AMD's build of ONNX Runtime with MIGraphX, given with `--runtime`, and ROCm",
        options: &[],
        driver: None,
        requirements: &[],
        memory: Some("Hip"),
        compiles: true,
        is_built_in: ep::MIGraphX::is_available,
        register: register::migraphx,
    },
    Provider {
        name: "rocm",
        aliases: &[],
        ort_name: "ROCMExecutionProvider",
        about: "AMD GPUs through ROCm; removed in ONNX Runtime 1.23 in favor of migraphx",
        systems: &["linux"],
        libraries: &["onnxruntime_providers_rocm"],
        flavor: None,
        obtain: "AMD's build of ONNX Runtime 1.22 with ROCm, given with `--runtime`; or use migraphx",
        options: &[],
        driver: None,
        requirements: &[],
        memory: Some("Hip"),
        compiles: false,
        is_built_in: ep::ROCm::is_available,
        register: register::with_arena::<ep::ROCm>,
    },
    Provider {
        name: "xnnpack",
        aliases: &[],
        ort_name: "XnnpackExecutionProvider",
        about: "CPUs, mainly of phones, through XNNPACK",
        systems: &[],
        libraries: &[],
        flavor: None,
        obtain: "a build of ONNX Runtime with XNNPACK, given with `--runtime`",
        options: option_names::XNNPACK,
        driver: None,
        requirements: &[],
        memory: None,
        compiles: false,
        is_built_in: ep::XNNPACK::is_available,
        register: register::by_name::<ep::XNNPACK>,
    },
    Provider {
        name: "qnn",
        aliases: &["qualcomm"],
        ort_name: "QNNExecutionProvider",
        about: "Qualcomm's NPUs",
        systems: &["windows", "linux", "android"],
        libraries: &["onnxruntime_providers_qnn"],
        flavor: None,
        obtain: "the plugin of Qualcomm's package onnxruntime-qnn, given with `--provider-library`",
        options: option_names::QNN,
        driver: None,
        requirements: &[],
        memory: None,
        compiles: true,
        is_built_in: ep::QNN::is_available,
        register: register::by_name::<ep::QNN>,
    },
];
