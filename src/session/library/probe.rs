//! Whether a file is an ONNX Runtime this program can use.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::{digests, extent, minimum_version};
use crate::files;

/// Loads the library in `path` far enough to ask its version, and returns that.
///
/// The library stays loaded where it can be used, so that ort gets this very copy.
///
/// The error is one phrase that follows the path.
pub(super) fn probe(path: &Path) -> Result<String, String> {
    check_library(path)?;
    let library = load(path)?;
    // SAFETY: every ONNX Runtime since 1.0 exports this function with this signature.
    let api_base = unsafe { library.get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase\0") }
        .map_err(|_| "is a library, but not ONNX Runtime's: it has no OrtGetApiBase".to_string())?;
    // SAFETY: the function takes nothing and returns a pointer to a table that lives as long as the library.
    let base = unsafe { api_base().as_ref() }.ok_or("its OrtGetApiBase returns nothing")?;
    // SAFETY: the table's functions are there in every version; the string is the library's own and ends in NUL.
    let version = unsafe { CStr::from_ptr((base.GetVersionString)()) }.to_string_lossy().into_owned();
    let old = || format!("is version {version}; {} or newer is needed", minimum_version());
    // Asked for an interface it does not have, the library complains on standard error, so its version is looked at
    // first.
    if minor(&version).is_none_or(|minor| minor < ort::MINOR_VERSION) {
        return Err(old());
    }
    // SAFETY: as above.
    if unsafe { (base.GetApi)(ort::MINOR_VERSION) }.is_null() {
        return Err(old());
    }
    std::mem::forget(library);
    Ok(version)
}

/// Requires that a library is for this machine, as long as its headers say, and as it was fetched if it was.
///
/// The error is one phrase that follows the path.
pub(in crate::session) fn check_library(path: &Path) -> Result<(), String> {
    check_header(path)?;
    digests::check(path)
}

/// The minor version of a version `1.x.y`.
fn minor(version: &str) -> Option<u32> {
    let mut parts = version.split('.');
    if parts.next()? != "1" {
        return None;
    }
    parts.next()?.parse().ok()
}

#[cfg(unix)]
fn load(path: &Path) -> Result<libloading::Library, String> {
    // SAFETY: loading runs the library's initialisers. The file was named by the user, fetched with a known digest, or
    // lies where the system keeps its libraries; there is no way to use a library without trusting it this far.
    unsafe { libloading::Library::new(path) }.map_err(|e| format!("cannot be loaded: {}", load_error(&e)))
}

#[cfg(windows)]
fn load(path: &Path) -> Result<libloading::Library, String> {
    use libloading::os::windows::{LOAD_WITH_ALTERED_SEARCH_PATH, Library};
    // The libraries it needs are then looked for beside it, and not only beside the program.
    // SAFETY: loading runs the library's initialisers. The file was named by the user, fetched with a known digest, or
    // lies where the system keeps its libraries; there is no way to use a library without trusting it this far.
    unsafe { Library::load_with_flags(path, LOAD_WITH_ALTERED_SEARCH_PATH) }
        .map(Into::into)
        .map_err(|e| format!("cannot be loaded: {}", load_error(&e)))
}

/// What the system's loader said, without the layers around it.
fn load_error(error: &libloading::Error) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// Looks at the file's first bytes: what a loader says of a file of another system or processor helps nobody.
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

/// Requires that the file is as long as its headers say.
fn check_length(file: &mut File) -> Result<(), String> {
    let found = file.metadata().map_err(|e| format!("cannot be read: {e}"))?.len();
    match extent::described(file) {
        Some(described) if found >= described => Ok(()),
        Some(described) => {
            Err(format!("is cut off: it has {found} bytes, its headers describe {described}; copy or fetch it again"))
        }
        None => Err(format!("is cut off or damaged: it has {found} bytes, and its headers can't be read to their end")),
    }
}

/// The name of the systems that share a format of libraries with this one.
fn family() -> &'static str {
    match std::env::consts::OS {
        "macos" | "ios" => "macos",
        "windows" => "windows",
        _ => "linux",
    }
}

/// System and processor a library is made for; no processor where it holds several or one not told apart here.
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
    fn reads_minor_versions() {
        assert_eq!(minor("1.31.1"), Some(31));
        assert_eq!(minor("1.9.0"), Some(9));
        assert_eq!(minor("2.0.0"), None);
        assert_eq!(minor(""), None);
    }

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

    /// The loader maps a library that is cut off, and the first page that is not there ends the process.
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
            assert!(problem.contains("is cut off"), "{length}: {problem}");
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
