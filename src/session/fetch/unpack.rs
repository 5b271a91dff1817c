//! Extracts the libraries from a wheel.

use std::fs::File;
use std::io;
use std::path::Path;

/// Copies the shared libraries in the folder `within` of the wheel in `archive` to `folder`, and returns their number.
///
/// All libraries of that folder are copied: ONNX Runtime's own, its providers, and their dependencies. Python's
/// extension module is skipped: nothing here uses it, and it is as large as the rest.
pub(super) fn unpack(archive: File, within: &str, folder: &Path) -> io::Result<usize> {
    let mut archive = zip::ZipArchive::new(io::BufReader::new(archive)).map_err(io::Error::other)?;
    let mut count = 0;
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(io::Error::other)?;
        // The rest of the name has no separator, so it cannot point to another folder.
        let name = match entry.name().map_err(io::Error::other)?.strip_prefix(within) {
            Some(name) if is_library(name) => name.to_string(),
            _ => continue,
        };
        let mut file = File::create_new(folder.join(name))?;
        io::copy(&mut entry, &mut file)?;
        // The folder is renamed after this. After a power loss in between, its files must not be empty.
        file.sync_all()?;
        count += 1;
    }
    Ok(count)
}

/// Returns true for the plain name of a shared library of any system, except Python's extension module.
fn is_library(name: &str) -> bool {
    if name.contains(['/', '\\', ':']) || name.contains("pybind11_state") {
        return false;
    }
    let lower = name.to_ascii_lowercase();
    lower.ends_with(".dll") || lower.ends_with(".dylib") || lower.ends_with(".so") || lower.contains(".so.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_libraries() {
        for name in ["libonnxruntime.so.1.31.1", "onnxruntime.dll", "libonnxruntime.1.31.1.dylib", "libtbb.so.12"] {
            assert!(is_library(name), "{name}");
        }
        for name in [
            "onnxruntime_pybind11_state.cpython-312-x86_64-linux-gnu.so",
            "onnxruntime_pybind11_state.pyd",
            "__init__.py",
            "sub/libx.so",
            "..\\x.dll",
            "c:x.dll",
        ] {
            assert!(!is_library(name), "{name}");
        }
    }
}
