//! `libldm_ort`, loaded at run time: its objects with their lifetimes.

use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::{null, null_mut};

use crate::fault::{Answer, Fault};
use crate::interface::{API_VERSION, GetApi, LdmApi, LdmEvent, LdmInput, Opaque, Status};

/// The library's functions. The library stays loaded until the process ends: it and ONNX Runtime own threads.
#[derive(Clone, Copy)]
pub(crate) struct Library(&'static LdmApi);

/// An image of a request in memory: RGB pixels if `size` is there, else an encoded file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MemoryImage {
    pub key: &'static CStr,
    pub data: Vec<u8>,
    pub size: Option<(u32, u32)>,
}

/// The start of the library's message about an image in memory that it cannot read.
const UNREADABLE_IMAGE: &str = "the image in memory: ";

impl MemoryImage {
    fn view(&self) -> LdmInput {
        let (width, height) = self.size.unwrap_or_default();
        LdmInput { key: self.key.as_ptr(), data: self.data.as_ptr(), length: self.data.len(), width, height }
    }
}

impl Library {
    /// Loads the library from a folder, or from the loader's search path if the folder has none.
    pub(crate) fn load(folder: &Path) -> Answer<Self> {
        let name = libloading::library_filename("ldm_ort");
        let own = folder.join(&name);
        let path = if own.is_file() { own.as_os_str() } else { &name };
        let failed = |problem: &dyn std::fmt::Display| {
            let name = path.display();
            Fault::unavailable(format!(
                "{name}: {problem}\nhint: copy it into the folder of the backend, {}",
                folder.display()
            ))
        };
        // SAFETY: the library of this project, whose initializers only allocate.
        let library = unsafe { libloading::Library::new(path) }.map_err(|error| failed(&error))?;
        // SAFETY: `ldm_get_api` has this type in every version of the library.
        let get_api = unsafe { library.get::<GetApi>(b"ldm_get_api\0") }.map_err(|error| failed(&error))?;
        // SAFETY: the table is NULL or lives as long as the library, which is never unloaded.
        let api = unsafe { get_api(API_VERSION).as_ref() };
        let api = api.ok_or_else(|| failed(&"it is older than this backend"))?;
        std::mem::forget(library);
        Ok(Self(api))
    }

    /// Returns the library's version.
    pub(crate) fn version(self) -> String {
        // SAFETY: the text lives as long as the library.
        unsafe { text((self.0.library_version)()) }
    }

    /// Turns the result of a call into an answer.
    fn check(self, status: *mut Status, is_loading: bool) -> Answer<()> {
        if status.is_null() {
            return Ok(());
        }
        // SAFETY: a status that this call returned, released once.
        unsafe {
            let fault = Fault::of_kind((self.0.status_kind)(status), text((self.0.status_message)(status)), is_loading);
            (self.0.status_release)(status);
            Err(fault)
        }
    }

    /// Creates an engine from JSON settings.
    pub(crate) fn engine(self, settings: Option<&CStr>) -> Answer<Engine> {
        let mut raw = null_mut();
        // SAFETY: `settings` is NULL or ends in NUL, `raw` may be written.
        let status = unsafe { (self.0.engine_create)(pointer(settings), null(), &raw mut raw) };
        self.check(status, true).map(|()| Engine(Owned { raw, release: self.0.engine_release, library: self }))
    }

    /// Creates a run.
    pub(crate) fn run(self) -> Answer<Run> {
        let mut raw = null_mut();
        // SAFETY: `raw` may be written.
        let status = unsafe { (self.0.run_create)(&raw mut raw) };
        self.check(status, false).map(|()| Run(Owned { raw, release: self.0.run_release, library: self }))
    }
}

/// An object that is released when it is dropped.
struct Owned {
    raw: *mut Opaque,
    release: unsafe extern "C" fn(*mut Opaque),
    library: Library,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the object is owned, and released by the function of its type.
        unsafe { (self.release)(self.raw) };
    }
}

/// Opens pipelines.
pub(crate) struct Engine(Owned);

// SAFETY: the interface allows engines on all threads at the same time.
unsafe impl Send for Engine {}
// SAFETY: as above.
unsafe impl Sync for Engine {}

/// A run that can be cancelled from any thread.
pub(crate) struct Run(Owned);

// SAFETY: the interface allows cancelling from all threads; a run is released by its owner alone.
unsafe impl Send for Run {}
// SAFETY: as above.
unsafe impl Sync for Run {}

/// An open pipeline.
pub(crate) struct Pipeline(Owned);

// SAFETY: the interface allows a pipeline on any thread.
unsafe impl Send for Pipeline {}

/// The images of a run.
pub(crate) struct Images(Owned);

/// An image of a run.
pub(crate) struct ImageView<'i> {
    pub width: u32,
    pub height: u32,
    pub seed: u64,
    pub rgb: &'i [u8],
    pub record: &'i [u8],
    images: PhantomData<&'i Images>,
}

impl Engine {
    /// Opens a pipeline file or a model directory. `warn` receives warnings.
    pub(crate) fn open(
        &self,
        path: &CStr,
        settings: Option<&CStr>,
        warn: &mut dyn FnMut(&LdmEvent),
    ) -> Answer<Pipeline> {
        let Owned { raw: engine, library, .. } = &self.0;
        let (library, mut raw, mut observer) = (*library, null_mut(), warn);
        // SAFETY: strings end in NUL, the observer lives until the call returns, `raw` may be written.
        let status = unsafe {
            let (path, settings) = (path.as_ptr(), pointer(settings));
            let user = (&raw mut observer).cast::<c_void>();
            (library.0.pipeline_open)(*engine, path, settings, null(), Some(observe), user, &raw mut raw)
        };
        library.check(status, true)?;
        Ok(Pipeline(Owned { raw, release: library.0.pipeline_release, library }))
    }
}

impl Run {
    pub(crate) fn cancel(&self) {
        // SAFETY: the run is not released.
        unsafe { (self.0.library.0.run_cancel)(self.0.raw) };
    }
}

impl Pipeline {
    /// Returns ONNX Runtime's version.
    pub(crate) fn runtime_version(&self) -> String {
        // SAFETY: the text belongs to the pipeline.
        unsafe { text((self.0.library.0.pipeline_runtime_version)(self.0.raw)) }
    }

    /// Makes the images of a request.
    pub(crate) fn run(
        &mut self,
        request: &CStr,
        inputs: &[MemoryImage],
        run: &Run,
        mut observer: &mut dyn FnMut(&LdmEvent),
    ) -> Answer<Images> {
        let Owned { raw: pipeline, library, .. } = &self.0;
        let (library, mut raw) = (*library, null_mut());
        let views: Vec<_> = inputs.iter().map(MemoryImage::view).collect();
        // SAFETY: everything lives until the call returns, and `raw` may be written.
        let status = unsafe {
            let user = (&raw mut observer).cast::<c_void>();
            let (inputs, count) = (views.as_ptr(), views.len());
            let run = run.0.raw.cast_const();
            (library.0.pipeline_run)(*pipeline, request.as_ptr(), inputs, count, run, Some(observe), user, &raw mut raw)
        };
        library.check(status, false).map_err(|fault| self.named(fault, inputs))?;
        Ok(Images(Owned { raw, release: library.0.images_release, library }))
    }
}

impl Pipeline {
    /// Names the input of an image that cannot be read: the library reports it without its key.
    fn named(&self, fault: Fault, inputs: &[MemoryImage]) -> Fault {
        let Some(problem) = fault.message.strip_prefix(UNREADABLE_IMAGE) else { return fault };
        let is_unreadable = |input: &&MemoryImage| {
            let view = input.view();
            // SAFETY: request and input live until the call returns.
            let status = unsafe { (self.0.library.0.pipeline_check)(self.0.raw, null(), &raw const view, 1) };
            self.0.library.check(status, false).is_err_and(|fault| fault.message.starts_with(UNREADABLE_IMAGE))
        };
        match inputs.iter().find(is_unreadable) {
            Some(input) => Fault { message: format!("{}: {problem}", input.key.to_string_lossy()), ..fault },
            None => fault,
        }
    }
}

impl Images {
    /// Returns the number of images.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: the images are not released.
        unsafe { (self.0.library.0.images_count)(self.0.raw) }
    }

    /// Returns an image.
    pub(crate) fn get(&self, index: usize) -> Answer<ImageView<'_>> {
        // SAFETY: NULL, or an image that lives as long as the images.
        let image = unsafe { (self.0.library.0.images_get)(self.0.raw, index).as_ref() };
        let image = image.ok_or_else(|| Fault::internal(format!("no image {index}")))?;
        // SAFETY: pixels and record belong to the images.
        unsafe {
            let record = if image.record.is_null() { &[] } else { CStr::from_ptr(image.record).to_bytes() };
            Ok(ImageView {
                width: image.width,
                height: image.height,
                seed: image.seed,
                rgb: std::slice::from_raw_parts(image.rgb, image.rgb_length),
                record,
                images: PhantomData,
            })
        }
    }

    /// Encodes an image with its record.
    pub(crate) fn encode(&self, index: usize, format: &CStr, quality: i32) -> Answer<&[u8]> {
        let (mut bytes, mut length) = (null(), 0);
        // SAFETY: the results may be written, the format ends in NUL.
        let status = unsafe {
            let (images, format) = (self.0.raw, format.as_ptr());
            (self.0.library.0.images_encode)(images, index, format, quality, &raw mut bytes, &raw mut length)
        };
        self.0.library.check(status, false)?;
        // SAFETY: the bytes belong to the images.
        Ok(unsafe { std::slice::from_raw_parts(bytes, length) })
    }
}

/// Calls the closure that `user` points to. No panic crosses into the library.
unsafe extern "C" fn observe(event: *const LdmEvent, user: *mut c_void) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `user` is the observer of `Engine::open` or `Pipeline::run`, which lives until that call returns.
        unsafe { (*user.cast::<&mut dyn FnMut(&LdmEvent)>())(&*event) };
    }));
}

fn pointer(text: Option<&CStr>) -> *const std::ffi::c_char {
    text.map_or(null(), CStr::as_ptr)
}

/// Copies a text of the library.
///
/// # Safety
/// `text` is NULL or ends in NUL.
pub(crate) unsafe fn text(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as this function demands.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Copies a text for a call.
pub(crate) fn c_text(name: &str, text: impl Into<Vec<u8>>) -> Answer<CString> {
    CString::new(text).map_err(|_| Fault::invalid(format!("{name}: holds a NUL byte")))
}
