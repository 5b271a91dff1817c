//! Packages of ONNX Runtime.

/// A package that can be fetched: a build of ONNX Runtime, or the library of a plugin provider for a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// The CPU (and Core ML on macOS).
    Cpu,
    /// CUDA and TensorRT for NVIDIA GPUs.
    Cuda,
    /// OpenVINO.
    OpenVino,
    /// DirectML, for DirectX 12 GPUs on Windows.
    DirectMl,
    /// The plugin provider for WebGPU, which runs in the build [`Flavor::Cpu`].
    WebGpu,
}

impl Flavor {
    /// All flavors, in order of preference.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Cuda, Self::OpenVino, Self::DirectMl, Self::WebGpu];

    /// Returns the name on the command line and in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::OpenVino => "openvino",
            Self::DirectMl => "directml",
            Self::WebGpu => "webgpu",
        }
    }

    /// Returns the flavor with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }

    /// Returns true for the library of a plugin provider, which is registered with a build of ONNX Runtime.
    pub fn is_plugin(self) -> bool {
        self == Self::WebGpu
    }

    /// Returns the library that a package of this flavor has and those of other flavors lack, without prefix and
    /// extension; `None` for the CPU, whose libraries all builds have.
    pub(in crate::session) fn own_library(self) -> Option<&'static str> {
        match self {
            Self::Cpu => None,
            Self::Cuda => Some("onnxruntime_providers_cuda"),
            Self::OpenVino => Some("onnxruntime_providers_openvino"),
            Self::DirectMl => Some("DirectML"),
            Self::WebGpu => Some("onnxruntime_providers_webgpu"),
        }
    }
}

impl std::fmt::Display for Flavor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
