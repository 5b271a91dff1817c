//! Builds of ONNX Runtime.

/// A build of ONNX Runtime that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// The CPU (and Core ML on macOS).
    Cpu,
    /// CUDA and TensorRT for NVIDIA GPUs.
    Cuda,
    /// OpenVINO.
    OpenVino,
}

impl Flavor {
    /// All flavors, in order of preference.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::OpenVino];

    /// Returns the name on the command line and in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::OpenVino => "openvino",
        }
    }

    /// Returns the flavor with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }
}

impl std::fmt::Display for Flavor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
