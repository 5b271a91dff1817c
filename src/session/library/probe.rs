//! Checks that a file is an ONNX Runtime that this program can use.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::versions::{is_supported, minimum_version};
use super::{digests, extent};
use crate::files;

/// Loads the library in `path` to read its version, and returns that.
///
/// A usable library stays loaded, so that ort gets the same copy.
///
/// The error is one phrase that follows the path.
pub(super) fn probe(path: &Path) -> Result<String, String> {
    check_library(path)?;
    let library = load(path)?;
    // SAFETY: every ONNX Runtime since 1.0 exports this function with this signature.
    let api_base = unsafe { library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0") }
        .map_err(|_| "is a library, but not ONNX Runtime's: it has no OrtGetApiBase".to_string())?;
    // SAFETY: the function takes no arguments and returns a pointer to a table that lives as long as the library.
    let base = unsafe { api_base().as_ref() }.ok_or("its OrtGetApiBase returns nothing")?;
    // SAFETY: the table's functions exist in every version; the string belongs to the library and ends in NUL.
    let version = unsafe { CStr::from_ptr((base.GetVersionString)()) }.to_string_lossy().into_owned();
    let old = || format!("is version {version}; expected {} or newer", minimum_version());
    // The library complains on standard error if asked for an unsupported interface, so its version is checked first.
    if !is_supported(&version) {
        return Err(old());
    }
    // SAFETY: as above.
    if unsafe { (base.GetApi)(ort::MINOR_VERSION) }.is_null() {
        return Err(old());
    }
    std::mem::forget(library);
    Ok(version)
}

/// Checks that a library is for this machine, has the length that its headers describe, and is unchanged if it was
/// fetched.
///
/// The error is one phrase that follows the path.
pub(in crate::session) fn check_library(path: &Path) -> Result<(), String> {
    check_header(path)?;
    digests::check(path)
}

#[cfg(unix)]
pub(super) fn load(path: &Path) -> Result<libloading::Library, String> {
    // SAFETY: loading runs the library's initializers. The user named the file, it was fetched with a known digest, or
    // it is in a system library folder; a library cannot be used without trusting it this far.
    unsafe { libloading::Library::new(path) }.map_err(|e| format!("cannot be loaded: {}", load_error(&e)))
}

#[cfg(windows)]
pub(super) fn load(path: &Path) -> Result<libloading::Library, String> {
    use libloading::os::windows::{LOAD_WITH_ALTERED_SEARCH_PATH, Library};
    // The library's dependencies are then also searched next to it, not only next to the program.
    //
    // SAFETY: loading runs the library's initializers. The user named the file, it was fetched with a known digest, or
    // it is in a system library folder; a library cannot be used without trusting it this far.
    unsafe { Library::load_with_flags(path, LOAD_WITH_ALTERED_SEARCH_PATH) }
        .map(Into::into)
        .map_err(|e| format!("cannot be loaded: {}", load_error(&e)))
}

/// Returns the message of the system's loader, without its wrappers.
pub(in crate::session) fn load_error(error: &libloading::Error) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// Checks the file's first bytes: a loader's message for a file of another system or CPU does not help.
fn check_header(path: &Path) -> Result<(), String> {
    let mut file = files::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_string(),
        _ => format!("cannot be opened: {e}"),
    })?;
    let mut head = [0u8; 64];
    let read = file.read(&mut head).map_err(|e| format!("cannot be read: {e}"))?;
    let head = head.get(..read).unwrap_or_default();
    let mut pe = [0u8; 6];
    if let Some(offset) = head.get(0x3c..0x40).filter(|_| head.starts_with(b"MZ")) {
        let offset = u32::from_le_bytes(offset.try_into().unwrap_or_default());
        let _ = file.seek(SeekFrom::Start(offset.into())).and_then(|_| file.read(&mut pe));
    }
    let (os, arch) = kind(head, pe).ok_or("is not a shared library")?;
    let (this_os, this_arch) = (family(), std::env::consts::ARCH);
    if os != this_os || arch.is_some_and(|arch| arch != this_arch) {
        return Err(format!(
            "is a library for {os} on {}; this program runs on {this_os} on {this_arch}",
            arch.unwrap_or("several CPUs")
        ));
    }
    check_length(&mut file)
}

/// Checks that the file has the length that its headers describe.
fn check_length(file: &mut File) -> Result<(), String> {
    let found = file.metadata().map_err(|e| format!("cannot be read: {e}"))?.len();
    match extent::described(file) {
        Some(described) if found >= described => Ok(()),
        Some(described) => {
            Err(format!("is truncated: it has {found} bytes, its headers describe {described}; copy or fetch it again"))
        }
        None => Err(format!("is truncated or damaged: it has {found} bytes, and its headers are incomplete")),
    }
}

/// Returns the name of the systems that share a library format with this one.
fn family() -> &'static str {
    match std::env::consts::OS {
        "macos" | "ios" => "macos",
        "windows" => "windows",
        _ => "linux",
    }
}

/// Returns the system and the CPU architecture of a library; no architecture if it has several or an unknown one.
fn kind(head: &[u8], pe: [u8; 6]) -> Option<(&'static str, Option<&'static str>)> {
    let two = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    if head.starts_with(b"\x7fELF") {
        let arch = match (head.get(4)?, two(18)?) {
            (2, 0x3e) => "x86_64",
            (2, 0xb7) => "aarch64",
            (1, 0x03) => "x86",
            (1, 0x28) => "arm",
            (2, 0xf3) => "riscv64",
            _ => "another processor",
        };
        return Some(("linux", Some(arch)));
    }
    if head.starts_with(&0xfeed_facf_u32.to_le_bytes()) {
        let arch = match u32::from_le_bytes(head.get(4..8)?.try_into().ok()?) {
            0x0100_0007 => "x86_64",
            0x0100_000c => "aarch64",
            _ => "another processor",
        };
        return Some(("macos", Some(arch)));
    }
    if head.starts_with(&0xcafe_babe_u32.to_be_bytes()) {
        return Some(("macos", None));
    }
    if head.starts_with(b"MZ") && pe.starts_with(b"PE\0\0") {
        let arch = match u16::from_le_bytes([pe[4], pe[5]]) {
            0x8664 => "x86_64",
            0xaa64 => "aarch64",
            0x014c => "x86",
            _ => "another processor",
        };
        return Some(("windows", Some(arch)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_systems_and_processors_apart() {
        let mut elf = [0u8; 64];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        elf[18] = 0xb7;
        assert_eq!(kind(&elf, [0; 6]), Some(("linux", Some("aarch64"))));
        assert_eq!(kind(b"MZ\x90", *b"PE\0\0\x64\x86"), Some(("windows", Some("x86_64"))));
        assert_eq!(kind(b"\xcf\xfa\xed\xfe\x0c\0\0\x01", [0; 6]), Some(("macos", Some("aarch64"))));
        assert_eq!(kind(b"<!DOCTYPE html>", [0; 6]), None);
    }

    #[test]
    fn refuses_what_is_no_library_of_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(super::super::library_file_name("onnxruntime"));
        assert_eq!(probe(&file).unwrap_err(), "does not exist");
        std::fs::write(&file, "<html>").unwrap();
        assert_eq!(probe(&file).unwrap_err(), "is not a shared library");
        let mut elf = [0u8; 64];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        elf[18] = 0xf3;
        std::fs::write(&file, elf).unwrap();
        let problem = probe(&file).unwrap_err();
        assert!(problem.contains("linux on riscv64"), "{problem}");
    }

    /// The loader maps a truncated library, and the first missing page ends the process.
    #[cfg(target_os = "linux")]
    #[test]
    fn refuses_a_library_that_is_cut_off() {
        let system = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = system.lines().filter_map(|l| l.split_whitespace().nth(5)).find(|p| p.contains("libc.so")).unwrap();
        let bytes = std::fs::read(libc).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("libc.so");
        for length in [64, 65, 900, 4096, bytes.len() / 2, bytes.len() - 4096, bytes.len() - 1] {
            std::fs::write(&file, &bytes[..length]).unwrap();
            let problem = probe(&file).unwrap_err();
            assert!(problem.contains("is truncated"), "{length}: {problem}");
        }
        std::fs::write(&file, &bytes).unwrap();
        check_header(&file).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn refuses_another_library() {
        let system = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = system.lines().filter_map(|l| l.split_whitespace().nth(5)).find(|p| p.contains("libc.so")).unwrap();
        let problem = probe(Path::new(libc)).unwrap_err();
        assert!(problem.contains("no OrtGetApiBase"), "{problem}");
    }
}
