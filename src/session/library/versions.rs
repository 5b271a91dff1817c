//! Supported versions of ONNX Runtime.

/// Returns the oldest version of ONNX Runtime that this program supports.
pub fn minimum_version() -> String {
    format!("1.{}", ort::MINOR_VERSION)
}
