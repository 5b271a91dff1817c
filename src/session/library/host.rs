//! The ONNX Runtime of a host program.

use std::ffi::{CStr, c_void};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use ort::environment::{Environment, EnvironmentBuilder};
use ort::sys::{ORT_API_VERSION, OrtApiBase};

use super::loaded_copies::module_of;
use super::probe::probe;
use super::versions::{is_supported, minimum_version};

/// A host program's own ONNX Runtime.
#[derive(Debug, Clone)]
pub enum Host {
    /// The interface, of a host in any language.
    Api(HostApi),
    /// The environment, of a host that uses the crate `ort` in the version that this crate uses.
    Environment(Environment),
}

impl From<Environment> for Host {
    fn from(environment: Environment) -> Self {
        Self::Environment(environment)
    }
}

impl Host {
    /// Returns the version, or a phrase that follows the path if it cannot be used.
    pub(super) fn version(&self) -> Result<String, String> {
        match self {
            Self::Api(api) => api.version(),
            Self::Environment(_) => probe(&self.path()),
        }
    }

    /// Returns the file that the runtime is in: a library, or the host program.
    pub(super) fn path(&self) -> PathBuf {
        let address = match self {
            Self::Api(api) => api.base().GetApi as *const (),
            Self::Environment(_) => ort::api().CreateEnv as *const (),
        };
        module_of(address).unwrap_or_else(|| PathBuf::from("the host program"))
    }

    /// True if the runtime is in this file.
    pub(super) fn is_in(&self, path: &Path) -> bool {
        let own = self.path();
        own == path || own.canonicalize().is_ok_and(|own| path.canonicalize().is_ok_and(|path| own == path))
    }

    /// Returns the environment, or what creates one, which is then that of the host.
    pub(super) fn environment(&self, path: &Path) -> Result<Result<Environment, EnvironmentBuilder>, String> {
        match self {
            Self::Environment(environment) => Ok(Ok(environment.clone())),
            Self::Api(api) => {
                api.install()?;
                // The registration of some providers looks for the library itself, which a program may be linked with.
                Ok(Err(ort::init_from(path).unwrap_or_else(|_| ort::init())))
            }
        }
    }
}

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

    pub(super) fn base(&self) -> &OrtApiBase {
        // SAFETY: as `new` demands.
        unsafe { self.0.as_ref() }
    }

    /// Returns the version, or a phrase that follows the path if it is too old.
    fn version(&self) -> Result<String, String> {
        // SAFETY: the function exists in every version; the string belongs to the library and ends in NUL.
        let version = unsafe { CStr::from_ptr((self.base().GetVersionString)()) }.to_string_lossy().into_owned();
        match is_supported(&version) {
            true => Ok(version),
            false => Err(format!("is version {version}; expected {} or newer", minimum_version())),
        }
    }

    /// Makes ort use the interface. Its version has been checked.
    fn install(&self) -> Result<(), String> {
        // SAFETY: the version is not older than the one that is asked for, so the table is there and as long as ort's.
        let api = unsafe { (self.base().GetApi)(ORT_API_VERSION).as_ref() }.ok_or("has no such interface")?;
        // SAFETY: the table is plain function pointers.
        match ort::set_api(unsafe { std::ptr::read(api) }) {
            true => Ok(()),
            false => Err("cannot be used, since this process has set up another one".to_owned()),
        }
    }
}
