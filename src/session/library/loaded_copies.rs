//! Copies of ONNX Runtime already in the process, because the host program loaded one.

use std::path::PathBuf;

/// Returns the files of all copies found.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn loaded_copies() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut files: Vec<PathBuf> = maps
        .lines()
        // Five columns precede the file name, which may contain spaces.
        .filter_map(|line| line.find('/').and_then(|at| line.get(at..)))
        .map(PathBuf::from)
        .filter(|path| super::file_name::is_runtime(path))
        .collect();
    files.dedup();
    files
}

/// Returns the files of all copies found.
#[cfg(target_os = "macos")]
pub(super) fn loaded_copies() -> Vec<PathBuf> {
    use std::ffi::{CStr, OsStr, c_char};
    use std::os::unix::ffi::OsStrExt;
    unsafe extern "C" {
        fn _dyld_image_count() -> u32;
        fn _dyld_get_image_name(index: u32) -> *const c_char;
    }
    // SAFETY: both are part of the system's library. An index past the end, possible if an image is unloaded between
    // the calls, gives a null pointer; a returned name lives as long as its image.
    let names = unsafe {
        (0.._dyld_image_count())
            .map(|i| _dyld_get_image_name(i))
            .filter(|name| !name.is_null())
            .map(|name| PathBuf::from(OsStr::from_bytes(CStr::from_ptr(name).to_bytes())))
            .collect::<Vec<_>>()
    };
    names.into_iter().filter(|path| super::file_name::is_runtime(path)).collect()
}

/// Returns the files of all copies found.
#[cfg(windows)]
pub(super) fn loaded_copies() -> Vec<PathBuf> {
    use std::ffi::{OsString, c_void};
    use std::os::windows::ffi::OsStringExt;
    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetModuleHandleW(name: *const u16) -> *mut c_void;
        fn GetModuleFileNameW(module: *mut c_void, name: *mut u16, size: u32) -> u32;
    }
    let name: Vec<u16> = "onnxruntime.dll\0".encode_utf16().collect();
    let mut file = vec![0u16; 32768];
    // SAFETY: the name ends in NUL, the buffer has the given length, and a null handle is not used.
    let length = unsafe {
        let module = GetModuleHandleW(name.as_ptr());
        if module.is_null() { 0 } else { GetModuleFileNameW(module, file.as_mut_ptr(), file.len() as u32) }
    };
    match file.get(..length as usize) {
        Some(name) if length > 0 => vec![PathBuf::from(OsString::from_wide(name))],
        _ => Vec::new(),
    }
}

/// Returns nothing: this system has no known way to list loaded libraries.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", windows)))]
pub(super) fn loaded_copies() -> Vec<PathBuf> {
    Vec::new()
}

/// Returns the file of the library or program that an address is in.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn module_of(address: *const ()) -> Option<PathBuf> {
    let address = address.addr();
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let ends = range.map(|(from, to)| [from, to].map(|end| usize::from_str_radix(end, 16).unwrap_or(0)));
        ends.is_some_and(|[from, to]| (from..to).contains(&address))
    })?;
    line.find('/').and_then(|at| line.get(at..)).map(PathBuf::from)
}

/// Returns the file of the library or program that an address is in.
#[cfg(target_os = "macos")]
pub(super) fn module_of(address: *const ()) -> Option<PathBuf> {
    use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
    use std::os::unix::ffi::OsStrExt;
    #[repr(C)]
    struct DlInfo {
        file: *const c_char,
        base: *mut c_void,
        symbol: *const c_char,
        symbol_address: *mut c_void,
    }
    unsafe extern "C" {
        fn dladdr(address: *const c_void, info: *mut DlInfo) -> c_int;
    }
    let null = std::ptr::null_mut();
    let mut info = DlInfo { file: null.cast(), base: null, symbol: null.cast(), symbol_address: null };
    // SAFETY: the structure is the one that dladdr fills in; the file's name lives as long as the image.
    unsafe {
        let found = dladdr(address.cast(), &raw mut info) != 0 && !info.file.is_null();
        found.then(|| PathBuf::from(OsStr::from_bytes(CStr::from_ptr(info.file).to_bytes())))
    }
}

/// Returns the file of the library or program that an address is in.
#[cfg(windows)]
pub(super) fn module_of(address: *const ()) -> Option<PathBuf> {
    use std::ffi::{OsString, c_void};
    use std::os::windows::ffi::OsStringExt;
    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetModuleHandleExW(flags: u32, name: *const c_void, module: *mut *mut c_void) -> i32;
        fn GetModuleFileNameW(module: *mut c_void, name: *mut u16, size: u32) -> u32;
    }
    /// By an address, without counting another use.
    const FLAGS: u32 = 0x4 | 0x2;
    let mut module = std::ptr::null_mut();
    let mut file = vec![0u16; 32768];
    // SAFETY: the buffer has the given length, and a handle is used only if one was found.
    let length = unsafe {
        match GetModuleHandleExW(FLAGS, address.cast(), &raw mut module) {
            0 => 0,
            _ => GetModuleFileNameW(module, file.as_mut_ptr(), file.len() as u32),
        }
    };
    file.get(..length as usize).filter(|name| !name.is_empty()).map(|name| PathBuf::from(OsString::from_wide(name)))
}

/// Returns nothing: this system has no known way to find an address's library.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", windows)))]
pub(super) fn module_of(_address: *const ()) -> Option<PathBuf> {
    None
}
