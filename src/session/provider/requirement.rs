//! Software from elsewhere that providers need: drivers, and the libraries of vendors.

use crate::session::library::load_error;

/// A reason why a provider cannot be used, and the next thing to do, which may be empty.
pub(super) type Obstacle = (String, String);

/// Software that a provider needs and this program does not fetch.
#[derive(Debug)]
pub(super) struct Requirement {
    /// Words by which messages of the system's loader and of the provider name it when it is missing.
    pub words: &'static [&'static str],
    /// The way to get it.
    pub obtain: &'static str,
}

/// The library of a GPU's driver. Without it, nothing else that a provider needs is of use.
#[derive(Debug)]
pub(super) struct Driver {
    /// Its file on Linux.
    pub linux: &'static str,
    /// Its file on Windows; `None` if the provider can do without it there.
    pub windows: Option<&'static str>,
    /// The way to get it.
    pub obtain: &'static str,
}

impl Driver {
    /// Returns the driver's file and the loader's message if it cannot be loaded on this system.
    pub(super) fn missing(&self) -> Option<(&'static str, String)> {
        let file = match std::env::consts::OS {
            "linux" => self.linux,
            "windows" => self.windows?,
            _ => return None,
        };
        // SAFETY: drivers are libraries of the system, whose initializers run in every program that uses the GPU.
        let loaded = unsafe { libloading::Library::new(file) };
        loaded.err().map(|error| (file, load_error(&error)))
    }
}

pub(super) const NVIDIA_DRIVER: Driver = Driver {
    linux: "libcuda.so.1",
    windows: Some("nvcuda.dll"),
    obtain: "install NVIDIA's driver (of 580 or newer, for CUDA 13), and give a container access to the GPU",
};

pub(super) const VULKAN_LOADER: Driver = Driver {
    linux: "libvulkan.so.1",
    // It has Direct3D 12.
    windows: None,
    obtain: "install the Vulkan loader (`apt install libvulkan1`) and the GPU's Vulkan driver",
};

/// NVIDIA's software, the driver first.
pub(super) const NVIDIA: &[Requirement] = &[
    Requirement {
        words: &["libcuda.so", "nvcuda.dll", "CUDA driver version is insufficient", "no CUDA-capable device"],
        obtain: NVIDIA_DRIVER.obtain,
    },
    Requirement {
        words: &["libcudnn", "cudnn64", "cudnn_"],
        obtain: "put the libraries of NVIDIA's cuDNN 9 on the library search path",
    },
    Requirement {
        words: &["libcublas", "libcudart", "libcufft", "libcurand", "libnvrtc", "cublas64", "cudart64", "cufft64"],
        obtain: "put the libraries of NVIDIA's CUDA 13 on the library search path",
    },
    Requirement {
        words: &["libnvinfer", "nvinfer", "libnvonnxparser", "nvonnxparser"],
        obtain: "put the libraries of NVIDIA's TensorRT 10 on the library search path",
    },
];

/// The words of the obstacle of a plugin that finds no device.
pub(super) const NO_DEVICE: &str = "offers no device on this machine";

pub(super) const WEBGPU: &[Requirement] = &[
    Requirement {
        words: &[NO_DEVICE],
        obtain: "install the GPU's driver; without a GPU, a software driver for Vulkan (VK_ICD_FILENAMES names it) runs on \
                 the CPU with ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1",
    },
    Requirement { words: &["libvulkan"], obtain: VULKAN_LOADER.obtain },
];

/// Returns the way to get what a message of a provider says is missing.
pub(super) fn named_in(requirements: &[Requirement], message: &str) -> Option<&'static str> {
    let is_named = |requirement: &&Requirement| requirement.words.iter().any(|words| message.contains(words));
    requirements.iter().find(is_named).map(|requirement| requirement.obtain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_missing_software() {
        for (message, obtain) in [
            ("libcublasLt.so.13: cannot open shared object file", "CUDA 13"),
            ("libcudnn.so.9: cannot open shared object file", "cuDNN 9"),
            ("libcuda.so.1: cannot open shared object file: No such file or directory", "NVIDIA's driver"),
            ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "NVIDIA's driver"),
            ("libnvinfer.so.10: cannot open shared object file", "TensorRT 10"),
        ] {
            let found =
                named_in(NVIDIA, &format!("Failed to load library /x/libonnxruntime_providers_cuda.so: {message}"));
            assert!(found.is_some_and(|found| found.contains(obtain)), "{message}: {found:?}");
        }
        assert_eq!(named_in(NVIDIA, "Invalid device ID: 7"), None);
    }

    #[cfg(any(target_os = "linux", windows))]
    #[test]
    fn a_driver_that_is_not_there_is_missing() {
        let driver = Driver { linux: "libno-such-driver.so.1", windows: Some("no-such-driver.dll"), obtain: "" };
        let (file, message) = driver.missing().unwrap();
        assert!(file.contains("no-such-driver") && message.contains("no-such-driver"), "{file}: {message}");
        let there = Driver { linux: "libc.so.6", windows: Some("kernel32.dll"), obtain: "" };
        assert!(cfg!(target_env = "musl") || there.missing().is_none());
    }
}
