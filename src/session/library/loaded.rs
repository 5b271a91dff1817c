//! Copies of ONNX Runtime that the process already holds, because the program that embeds this library loaded one.

use std::path::PathBuf;

/// The files of all copies found.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn loaded() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut files: Vec<PathBuf> = maps
        .lines()
        // Five columns stand before the file name, which may hold spaces.
        .filter_map(|line| line.find('/').and_then(|at| line.get(at..)))
        .map(PathBuf::from)
        .filter(|path| super::search::is_runtime(path))
        .collect();
    files.dedup();
    files
}

/// The files of all copies found.
#[cfg(target_os = "macos")]
pub(super) fn loaded() -> Vec<PathBuf> {
    use std::ffi::{CStr, OsStr, c_char};
    use std::os::unix::ffi::OsStrExt;
    unsafe extern "C" {
        fn _dyld_image_count() -> u32;
        fn _dyld_get_image_name(index: u32) -> *const c_char;
    }
    // SAFETY: both are part of the system's library. An index past the end, possible when an image goes away between
    // the calls, gives a null pointer; a name given lives as long as its image.
    let names = unsafe {
        (0.._dyld_image_count())
            .map(|i| _dyld_get_image_name(i))
            .filter(|name| !name.is_null())
            .map(|name| PathBuf::from(OsStr::from_bytes(CStr::from_ptr(name).to_bytes())))
            .collect::<Vec<_>>()
    };
    names.into_iter().filter(|path| super::search::is_runtime(path)).collect()
}

/// The files of all copies found.
#[cfg(windows)]
pub(super) fn loaded() -> Vec<PathBuf> {
    use std::ffi::{OsString, c_void};
    use std::os::windows::ffi::OsStringExt;
    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetModuleHandleW(name: *const u16) -> *mut c_void;
        fn GetModuleFileNameW(module: *mut c_void, name: *mut u16, size: u32) -> u32;
    }
    let name: Vec<u16> = "onnxruntime.dll\0".encode_utf16().collect();
    let mut file = vec![0u16; 32768];
    // SAFETY: the name ends in NUL; the buffer is as long as it is said to be; a null handle is not used.
    let length = unsafe {
        let module = GetModuleHandleW(name.as_ptr());
        if module.is_null() { 0 } else { GetModuleFileNameW(module, file.as_mut_ptr(), file.len() as u32) }
    };
    match file.get(..length as usize) {
        Some(name) if length > 0 => vec![PathBuf::from(OsString::from_wide(name))],
        _ => Vec::new(),
    }
}

/// The files of all copies found: on this system there is no known way to ask.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", windows)))]
pub(super) fn loaded() -> Vec<PathBuf> {
    Vec::new()
}
