//! The images of a run.

use std::cell::OnceCell;
use std::ffi::{CStr, CString, c_char, c_int};

use ldm_ort::Image;
use ldm_ort::image::ImageFormat;

use crate::call::{Answer, guarded, object, release, text};
use crate::status::LdmStatus;

/// An image: pixels and how they were made.
#[repr(C)]
pub struct LdmImage {
    /// Width and height in pixels.
    pub width: u32,
    pub height: u32,
    /// The index in the request, counted from 0, prompts outermost.
    pub index: usize,
    /// The seed of this image alone; 0 for a preview.
    pub seed: u64,
    /// Rows from the top, three bytes (red, green, blue) a pixel: `rgb_length` = 3 * width * height bytes.
    pub rgb: *const u8,
    pub rgb_length: usize,
    /// The record of how it was made, as JSON; NULL in events.
    pub record: *const c_char,
}

/// The images of a run. They own their pixels, records and encoded bytes.
pub struct LdmImages(Vec<Held>);

struct Held {
    image: Image,
    record: CString,
    view: OnceCell<Box<LdmImage>>,
    /// The bytes that `images_encode` handed out, which live as long as the images.
    encoded: std::sync::Mutex<Vec<Box<[u8]>>>,
}

pub(crate) fn view_of(image: &Image, record: *const c_char) -> LdmImage {
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    LdmImage {
        width: side(image.width()),
        height: side(image.height()),
        index: image.index(),
        seed: image.seed(),
        rgb: image.rgb().as_ptr(),
        rgb_length: image.rgb().len(),
        record,
    }
}

impl LdmImages {
    pub(crate) fn new(images: Vec<Image>) -> Answer<Self> {
        let held = images.into_iter().map(|image| {
            let record =
                serde_json::to_string(&image.record()?).map_err(|error| LdmStatus::internal(&error.to_string()))?;
            let record = CString::new(record).unwrap_or_default();
            Ok(Held { image, record, view: OnceCell::new(), encoded: std::sync::Mutex::default() })
        });
        held.collect::<Answer<_>>().map(Self)
    }
}

/// See `LdmApi::images_count`.
pub(crate) unsafe extern "C" fn images_count(images: *const LdmImages) -> usize {
    // SAFETY: NULL or images that are not released.
    unsafe { images.as_ref() }.map_or(0, |images| images.0.len())
}

/// See `LdmApi::images_get`.
pub(crate) unsafe extern "C" fn images_get(images: *const LdmImages, index: usize) -> *const LdmImage {
    // SAFETY: NULL or images that are not released.
    let held = unsafe { images.as_ref() }.and_then(|images| images.0.get(index));
    held.map_or(std::ptr::null(), |held| {
        &raw const **held.view.get_or_init(|| Box::new(view_of(&held.image, held.record.as_ptr())))
    })
}

/// See `LdmApi::images_encode`.
pub(crate) unsafe extern "C" fn images_encode(
    images: *const LdmImages,
    index: usize,
    format: *const c_char,
    quality: c_int,
    bytes: *mut *const u8,
    length: *mut usize,
) -> *mut LdmStatus {
    guarded(|| {
        if bytes.is_null() || length.is_null() {
            return Err(LdmStatus::argument("bytes, length", "is NULL"));
        }
        // SAFETY: the caller gives places for the result, and images that are not released.
        let (images, format) = unsafe {
            (*bytes, *length) = (std::ptr::null(), 0);
            (object("images", images)?, text("format", format)?)
        };
        let count = images.0.len();
        let held = images.0.get(index).ok_or_else(|| {
            LdmStatus::argument("index", &format!("expected less than {count}, the number of images, found {index}"))
        })?;
        let encoded = held.image.encode(format_of(format, quality)?)?.into_boxed_slice();
        let mut all = held.encoded.lock().map_err(|_| LdmStatus::internal("an earlier encoding failed"))?;
        // SAFETY: as above. The bytes do not move with the vector that owns their box.
        unsafe { (*bytes, *length) = (encoded.as_ptr(), encoded.len()) };
        all.push(encoded);
        Ok(())
    })
}

fn format_of(name: &str, quality: c_int) -> Answer<ImageFormat> {
    let format = ImageFormat::of_extension(name).ok_or_else(|| {
        LdmStatus::argument("format", &format!("expected \"png\", \"jpeg\" or \"webp\", found {name:?}"))
    })?;
    match (format, u8::try_from(quality)) {
        (format, Ok(0)) => Ok(format),
        (ImageFormat::Jpeg(_), Ok(quality @ 1..=100)) => Ok(ImageFormat::Jpeg(quality)),
        (ImageFormat::Jpeg(_), _) => {
            let problem = format!("expected 1 to 100, or 0 for {}, found {quality}", ImageFormat::QUALITY);
            Err(LdmStatus::argument("quality", &problem))
        }
        _ => Err(LdmStatus::argument("quality", &format!("expected 0, since {name} is lossless, found {quality}"))),
    }
}

/// See `LdmApi::images_release`.
pub(crate) unsafe extern "C" fn images_release(images: *mut LdmImages) {
    // SAFETY: NULL or images from `pipeline_run`, given back once.
    unsafe { release(images) };
}

/// The version of this library.
pub(crate) const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};
