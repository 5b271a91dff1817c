//! Engines and runs.

use std::ffi::{c_char, c_void};

use engine::{Cancel, Engine, EngineBuilder};

use crate::call::{Answer, empty, guarded, hand_out, object, optional_text, release};
use crate::status::LdmStatus;

/// Opens pipelines. One is enough for a program.
pub struct LdmEngine(pub(crate) Engine);

/// A run that can be cancelled: one for each call that is to be stopped from elsewhere.
pub struct LdmRun(Cancel);

/// The switch of a run; a new one without a run.
///
/// # Safety
/// `run` is NULL or a run that is not released.
pub(crate) unsafe fn cancel_of(run: *const LdmRun) -> Cancel {
    // SAFETY: as this function demands.
    unsafe { run.as_ref() }.map_or_else(Cancel::new, |run| run.0.clone())
}

/// See `LdmApi::engine_create`.
pub(crate) unsafe extern "C" fn engine_create(
    settings: *const c_char,
    ort_api_base: *const c_void,
    created: *mut *mut LdmEngine,
) -> *mut LdmStatus {
    guarded(|| {
        // SAFETY: the caller gives a place for the engine, and strings that end in NUL.
        let settings = unsafe {
            empty("engine", created)?;
            optional_text("settings", settings)?
        };
        let mut builder = match settings {
            Some(settings) => EngineBuilder::from_json(settings)?,
            None => Engine::builder(),
        };
        if !ort_api_base.is_null() {
            // SAFETY: the caller hands over the result of `OrtGetApiBase` of a library that stays loaded.
            builder = unsafe { builder.ort_api(ort_api_base) };
        }
        let engine = builder.build()?;
        // SAFETY: as above.
        unsafe { hand_out(created, LdmEngine(engine)) };
        Ok(())
    })
}

/// See `LdmApi::engine_release`.
pub(crate) unsafe extern "C" fn engine_release(engine: *mut LdmEngine) {
    // SAFETY: NULL or an engine from `engine_create`, given back once.
    unsafe { release(engine) };
}

/// See `LdmApi::run_create`.
pub(crate) unsafe extern "C" fn run_create(created: *mut *mut LdmRun) -> *mut LdmStatus {
    guarded(|| {
        // SAFETY: the caller gives a place for the run.
        unsafe {
            empty("run", created)?;
            hand_out(created, LdmRun(Cancel::new()));
        }
        Ok(())
    })
}

/// See `LdmApi::run_cancel`.
pub(crate) unsafe extern "C" fn run_cancel(run: *const LdmRun) {
    // SAFETY: NULL or a run that is not released. `cancel` allocates nothing and waits for nothing.
    if let Some(run) = unsafe { run.as_ref() } {
        run.0.cancel();
    }
}

/// See `LdmApi::run_release`.
pub(crate) unsafe extern "C" fn run_release(run: *mut LdmRun) {
    // SAFETY: NULL or a run from `run_create`, given back once.
    unsafe { release(run) };
}

/// Borrows an engine.
///
/// # Safety
/// As [`object`].
pub(crate) unsafe fn engine_of<'a>(engine: *const LdmEngine) -> Answer<&'a Engine> {
    // SAFETY: as this function demands.
    unsafe { object("engine", engine) }.map(|engine| &engine.0)
}
