//! The common part of every call: checks of arguments, and a barrier for panics.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::status::LdmStatus;

pub(crate) type Answer<T> = Result<T, LdmStatus>;

/// Runs a call: NULL for success, else a status. No panic crosses into C.
pub(crate) fn guarded(call: impl FnOnce() -> Answer<()>) -> *mut LdmStatus {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => std::ptr::null_mut(),
        Ok(Err(status)) => status.into_raw(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
            LdmStatus::internal(&format!("a bug in ldm-ort: {text}\nhint: report it with what was called")).into_raw()
        }
    }
}

/// Reads a string that must be there.
///
/// # Safety
/// `text` is NULL or ends in NUL, and lives as long as the answer is used.
pub(crate) unsafe fn text<'a>(name: &str, text: *const c_char) -> Answer<&'a str> {
    // SAFETY: as this function demands.
    match unsafe { optional_text(name, text) }? {
        Some(text) => Ok(text),
        None => Err(LdmStatus::argument(name, "is NULL")),
    }
}

/// Reads a string that may be NULL.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn optional_text<'a>(name: &str, text: *const c_char) -> Answer<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: as this function demands.
    let text = unsafe { CStr::from_ptr(text) }.to_str();
    text.map(Some).map_err(|error| LdmStatus::argument(name, &format!("is not UTF-8: {error}")))
}

/// Borrows an object that must be there.
///
/// # Safety
/// `object` is NULL or points to an object that is not released while the answer is used.
pub(crate) unsafe fn object<'a, T>(name: &str, object: *const T) -> Answer<&'a T> {
    // SAFETY: as this function demands.
    unsafe { object.as_ref() }.ok_or_else(|| LdmStatus::argument(name, "is NULL"))
}

/// Hands an object out, owned by the caller. `place` is set to NULL first by [`empty`].
///
/// # Safety
/// `place` may be written.
pub(crate) unsafe fn hand_out<T>(place: *mut *mut T, object: T) {
    // SAFETY: as this function demands.
    unsafe { *place = Box::into_raw(Box::new(object)) };
}

/// Requires a place for a result, and sets it to NULL.
///
/// # Safety
/// `place` is NULL or may be written.
pub(crate) unsafe fn empty<T>(name: &str, place: *mut *mut T) -> Answer<()> {
    if place.is_null() {
        return Err(LdmStatus::argument(name, "is NULL"));
    }
    // SAFETY: as this function demands.
    unsafe { *place = std::ptr::null_mut() };
    Ok(())
}

/// Drops an object that was handed out.
///
/// # Safety
/// `object` is NULL or came from [`hand_out`], and is given back once.
pub(crate) unsafe fn release<T>(object: *mut T) {
    if !object.is_null() {
        // SAFETY: as this function demands. A panic while something is dropped ends here.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(unsafe { Box::from_raw(object) })));
    }
}
