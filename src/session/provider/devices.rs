//! The devices that providers offer, as ONNX Runtime reports them.

use std::collections::BTreeMap;
use std::ffi::CStr;

use ort::AsPointer;
use ort::device::Device;
use ort::memory::DeviceType;
use ort::sys::OrtKeyValuePairs;

use super::choice::ort_name;
use crate::byte_size;
use crate::session::library::Runtime;

/// A device on which a provider can run graphs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderDevice {
    /// ONNX Runtime's name of the provider, such as `WebGpuExecutionProvider`.
    pub provider: String,
    /// `CPU`, `GPU` or `NPU`.
    pub kind: &'static str,
    /// The device's vendor, such as `Intel`.
    pub vendor: String,
    /// Everything else that ONNX Runtime and the provider report of it, such as `Description` and `DxgiVideoMemory`.
    pub metadata: BTreeMap<String, String>,
}

impl ProviderDevice {
    pub(super) fn new(device: &Device<'_>) -> Self {
        let hardware = device.hardware_device();
        let kind = match hardware.ty() {
            DeviceType::GPU => "GPU",
            DeviceType::NPU => "NPU",
            _ => "CPU",
        };
        let api = ort::api();
        // SAFETY: both functions return tables that live as long as the device.
        let tables =
            unsafe { [(api.EpDevice_EpMetadata)(device.ptr()), (api.HardwareDevice_Metadata)(hardware.ptr())] };
        Self {
            provider: device.ep().unwrap_or_default().to_owned(),
            kind,
            vendor: hardware.vendor().unwrap_or_default().trim().to_owned(),
            metadata: tables.into_iter().flat_map(pairs).collect(),
        }
    }

    /// Returns the device's name: the one that its provider or ONNX Runtime reports, or else its vendor and kind.
    pub fn name(&self) -> String {
        let reported =
            ["Description", "description", "device_name", "name"].iter().find_map(|key| self.metadata.get(*key));
        match reported.map(|name| name.trim()).filter(|name| !name.is_empty()) {
            Some(name) => format!("{name} ({})", self.kind),
            None => format!("{} {}", self.vendor, self.kind).trim().to_owned(),
        }
    }

    /// Returns the size of its memory, as ONNX Runtime or the provider writes it, if either reports one.
    pub fn memory(&self) -> Option<&str> {
        let is_size = |(key, _): &(&String, &String)| key.to_ascii_lowercase().contains("memory");
        self.metadata.iter().find(is_size).map(|(_, size)| size.as_str())
    }

    /// Returns the size of its memory in bytes, if that can be read from what is reported.
    pub fn memory_bytes(&self) -> Option<u64> {
        let reported = self.memory()?.trim();
        byte_size::parse(reported).or_else(|| reported.parse().ok())
    }

    /// Returns the version of the provider, if it reports one.
    pub fn provider_version(&self) -> Option<&str> {
        self.metadata.get("version").map(String::as_str)
    }
}

/// Reads a table of ONNX Runtime's; none for NULL.
fn pairs(table: *const OrtKeyValuePairs) -> Vec<(String, String)> {
    let (mut keys, mut values, mut count) = (std::ptr::null(), std::ptr::null(), 0);
    if table.is_null() {
        return Vec::new();
    }
    // SAFETY: the table is there; the function fills in its arrays of strings and their length.
    unsafe { (ort::api().GetKeyValuePairs)(table, &raw mut keys, &raw mut values, &raw mut count) };
    if keys.is_null() || values.is_null() {
        return Vec::new();
    }
    // SAFETY: both arrays have this many strings, which end in NUL and live as long as the table.
    let text = |array: *const *const std::ffi::c_char, at| unsafe {
        CStr::from_ptr(*array.add(at)).to_string_lossy().into_owned()
    };
    (0..count).map(|at| (text(keys, at), text(values, at))).collect()
}

impl Runtime {
    /// Returns the name and the bytes of memory of a provider's first device with memory of its own, if they are reported.
    pub fn device_memory(&self, provider: &str) -> Option<(String, u64)> {
        let name = ort_name(provider);
        let devices = self.devices().into_iter().filter(|device| device.provider == name && device.kind != "CPU");
        devices.map(|device| Some((device.name(), device.memory_bytes()?))).next().flatten()
    }

    /// Returns the devices of all providers in this process, those of registered plugin libraries included.
    pub fn devices(&self) -> Vec<ProviderDevice> {
        self.environment().devices().map(|device| ProviderDevice::new(&device)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_memory_are_those_that_are_reported() {
        let device = |kind, metadata: &[(&str, &str)]| ProviderDevice {
            provider: "DmlExecutionProvider".into(),
            kind,
            vendor: "NVIDIA".into(),
            metadata: metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        let plain = device("CPU", &[("version", "1.31.1")]);
        assert_eq!(
            (plain.name().as_str(), plain.memory(), plain.provider_version()),
            ("NVIDIA CPU", None, Some("1.31.1"))
        );
        let card = device("GPU", &[("Description", "NVIDIA GeForce RTX 4090 "), ("DxgiVideoMemory", "24142 MB")]);
        assert_eq!((card.name().as_str(), card.memory()), ("NVIDIA GeForce RTX 4090 (GPU)", Some("24142 MB")));
        assert_eq!((card.memory_bytes(), plain.memory_bytes()), (Some(24_142_000_000), None));
        let counted = device("GPU", &[("memory_bytes", "8589934592")]);
        assert_eq!(counted.memory_bytes(), Some(8 << 30));
    }
}
