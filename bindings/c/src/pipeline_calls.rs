//! Pipelines: opening them and running requests.

use std::ffi::{CString, c_char, c_void};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use ldm_ort::engine::pipeline_spec;
use ldm_ort::{Event, InputImage, InputLimit, Overrides, Pipeline, Request, Rgb8, Spec};

use crate::call::{Answer, empty, guarded, hand_out, object, optional_text, release, text};
use crate::engine_calls::{LdmEngine, LdmRun, cancel_of, engine_of};
use crate::event::{LdmObserver, report};
use crate::images::LdmImages;
use crate::status::LdmStatus;

/// An open pipeline: one model or several in a row, ready for requests.
pub struct LdmPipeline {
    /// A call keeps it while it runs, so that releasing the pipeline meanwhile is safe.
    pipeline: Arc<Mutex<Pipeline>>,
    runtime_version: CString,
}

/// An input image of a request in memory.
#[repr(C)]
pub struct LdmInput {
    /// The key of the request that the image is for: `image`, `mask`, `control.0.image`.
    pub key: *const c_char,
    /// The image; copied before the call returns.
    pub data: *const u8,
    pub length: usize,
    /// Width and height in pixels of RGB pixels, rows from the top, three bytes a pixel: `length` = 3 * width * height.
    /// Both 0: `data` is a PNG, JPEG, WebP or BMP file.
    pub width: u32,
    pub height: u32,
}

impl LdmPipeline {
    /// The pipeline, unless it is running.
    fn idle(pipeline: &Mutex<Pipeline>) -> Answer<MutexGuard<'_, Pipeline>> {
        match pipeline.try_lock() {
            Ok(pipeline) => Ok(pipeline),
            Err(TryLockError::WouldBlock) => Err(LdmStatus::argument(
                "pipeline",
                "runs another request\nhint: wait for that call to return, or open a pipeline for each thread",
            )),
            Err(TryLockError::Poisoned(_)) => Err(LdmStatus::internal(
                "a bug ended an earlier call of this pipeline\nhint: release it and open it again",
            )),
        }
    }
}

/// Opens what `read` reads.
///
/// # Safety
/// The pointers are as `LdmApi::pipeline_open` demands.
unsafe fn open(
    engine: *const LdmEngine,
    settings: *const c_char,
    run: *const LdmRun,
    (observer, user): (LdmObserver, *mut c_void),
    opened: *mut *mut LdmPipeline,
    read: impl FnOnce(&Overrides) -> Answer<Spec>,
) -> Answer<()> {
    // SAFETY: as this function demands.
    let (engine, settings, cancel) = unsafe {
        empty("pipeline", opened)?;
        (engine_of(engine)?, optional_text("settings", settings)?, cancel_of(run))
    };
    let overrides = settings.map(Overrides::from_json).transpose()?.unwrap_or_default();
    let mut steps = 0;
    // SAFETY: as this function demands.
    let mut observe = |event: Event| unsafe { report(observer, user, &event, &mut steps) };
    let pipeline = engine.open_spec(read(&overrides)?, &cancel, &mut observe)?;
    let runtime_version = CString::new(pipeline.runtime().version()).unwrap_or_default();
    // SAFETY: as this function demands.
    unsafe { hand_out(opened, LdmPipeline { pipeline: Arc::new(Mutex::new(pipeline)), runtime_version }) };
    Ok(())
}

/// See `LdmApi::pipeline_open`.
pub(crate) unsafe extern "C" fn pipeline_open(
    engine: *const LdmEngine,
    path: *const c_char,
    settings: *const c_char,
    run: *const LdmRun,
    observer: LdmObserver,
    user: *mut c_void,
    opened: *mut *mut LdmPipeline,
) -> *mut LdmStatus {
    guarded(|| {
        // SAFETY: the caller gives what `LdmApi::pipeline_open` demands.
        unsafe {
            open(engine, settings, run, (observer, user), opened, |overrides| {
                Ok(pipeline_spec(text("path", path)?.as_ref(), overrides)?)
            })
        }
    })
}

/// See `LdmApi::pipeline_open_toml`.
pub(crate) unsafe extern "C" fn pipeline_open_toml(
    engine: *const LdmEngine,
    toml: *const c_char,
    settings: *const c_char,
    run: *const LdmRun,
    observer: LdmObserver,
    user: *mut c_void,
    opened: *mut *mut LdmPipeline,
) -> *mut LdmStatus {
    guarded(|| {
        // SAFETY: the caller gives what `LdmApi::pipeline_open_toml` demands.
        unsafe {
            open(engine, settings, run, (observer, user), opened, |overrides| {
                Ok(Spec::parse(text("toml", toml)?, None, overrides)?)
            })
        }
    })
}

/// Reads a request and its images in memory.
///
/// # Safety
/// The pointers are as `LdmApi::pipeline_run` demands.
unsafe fn request_of(request: *const c_char, inputs: *const LdmInput, count: usize) -> Answer<Request> {
    // SAFETY: as this function demands.
    let request = unsafe { optional_text("request", request) }?;
    let mut request = request.map(Request::from_json).transpose()?.unwrap_or_default();
    if count == 0 {
        return Ok(request);
    }
    if inputs.is_null() {
        return Err(LdmStatus::argument("inputs", "is NULL, and its count is not 0"));
    }
    // SAFETY: as this function demands.
    for input in unsafe { std::slice::from_raw_parts(inputs, count) } {
        // SAFETY: as this function demands.
        let key = unsafe { text("inputs.key", input.key) }?;
        // SAFETY: as this function demands.
        let image = unsafe { image_of(key, input) }?;
        request = request.image(key, image);
    }
    Ok(request)
}

/// Copies an image in memory.
///
/// # Safety
/// `input.data` has `input.length` bytes, or is NULL.
unsafe fn image_of(key: &str, input: &LdmInput) -> Answer<InputImage> {
    if input.data.is_null() {
        return Err(LdmStatus::argument(key, "its data is NULL"));
    }
    // SAFETY: as this function demands.
    let data = unsafe { std::slice::from_raw_parts(input.data, input.length) };
    if (input.width, input.height) == (0, 0) {
        let image = Rgb8::decode(data, InputLimit::default());
        return image.map(Into::into).map_err(|error| LdmStatus::argument(key, &error.to_string()));
    }
    let (width, height) = (input.width as usize, input.height as usize);
    let image = Rgb8::new(width, height, data.to_vec()).ok_or_else(|| {
        let problem = format!("expected 3 * {width} * {height} bytes of RGB pixels, found {}", data.len());
        LdmStatus::argument(key, &problem)
    })?;
    Ok(image.into())
}

/// See `LdmApi::pipeline_check`.
pub(crate) unsafe extern "C" fn pipeline_check(
    pipeline: *const LdmPipeline,
    request: *const c_char,
    inputs: *const LdmInput,
    input_count: usize,
) -> *mut LdmStatus {
    guarded(|| {
        // SAFETY: the caller gives what `LdmApi::pipeline_check` demands.
        let (pipeline, request) =
            unsafe { (Arc::clone(&object("pipeline", pipeline)?.pipeline), request_of(request, inputs, input_count)?) };
        Ok(LdmPipeline::idle(&pipeline)?.check(&request)?)
    })
}

/// See `LdmApi::pipeline_run`.
pub(crate) unsafe extern "C" fn pipeline_run(
    pipeline: *const LdmPipeline,
    request: *const c_char,
    inputs: *const LdmInput,
    input_count: usize,
    run: *const LdmRun,
    observer: LdmObserver,
    user: *mut c_void,
    images: *mut *mut LdmImages,
) -> *mut LdmStatus {
    guarded(|| {
        // SAFETY: the caller gives what `LdmApi::pipeline_run` demands.
        let (pipeline, cancel, request) = unsafe {
            empty("images", images)?;
            let pipeline = Arc::clone(&object("pipeline", pipeline)?.pipeline);
            (pipeline, cancel_of(run), request_of(request, inputs, input_count)?)
        };
        let mut made = Vec::new();
        let mut steps = 0;
        LdmPipeline::idle(&pipeline)?.run(&request, &cancel, &mut |event| {
            // SAFETY: as above.
            unsafe { report(observer, user, &event, &mut steps) };
            if let Event::Image(image) = event
                && image.is_final()
            {
                made.push(*image);
            }
        })?;
        let made = LdmImages::new(made)?;
        // SAFETY: as above.
        unsafe { hand_out(images, made) };
        Ok(())
    })
}

/// See `LdmApi::pipeline_runtime_version`.
pub(crate) unsafe extern "C" fn pipeline_runtime_version(pipeline: *const LdmPipeline) -> *const c_char {
    // SAFETY: NULL or a pipeline that is not released.
    unsafe { pipeline.as_ref() }.map_or(c"".as_ptr(), |pipeline| pipeline.runtime_version.as_ptr())
}

/// See `LdmApi::pipeline_release`.
pub(crate) unsafe extern "C" fn pipeline_release(pipeline: *mut LdmPipeline) {
    // SAFETY: NULL or a pipeline from `pipeline_open`, given back once.
    unsafe { release(pipeline) };
}
