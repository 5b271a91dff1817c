//! Statuses: the results of calls that can fail.

use std::ffi::{CString, c_char};

use ldm_ort::{Error, ErrorKind};

/// The kinds of errors, by cause. Later versions may add kinds.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "the names in C")]
pub enum LdmErrorKind {
    /// No error.
    LDM_OK = 0,
    /// A key, a value or an input of the request, or an argument of the call.
    LDM_INVALID_REQUEST = 1,
    /// The pipeline file, the model directory or a graph.
    LDM_INVALID_MODEL = 2,
    /// An execution provider, or ONNX Runtime's library.
    LDM_PROVIDER = 3,
    /// A file that cannot be read or written.
    LDM_IO = 4,
    /// Insufficient memory.
    LDM_MEMORY = 5,
    /// A tensor with values that are not finite; no image was made.
    LDM_NON_FINITE = 6,
    /// The run was cancelled.
    LDM_CANCELLED = 7,
    /// A bug of the library.
    LDM_INTERNAL = 8,
}

/// The result of a call that failed: a kind and a message.
pub struct LdmStatus {
    kind: LdmErrorKind,
    message: CString,
}

impl LdmStatus {
    fn new(kind: LdmErrorKind, message: &str) -> Self {
        // No message holds NUL but by accident.
        let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
        Self { kind, message }
    }

    pub(crate) fn into_raw(self) -> *mut Self {
        Box::into_raw(Box::new(self))
    }

    /// An argument that cannot be used.
    pub(crate) fn argument(name: &str, problem: &str) -> Self {
        Self::new(LdmErrorKind::LDM_INVALID_REQUEST, &format!("{name}: {problem}"))
    }

    pub(crate) fn internal(problem: &str) -> Self {
        Self::new(LdmErrorKind::LDM_INTERNAL, problem)
    }
}

impl From<Error> for LdmStatus {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Request => LdmErrorKind::LDM_INVALID_REQUEST,
            ErrorKind::Pipeline => LdmErrorKind::LDM_INVALID_MODEL,
            ErrorKind::Provider | ErrorKind::Runtime => LdmErrorKind::LDM_PROVIDER,
            ErrorKind::Io => LdmErrorKind::LDM_IO,
            ErrorKind::Memory => LdmErrorKind::LDM_MEMORY,
            ErrorKind::NonFinite => LdmErrorKind::LDM_NON_FINITE,
            ErrorKind::Interrupted => LdmErrorKind::LDM_CANCELLED,
            _ => LdmErrorKind::LDM_INTERNAL,
        };
        Self::new(kind, &error.to_string())
    }
}

/// See `LdmApi::status_kind`.
pub(crate) unsafe extern "C" fn status_kind(status: *const LdmStatus) -> LdmErrorKind {
    // SAFETY: NULL, or a status that the caller has not released.
    unsafe { status.as_ref() }.map_or(LdmErrorKind::LDM_OK, |status| status.kind)
}

/// See `LdmApi::status_message`.
pub(crate) unsafe extern "C" fn status_message(status: *const LdmStatus) -> *const c_char {
    // SAFETY: NULL, or a status that the caller has not released.
    unsafe { status.as_ref() }.map_or(c"".as_ptr(), |status| status.message.as_ptr())
}

/// See `LdmApi::status_release`.
pub(crate) unsafe extern "C" fn status_release(status: *mut LdmStatus) {
    // SAFETY: NULL, or a status from `into_raw` that the caller gives back once.
    unsafe { crate::call::release(status) };
}
