//! The functions that Triton calls. No panic crosses into the server.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::Arc;

use crate::execute::execute;
use crate::fault::{Answer, Fault};
use crate::server::{INSTANCE_CPU, Level, Object, check, check_version, error_of, get, log, server};
use crate::state::{Backend, Instance, Model};

/// Makes a call, and returns the server's error of its fault, or NULL.
fn guarded(call: impl FnOnce() -> Answer<()>) -> *mut Object {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => null_mut(),
        Ok(Err(fault)) => error_of(&fault),
        Err(panic) => error_of(&Fault::panic(panic.as_ref())),
    }
}

/// Borrows a state that was set by [`keep`].
///
/// # Safety
/// `get_state` returns NULL or a pointer to a `T` that is not dropped while the answer is used.
unsafe fn state<'s, T>(get_state: impl FnOnce(*mut *mut c_void) -> *mut Object) -> Answer<&'s mut T> {
    let state = get(null_mut(), get_state)?;
    // SAFETY: as this function demands.
    unsafe { state.cast::<T>().as_mut() }.ok_or_else(|| Fault::internal("a state that was not set"))
}

/// Gives a state to the server.
fn keep<T>(state: T, set_state: impl FnOnce(*mut c_void) -> *mut Object) -> Answer<()> {
    let state = Box::into_raw(Box::new(state));
    check(set_state(state.cast())).inspect_err(|_| {
        // SAFETY: the server has not taken it.
        drop(unsafe { Box::from_raw(state) });
    })
}

/// Takes a state back from the server, and drops it.
///
/// # Safety
/// As [`state`], and the state is not used any more.
unsafe fn drop_state<T>(get_state: impl FnOnce(*mut *mut c_void) -> *mut Object) -> Answer<()> {
    let state = get(null_mut(), get_state)?.cast::<T>();
    if !state.is_null() {
        // SAFETY: as this function demands.
        drop(unsafe { Box::from_raw(state) });
    }
    Ok(())
}

/// Loads the library.
///
/// # Safety
/// Triton calls this with a backend.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TRITONBACKEND_Initialize(backend: *mut Object) -> *mut Object {
    guarded(|| {
        check_version()?;
        // SAFETY: as this function demands.
        unsafe { keep(Backend::new(backend)?, |state| (server().backend_set_state)(backend, state)) }
    })
}

/// Drops what `TRITONBACKEND_Initialize` made. The library stays loaded.
///
/// # Safety
/// Triton calls this with a backend whose models are finalized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TRITONBACKEND_Finalize(backend: *mut Object) -> *mut Object {
    // SAFETY: as this function demands.
    guarded(|| unsafe { drop_state::<Backend>(|state| (server().backend_state)(backend, state)) })
}

/// Makes one instance, which is not bound to a GPU, the default: the pipeline's settings name the provider.
///
/// # Safety
/// Triton calls this with the attributes of a backend.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TRITONBACKEND_GetBackendAttribute(_: *mut Object, attributes: *mut Object) -> *mut Object {
    // SAFETY: as this function demands.
    guarded(|| check(unsafe { (server().prefer_instances)(attributes, INSTANCE_CPU, 1, std::ptr::null(), 0) }))
}

/// Reads a model's configuration.
///
/// # Safety
/// Triton calls this with a model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TRITONBACKEND_ModelInitialize(model: *mut Object) -> *mut Object {
    // SAFETY: as this function demands; the backend's state lives longer than its models.
    guarded(|| unsafe {
        let backend = get(null_mut(), |backend| (server().model_backend)(model, backend))?;
        let backend = state::<Backend>(|state| (server().backend_state)(backend, state))?;
        keep(Arc::new(Model::new(model, backend)?), |state| (server().model_set_state)(model, state))
    })
}

/// Drops a model.
///
/// # Safety
/// Triton calls this with a model whose instances are finalized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TRITONBACKEND_ModelFinalize(model: *mut Object) -> *mut Object {
    // SAFETY: as this function demands.
    guarded(|| unsafe { drop_state::<Arc<Model>>(|state| (server().model_state)(model, state)) })
}

/// Opens the pipeline of an instance.
///
/// # Safety
/// Triton calls this with an instance of an initialized model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TRITONBACKEND_ModelInstanceInitialize(instance: *mut Object) -> *mut Object {
    // SAFETY: as this function demands.
    guarded(|| unsafe {
        let model = get(null_mut(), |model| (server().instance_model)(instance, model))?;
        let model = state::<Arc<Model>>(|state| (server().model_state)(model, state))?;
        keep(Instance::new(instance, Arc::clone(model))?, |state| (server().instance_set_state)(instance, state))
    })
}

/// Closes the pipeline of an instance.
///
/// # Safety
/// Triton calls this with an instance that executes nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TRITONBACKEND_ModelInstanceFinalize(instance: *mut Object) -> *mut Object {
    // SAFETY: as this function demands.
    guarded(|| unsafe { drop_state::<Instance>(|state| (server().instance_state)(instance, state)) })
}

/// Answers requests.
///
/// # Safety
/// Triton calls this with an instance, one call at a time, and `count` requests.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn TRITONBACKEND_ModelInstanceExecute(
    instance: *mut Object,
    requests: *const *mut Object,
    count: u32,
) -> *mut Object {
    guarded(|| {
        // SAFETY: as this function demands.
        let (instance, requests) = unsafe {
            let instance = state::<Instance>(|state| (server().instance_state)(instance, state))?;
            let requests = if count == 0 { &[] } else { std::slice::from_raw_parts(requests, count as usize) };
            (instance, requests)
        };
        // From here on the requests are ours: an error would hand them back, also those that are released.
        // SAFETY: as this function demands.
        let executed = catch_unwind(AssertUnwindSafe(|| unsafe { execute(instance, requests) }));
        if executed.is_err() {
            log(Level::Error, "a bug in the backend ldm_ort: requests remain without an answer");
        }
        Ok(())
    })
}
