//! Errors, as Triton reports them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::interface;

/// The codes of Triton's errors (`TRITONSERVER_Error_Code`).
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Internal = 1,
    InvalidArgument = 3,
    Unavailable = 4,
    Unsupported = 5,
    Cancelled = 7,
}

/// An error with its code and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub code: Code,
    pub message: String,
}

pub(crate) type Answer<T> = Result<T, Fault>;

impl Fault {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, message: message.into() }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { code: Code::Internal, message: message.into() }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self { code: Code::Unavailable, message: message.into() }
    }

    pub(crate) fn cancelled() -> Self {
        Self { code: Code::Cancelled, message: "the request was cancelled".to_owned() }
    }

    /// A panic of the backend.
    pub(crate) fn panic(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        Self::internal(format!("a bug in the backend ldm_ort: {text}"))
    }

    /// A problem of one input of a request.
    pub(crate) fn input(name: &str, problem: impl std::fmt::Display) -> Self {
        Self::invalid(format!("input {name}: {problem}"))
    }

    /// A failed call of the library, by its kind. `is_loading` is true until the pipeline is open: what is wrong with the
    /// model is then an error of the configuration.
    pub(crate) fn of_kind(kind: u32, message: String, is_loading: bool) -> Self {
        let code = match kind {
            interface::INVALID_REQUEST => Code::InvalidArgument,
            interface::INVALID_MODEL if is_loading => Code::InvalidArgument,
            interface::PROVIDER | interface::IO | interface::MEMORY => Code::Unavailable,
            interface::CANCELLED => Code::Cancelled,
            _ => Code::Internal,
        };
        Self { code, message }
    }
}

/// Makes a call whose panic is a fault of its own, so that other requests go on.
pub(crate) fn caught<T>(call: impl FnOnce() -> Answer<T>) -> Answer<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(Fault::panic(panic.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind has the code that docs/triton.md lists; a kind of a later version is internal.
    #[test]
    fn codes_of_kinds() {
        let code = |kind, is_loading| Fault::of_kind(kind, String::new(), is_loading).code;
        assert_eq!(code(interface::INVALID_REQUEST, false), Code::InvalidArgument);
        assert_eq!(code(interface::INVALID_MODEL, true), Code::InvalidArgument);
        assert_eq!(code(interface::INVALID_MODEL, false), Code::Internal);
        assert_eq!(code(interface::PROVIDER, true), Code::Unavailable);
        assert_eq!(code(interface::IO, false), Code::Unavailable);
        assert_eq!(code(interface::MEMORY, false), Code::Unavailable);
        assert_eq!(code(interface::NON_FINITE, false), Code::Internal);
        assert_eq!(code(interface::CANCELLED, false), Code::Cancelled);
        assert_eq!(code(8, false), Code::Internal);
        assert_eq!(code(99, true), Code::Internal);
    }
}
