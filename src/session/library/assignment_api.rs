//! The functions of ONNX Runtime that tell which provider has which node. The crate ort is built for 1.22, the oldest
//! supported version, whose table of functions ends before them.
//!
//! They came with 1.24, and left out nodes of half precision that were put on the CPU after the graph had been divided
//! (microsoft/onnxruntime pull request 28268); so they are used from a version on that is known to have the correction.

use std::ffi::c_char;
use std::path::Path;

use ort::sys::{OrtApiBase, OrtEpAssignedNode, OrtEpAssignedSubgraph, OrtSession, OrtStatusPtr};

use super::host::Host;
use super::probe::load;
use super::versions::minor;

/// The version of the interface from which on they are used.
const VERSION: u32 = 31;

/// The place of `Session_GetEpGraphAssignmentInfo` in the table, which ONNX Runtime never changes.
const PLACE: usize = 407;

/// ONNX Runtime's table of functions, as far as they are needed here. A pointer to a list or a name belongs to the session.
#[repr(C)]
pub(in crate::session) struct AssignmentApi {
    _before: [usize; PLACE],
    pub subgraphs: unsafe extern "system" fn(
        *const OrtSession,
        *mut *const *const OrtEpAssignedSubgraph,
        *mut usize,
    ) -> OrtStatusPtr,
    pub provider: unsafe extern "system" fn(*const OrtEpAssignedSubgraph, *mut *const c_char) -> OrtStatusPtr,
    pub nodes: unsafe extern "system" fn(
        *const OrtEpAssignedSubgraph,
        *mut *const *const OrtEpAssignedNode,
        *mut usize,
    ) -> OrtStatusPtr,
    _name_and_domain: [usize; 2],
    pub operator: unsafe extern "system" fn(*const OrtEpAssignedNode, *mut *const c_char) -> OrtStatusPtr,
}

impl AssignmentApi {
    /// Returns the functions of the ONNX Runtime in use; `None` if it is older.
    pub(super) fn find(path: &Path, version: &str, host: Option<&Host>) -> Option<&'static Self> {
        if minor(version)? < VERSION {
            return None;
        }
        if let Some(Host::Api(api)) = host {
            return Self::of_base(api.base());
        }
        let library = load(path).ok()?;
        // SAFETY: every ONNX Runtime since 1.0 exports this function with this signature.
        let base = unsafe { library.get::<unsafe extern "C" fn() -> *const OrtApiBase>(b"OrtGetApiBase\0") }.ok()?;
        // SAFETY: it returns a pointer to a table that lives as long as the library, which ort keeps loaded.
        Self::of_base(unsafe { base().as_ref() }?)
    }

    fn of_base(base: &OrtApiBase) -> Option<&'static Self> {
        // SAFETY: the table of this version has these functions at these places, and lives until the process ends.
        unsafe { (base.GetApi)(VERSION).cast::<Self>().as_ref() }
    }
}
