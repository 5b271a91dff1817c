//! Errors as Python's exceptions.

use std::any::Any;

use ldm_ort::ErrorKind;
use pyo3::exceptions::{PyException, PyMemoryError, PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::{PyErr, create_exception};

create_exception!(ldm_ort, Error, PyException, "The base of the exceptions that Python has no name for.");
create_exception!(ldm_ort, ModelError, Error, "The pipeline file, the model directory or a graph is at fault.");
create_exception!(ldm_ort, ProviderError, Error, "An execution provider or ONNX Runtime's library cannot be used.");
create_exception!(ldm_ort, NonFiniteError, Error, "A tensor has NaN or infinite values; no image was made.");
create_exception!(ldm_ort, Cancelled, Error, "The call was stopped by its `Cancel`.");

/// Converts an error to the exception of its kind.
pub(crate) fn to_python(error: &ldm_ort::Error) -> PyErr {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Request => PyValueError::new_err(text),
        ErrorKind::Pipeline => ModelError::new_err(text),
        ErrorKind::Provider | ErrorKind::Runtime => ProviderError::new_err(text),
        // With a number, Python chooses the exception: FileNotFoundError, PermissionError.
        ErrorKind::Io => match system_code(error) {
            Some(code) => PyOSError::new_err((code, text)),
            None => PyOSError::new_err(text),
        },
        ErrorKind::Memory => PyMemoryError::new_err(text),
        ErrorKind::NonFinite => NonFiniteError::new_err(text),
        ErrorKind::Interrupted => Cancelled::new_err(text),
        _ => PyRuntimeError::new_err(text),
    }
}

/// The number of the operating system's error. On Windows it is another than the C library's, which Python expects.
fn system_code(error: &ldm_ort::Error) -> Option<i32> {
    match error {
        ldm_ort::Error::Io { source, .. } => {
            source.raw_os_error().filter(|_| cfg!(unix)).or_else(|| code_of(source.kind()))
        }
        ldm_ort::Error::Stage { error, .. } => system_code(error),
        _ => None,
    }
}

/// The C library's number of an error, which is the same on all systems.
fn code_of(kind: std::io::ErrorKind) -> Option<i32> {
    use std::io::ErrorKind;
    match kind {
        ErrorKind::NotFound => Some(2),
        ErrorKind::PermissionDenied => Some(13),
        ErrorKind::AlreadyExists => Some(17),
        ErrorKind::StorageFull => Some(28),
        ErrorKind::ReadOnlyFilesystem => Some(30),
        _ => None,
    }
}

/// The exception of a panic.
pub(crate) fn of_panic(panic: &(dyn Any + Send)) -> PyErr {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
    PyRuntimeError::new_err(format!("internal error: {text}\n  hint: report this, with the call and this message"))
}

/// The exception of an object that cannot be pickled, with advice.
pub(crate) fn not_picklable(name: &str, advice: &str) -> PyErr {
    PyTypeError::new_err(format!("cannot pickle '{name}' object\n  hint: {advice}"))
}
