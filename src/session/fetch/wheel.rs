//! The official builds: one wheel per flavor, system and CPU architecture.
//!
//! A wheel is a zip archive made for Python. The libraries in it do not depend on Python or its version, so one Python
//! tag is enough. The digests are those that the package index states for these files, which never change once
//! published.

use crate::session::Flavor;

/// The version of the builds `cpu` and `cuda` that this program fetches.
pub const PINNED_VERSION: &str = "1.31.1";

/// The newest build with OpenVINO.
const OPENVINO_VERSION: &str = "1.24.1";

/// Returns the version of a flavor's build that this program fetches.
pub(in crate::session) fn pinned_version(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Cpu | Flavor::Cuda => PINNED_VERSION,
        Flavor::OpenVino => OPENVINO_VERSION,
    }
}

/// Returns the name of a flavor's project on the package index.
pub(super) fn project(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Cpu => "onnxruntime",
        Flavor::Cuda => "onnxruntime-gpu",
        Flavor::OpenVino => "onnxruntime-openvino",
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
        // The last one for Intel Macs was too old.
        assert_eq!(file(Flavor::Cpu, "macos", "x86_64"), None);
        assert_eq!(file(Flavor::Cuda, "macos", "aarch64"), None);
        assert_eq!(file(Flavor::Cpu, "freebsd", "x86_64"), None);
    }
}
