//! File names of libraries.

use std::path::Path;

/// Returns a library's file name on this system.
pub(in crate::session) fn library_file_name(stem: &str) -> String {
    format!("{}{stem}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// Returns true for the name of ONNX Runtime's own library, versioned or not, and false for its providers.
pub(super) fn is_runtime(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return false };
    let digits = |s: &str| s.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if cfg!(windows) {
        return name.eq_ignore_ascii_case("onnxruntime.dll");
    }
    let Some(rest) = name.strip_prefix("libonnxruntime.") else { return false };
    if cfg!(target_os = "macos") {
        return rest == "dylib" || rest.strip_suffix(".dylib").is_some_and(digits);
    }
    rest == "so" || rest.strip_prefix("so.").is_some_and(digits)
}
