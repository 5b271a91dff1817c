//! The table of functions.

use std::ffi::{c_char, c_int, c_void};

use crate::engine_calls::{LdmEngine, LdmRun, engine_create, engine_release, run_cancel, run_create, run_release};
use crate::event::LdmObserver;
use crate::images::{LdmImage, LdmImages, VERSION, images_count, images_encode, images_get, images_release};
use crate::pipeline_calls::{
    LdmInput, LdmPipeline, pipeline_check, pipeline_open, pipeline_open_toml, pipeline_release, pipeline_run,
    pipeline_runtime_version,
};
use crate::status::{LdmErrorKind, LdmStatus, status_kind, status_message, status_release};

/// The functions of the library. Later versions add functions at the end.
#[repr(C)]
pub struct LdmApi {
    /// The version of this table.
    pub version: u32,

    /// Returns the version of this library, such as "0.1.0". It lives as long as the library.
    pub library_version: unsafe extern "C" fn() -> *const c_char,

    /// Returns the kind of a status; LDM_OK for NULL.
    pub status_kind: unsafe extern "C" fn(status: *const LdmStatus) -> LdmErrorKind,

    /// Returns what is wrong, in one or several lines: the file, key or tensor, what was expected, what was found, and what
    /// to do. It belongs to the status; "" for NULL.
    pub status_message: unsafe extern "C" fn(status: *const LdmStatus) -> *const c_char,

    /// Releases a status; nothing for NULL.
    pub status_release: unsafe extern "C" fn(status: *mut LdmStatus),

    /// Creates an engine, which the caller releases with `engine_release`. Touches no file.
    ///
    /// `settings` is NULL or a JSON object: `runtime` (the path of ONNX Runtime's library), `offline`, `index_url`,
    /// `cache_dir`, `graph_cache`, `graph_cache_size`, `host_threads`. What is absent comes from the environment.
    ///
    /// `ort_api_base` is NULL, or the host's `const OrtApiBase*` (`OrtGetApiBase()`), whose library must stay loaded: its
    /// environment is then the one that pipelines use, and `host_threads` runs their graphs on its global thread pool. The
    /// process's first pipeline decides on the library; a later engine cannot use another.
    pub engine_create: unsafe extern "C" fn(
        settings: *const c_char,
        ort_api_base: *const c_void,
        engine: *mut *mut LdmEngine,
    ) -> *mut LdmStatus,

    /// Releases an engine. Its pipelines remain usable.
    pub engine_release: unsafe extern "C" fn(engine: *mut LdmEngine),

    /// Creates a run, which the caller releases with `run_release` after the call that it was given to has returned.
    pub run_create: unsafe extern "C" fn(run: *mut *mut LdmRun) -> *mut LdmStatus,

    /// Cancels the call that a run was given to, within one node of a graph: it fails with LDM_CANCELLED, and so does every
    /// later call with this run. From any thread and any signal handler.
    pub run_cancel: unsafe extern "C" fn(run: *const LdmRun),

    /// Releases a run.
    pub run_release: unsafe extern "C" fn(run: *mut LdmRun),

    /// Opens a pipeline file or a model directory, and loads ONNX Runtime if the process has not. The caller releases the
    /// pipeline with `pipeline_release`.
    ///
    /// `settings` is NULL or a JSON object with keys of the pipeline file over the file's own: its tables
    /// (`{"device": {"threads": 2}}`), or keys of `[device]` by themselves (`{"provider": "cpu", "threads": 2}`). `run` may
    /// be NULL, and so may `observer`, which is called with `user` on this thread.
    pub pipeline_open: unsafe extern "C" fn(
        engine: *const LdmEngine,
        path: *const c_char,
        settings: *const c_char,
        run: *const LdmRun,
        observer: LdmObserver,
        user: *mut c_void,
        pipeline: *mut *mut LdmPipeline,
    ) -> *mut LdmStatus,

    /// As `pipeline_open`, for the text of a pipeline file. Its paths are relative to the current directory.
    pub pipeline_open_toml: unsafe extern "C" fn(
        engine: *const LdmEngine,
        toml: *const c_char,
        settings: *const c_char,
        run: *const LdmRun,
        observer: LdmObserver,
        user: *mut c_void,
        pipeline: *mut *mut LdmPipeline,
    ) -> *mut LdmStatus,

    /// Returns the version of ONNX Runtime that a pipeline uses, such as "1.31.1". It belongs to the pipeline.
    pub pipeline_runtime_version: unsafe extern "C" fn(pipeline: *const LdmPipeline) -> *const c_char,

    /// Checks a request without running it. Arguments as of `pipeline_run`.
    pub pipeline_check: unsafe extern "C" fn(
        pipeline: *const LdmPipeline,
        request: *const c_char,
        inputs: *const LdmInput,
        input_count: usize,
    ) -> *mut LdmStatus,

    /// Makes the images of a request. The caller releases them with `images_release`.
    ///
    /// `request` is NULL for what the pipeline's file describes, or a JSON object with what differs: tables of a pipeline
    /// file, or flat fields such as `{"prompt": "a lighthouse", "seed": 7, "steps": 20}`. `inputs` are images in memory.
    /// `run` and `observer` may be NULL; `observer` is called with `user` on this thread.
    pub pipeline_run: unsafe extern "C" fn(
        pipeline: *const LdmPipeline,
        request: *const c_char,
        inputs: *const LdmInput,
        input_count: usize,
        run: *const LdmRun,
        observer: LdmObserver,
        user: *mut c_void,
        images: *mut *mut LdmImages,
    ) -> *mut LdmStatus,

    /// Releases a pipeline. If a call of it is running, its memory is released when that returns.
    pub pipeline_release: unsafe extern "C" fn(pipeline: *mut LdmPipeline),

    /// Returns the number of images; 0 for NULL.
    pub images_count: unsafe extern "C" fn(images: *const LdmImages) -> usize,

    /// Returns an image, which belongs to the images; NULL past the last.
    pub images_get: unsafe extern "C" fn(images: *const LdmImages, index: usize) -> *const LdmImage,

    /// Encodes an image with its record. `format` is "png", "jpeg" or "webp" (lossless). `quality` is 1 to 100 for JPEG, 0
    /// for the default of 90 and for the lossless formats. The bytes belong to the images.
    pub images_encode: unsafe extern "C" fn(
        images: *const LdmImages,
        index: usize,
        format: *const c_char,
        quality: c_int,
        bytes: *mut *const u8,
        length: *mut usize,
    ) -> *mut LdmStatus,

    /// Releases images, with everything that belongs to them.
    pub images_release: unsafe extern "C" fn(images: *mut LdmImages),
}

extern "C" fn library_version() -> *const c_char {
    VERSION.as_ptr()
}

const API_VERSION: u32 = 1;

static API: LdmApi = LdmApi {
    version: API_VERSION,
    library_version,
    status_kind,
    status_message,
    status_release,
    engine_create,
    engine_release,
    run_create,
    run_cancel,
    run_release,
    pipeline_open,
    pipeline_open_toml,
    pipeline_runtime_version,
    pipeline_check,
    pipeline_run,
    pipeline_release,
    images_count,
    images_get,
    images_encode,
    images_release,
};

/// Returns the table of functions of a version, 1 up to the library's own; NULL for a version that it does not know. The
/// table lives as long as the library. From any thread.
#[unsafe(no_mangle)]
pub extern "C" fn ldm_get_api(version: u32) -> *const LdmApi {
    match version {
        1..=API_VERSION => &raw const API,
        _ => std::ptr::null(),
    }
}
