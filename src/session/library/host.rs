//! The ONNX Runtime of a host program.

use std::ffi::{CStr, c_void};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use ort::sys::{ORT_API_VERSION, OrtApiBase};

use super::loaded_copies::module_of;
use super::versions::{is_supported, minimum_version};

/// The interface of an ONNX Runtime that the host program has loaded or is linked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostApi(NonNull<OrtApiBase>);

// SAFETY: the table is constant, and its functions may be called from any thread.
unsafe impl Send for HostApi {}
// SAFETY: as above.
unsafe impl Sync for HostApi {}

impl HostApi {
    /// Takes the result of the host's `OrtGetApiBase`; `None` for NULL.
    ///
    /// # Safety
    /// `base` is NULL or a `const OrtApiBase*` of a library that stays loaded until the process ends.
    pub unsafe fn new(base: *const c_void) -> Option<Self> {
        NonNull::new(base.cast_mut().cast()).map(Self)
    }

    fn base(&self) -> &OrtApiBase {
        // SAFETY: as `new` demands.
        unsafe { self.0.as_ref() }
    }

    /// Returns the version, or a phrase that follows the path if it is too old.
    pub(super) fn version(&self) -> Result<String, String> {
        // SAFETY: the function exists in every version; the string belongs to the library and ends in NUL.
        let version = unsafe { CStr::from_ptr((self.base().GetVersionString)()) }.to_string_lossy().into_owned();
        match is_supported(&version) {
            true => Ok(version),
            false => Err(format!("is version {version}; expected {} or newer", minimum_version())),
        }
    }

    /// Returns the file that the interface is in: a library, or the host program.
    pub(super) fn path(&self) -> PathBuf {
        let address = self.base().GetApi as *const ();
        module_of(address).unwrap_or_else(|| PathBuf::from("the host program"))
    }

    /// True if the interface is in this file.
    pub(super) fn is_in(&self, path: &Path) -> bool {
        match (self.path().canonicalize(), path.canonicalize()) {
            (Ok(own), Ok(other)) => own == other,
            _ => false,
        }
    }

    /// Makes ort use the interface. Its version has been checked.
    pub(super) fn install(&self) -> Result<(), String> {
        // SAFETY: the version is not older than the one that is asked for, so the table is there and as long as ort's.
        let api = unsafe { (self.base().GetApi)(ORT_API_VERSION).as_ref() }.ok_or("has no such interface")?;
        // SAFETY: the table is plain function pointers.
        match ort::set_api(unsafe { std::ptr::read(api) }) {
            true => Ok(()),
            false => Err("cannot be used, since this process has set up another one".to_owned()),
        }
    }
}
