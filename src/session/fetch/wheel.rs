//! The official packages: one wheel per flavor, system and CPU architecture.
//!
//! A wheel is a zip archive made for Python. The libraries in it do not depend on Python or its version, so one Python
//! tag is enough. The digests are those that the package index states for these files, which never change once
//! published.

use crate::session::Flavor;

/// The version of the builds `cpu` and `cuda` that this program fetches.
pub const PINNED_VERSION: &str = "1.31.1";

/// The newest build with OpenVINO.
const OPENVINO_VERSION: &str = "1.24.1";

/// The newest build with DirectML.
const DIRECTML_VERSION: &str = "1.24.4";

/// The version of the plugin provider for WebGPU, which needs ONNX Runtime 1.24.4 or newer.
const WEBGPU_VERSION: &str = "0.4.0";

/// Returns the version of a flavor's build that this program fetches.
pub(in crate::session) fn pinned_version(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Cpu | Flavor::Cuda => PINNED_VERSION,
        Flavor::OpenVino => OPENVINO_VERSION,
        Flavor::DirectMl => DIRECTML_VERSION,
        Flavor::WebGpu => WEBGPU_VERSION,
    }
}

/// Returns the name of a flavor's project on the package index.
pub(super) fn project(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Cpu => "onnxruntime",
        Flavor::Cuda => "onnxruntime-gpu",
        Flavor::OpenVino => "onnxruntime-openvino",
        Flavor::DirectMl => "onnxruntime-directml",
        Flavor::WebGpu => "onnxruntime-ep-webgpu",
    }
}

/// Returns the folder of a flavor's wheels that contains the libraries, with a final slash.
pub(super) fn folder(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::WebGpu => "onnxruntime_ep_webgpu/",
        _ => "onnxruntime/capi/",
    }
}

/// One file of the package index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wheel<'a> {
    pub flavor: Flavor,
    /// Spelled as in [`std::env::consts::OS`].
    pub os: &'a str,
    /// Spelled as in [`std::env::consts::ARCH`].
    pub arch: &'a str,
    pub file: &'a str,
    /// Lower-case hexadecimal.
    pub sha256: &'a str,
    pub bytes: u64,
}

/// Returns the wheel of a flavor for a system and a CPU architecture, if any.
pub(super) fn wheel(flavor: Flavor, os: &str, arch: &str) -> Option<&'static Wheel<'static>> {
    WHEELS.iter().find(|w| w.flavor == flavor && w.os == os && w.arch == arch)
}

const WHEELS: &[Wheel<'static>] = &[
    Wheel {
        flavor: Flavor::Cpu,
        os: "linux",
        arch: "aarch64",
        file: "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_aarch64.whl",
        sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
        bytes: 21_420_803,
    },
    Wheel {
        flavor: Flavor::Cpu,
        os: "linux",
        arch: "x86_64",
        file: "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl",
        sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
        bytes: 23_760_988,
    },
    Wheel {
        flavor: Flavor::Cpu,
        os: "macos",
        arch: "aarch64",
        file: "onnxruntime-1.31.1-cp312-cp312-macosx_14_0_arm64.whl",
        sha256: "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c",
        bytes: 20_882_125,
    },
    Wheel {
        flavor: Flavor::Cpu,
        os: "windows",
        arch: "aarch64",
        file: "onnxruntime-1.31.1-cp312-cp312-win_arm64.whl",
        sha256: "fe8b9ac1ae8e894e12c47ee82e4f6dfc1835768133687257866469fda80d0bf1",
        bytes: 14_740_724,
    },
    Wheel {
        flavor: Flavor::Cpu,
        os: "windows",
        arch: "x86_64",
        file: "onnxruntime-1.31.1-cp312-cp312-win_amd64.whl",
        sha256: "ae8a9a351efda685cc59a66226cdefaa37a126c1d66872ca23a2de9425326130",
        bytes: 14_888_466,
    },
    Wheel {
        flavor: Flavor::Cuda,
        os: "linux",
        arch: "aarch64",
        file: "onnxruntime_gpu-1.31.1-cp312-cp312-manylinux_2_34_aarch64.whl",
        sha256: "a0f1725c5a6d1ef82d63498b5ebc25e2c90c9560e91dc76db9be4a49162d4d33",
        bytes: 212_341_829,
    },
    Wheel {
        flavor: Flavor::Cuda,
        os: "linux",
        arch: "x86_64",
        file: "onnxruntime_gpu-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl",
        sha256: "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
        bytes: 255_569_273,
    },
    Wheel {
        flavor: Flavor::Cuda,
        os: "windows",
        arch: "x86_64",
        file: "onnxruntime_gpu-1.31.1-cp312-cp312-win_amd64.whl",
        sha256: "2bb1e9373baba88f6415257f5b6a589d23e23c16004f7d89adf4344eada5749e",
        bytes: 168_098_228,
    },
    Wheel {
        flavor: Flavor::OpenVino,
        os: "linux",
        arch: "x86_64",
        file: "onnxruntime_openvino-1.24.1-cp312-cp312-manylinux_2_28_x86_64.whl",
        sha256: "d617fac2f59a6ab5ea59a788c3e1592240a129642519aaeaa774761dfe35150e",
        bytes: 84_433_207,
    },
    Wheel {
        flavor: Flavor::OpenVino,
        os: "windows",
        arch: "x86_64",
        file: "onnxruntime_openvino-1.24.1-cp312-cp312-win_amd64.whl",
        sha256: "f186335a9c9b255633275290da7521d3d4d14c7773fee3127bfa040234d3fa5a",
        bytes: 13_658_075,
    },
    Wheel {
        flavor: Flavor::DirectMl,
        os: "windows",
        arch: "x86_64",
        file: "onnxruntime_directml-1.24.4-cp312-cp312-win_amd64.whl",
        sha256: "f2ecb68b7b7b259d2ef3112ae760149f9b5a1e7c0fbb73d539da6250a648a614",
        bytes: 25_111_930,
    },
    Wheel {
        flavor: Flavor::WebGpu,
        os: "linux",
        arch: "aarch64",
        file: "onnxruntime_ep_webgpu-0.4.0-py3-none-manylinux_2_28_aarch64.whl",
        sha256: "17f660db53b1a509c63e721ac6784a2daa1c4e91a968523ee9986505ee5b0a55",
        bytes: 6_096_222,
    },
    Wheel {
        flavor: Flavor::WebGpu,
        os: "linux",
        arch: "x86_64",
        file: "onnxruntime_ep_webgpu-0.4.0-py3-none-manylinux_2_28_x86_64.whl",
        sha256: "5d8c961eda91a88961cad1fb7621f389f006b18497d6ea9ecf96f729f066cbfb",
        bytes: 6_892_120,
    },
    Wheel {
        flavor: Flavor::WebGpu,
        os: "macos",
        arch: "aarch64",
        file: "onnxruntime_ep_webgpu-0.4.0-py3-none-macosx_14_0_universal2.whl",
        sha256: "8d0a91d44b43d931c3068b9134aed9770f27803e353c2b58c93e1700bb68bcca",
        bytes: 5_200_679,
    },
    Wheel {
        flavor: Flavor::WebGpu,
        os: "windows",
        arch: "aarch64",
        file: "onnxruntime_ep_webgpu-0.4.0-py3-none-win_arm64.whl",
        sha256: "a9586f6744370776059edd794c11bca2f563258a5bd2707864aefff31d3af39f",
        bytes: 14_194_630,
    },
    Wheel {
        flavor: Flavor::WebGpu,
        os: "windows",
        arch: "x86_64",
        file: "onnxruntime_ep_webgpu-0.4.0-py3-none-win_amd64.whl",
        sha256: "7db646669d1a2390551da675115ea125e68cb3d4d2c3a2d6e463372bf8d6ea87",
        bytes: 13_149_847,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wheel_is_of_its_flavors_version_and_has_a_digest() {
        for w in WHEELS {
            let start = format!("{}-{}-", project(w.flavor).replace('-', "_"), pinned_version(w.flavor));
            assert!(w.file.starts_with(&start) && w.file.ends_with(".whl"), "{}", w.file);
            assert!(w.sha256.len() == 64 && w.sha256.bytes().all(|b| b.is_ascii_hexdigit()), "{}", w.file);
            assert_eq!(wheel(w.flavor, w.os, w.arch), Some(w));
        }
    }

    #[test]
    fn chooses_by_flavor_system_and_processor() {
        let file = |flavor, os, arch| wheel(flavor, os, arch).map(|w| w.file);
        assert!(file(Flavor::Cpu, "linux", "x86_64").unwrap().contains("manylinux_2_28_x86_64"));
        assert!(file(Flavor::Cpu, "linux", "aarch64").unwrap().contains("manylinux_2_28_aarch64"));
        assert!(file(Flavor::Cpu, "windows", "x86_64").unwrap().contains("win_amd64"));
        assert!(file(Flavor::Cpu, "windows", "aarch64").unwrap().contains("win_arm64"));
        assert!(file(Flavor::Cpu, "macos", "aarch64").unwrap().contains("macosx_14_0_arm64"));
        assert!(file(Flavor::Cuda, "linux", "x86_64").unwrap().starts_with("onnxruntime_gpu-"));
        assert!(file(Flavor::WebGpu, "windows", "aarch64").unwrap().starts_with("onnxruntime_ep_webgpu-"));
        assert_eq!(file(Flavor::DirectMl, "linux", "x86_64"), None);
        // The last one for Intel Macs was too old.
        assert_eq!(file(Flavor::Cpu, "macos", "x86_64"), None);
        assert_eq!(file(Flavor::Cuda, "macos", "aarch64"), None);
        assert_eq!(file(Flavor::Cpu, "freebsd", "x86_64"), None);
    }
}
