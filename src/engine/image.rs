//! Finished images.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::ArrayViewD;

use super::recorder::Recorder;
use crate::denoise::DeviceCopies;
use crate::error::{Error, Result};
use crate::execution::FinishedImage;
use crate::image::{ImageFormat, Rgb8, encode_as, save_png};
use crate::metadata::Record;

/// A finished image and the record of how it was made.
#[derive(Clone)]
pub struct Image {
    made: FinishedImage,
    recorder: Arc<Mutex<Recorder>>,
    is_final: bool,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (index, seed) = (self.index(), self.seed());
        f.debug_struct("Image").field("index", &index).field("seed", &seed).finish_non_exhaustive()
    }
}

impl Image {
    pub(super) fn new(made: FinishedImage, recorder: Arc<Mutex<Recorder>>, is_final: bool) -> Self {
        Self { made, recorder, is_final }
    }

    /// The index in the request, counted from 0, prompts outermost.
    pub fn index(&self) -> usize {
        self.made.index
    }

    /// The seed of this image alone.
    pub fn seed(&self) -> u64 {
        self.made.seed
    }

    /// The prompt; empty for a task without prompts.
    pub fn prompt(&self) -> &str {
        &self.made.prompt
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.made.pixels.width()
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.made.pixels.height()
    }

    /// The pixels: rows from the top, three bytes (red, green, blue) a pixel.
    pub fn rgb(&self) -> &[u8] {
        self.made.pixels.data()
    }

    /// The pixels as an image.
    pub fn pixels(&self) -> &Rgb8 {
        &self.made.pixels
    }

    /// The final latents `[c, h/f, w/f]`, float32, before the division by the scaling factor.
    pub fn latents(&self) -> ArrayViewD<'_, f32> {
        self.made.latents.view()
    }

    /// Seconds from the start of its batch to its pixels, with its share of the batch's denoising.
    pub fn seconds(&self) -> f64 {
        self.made.seconds
    }

    /// Calls of the denoiser, of all stages.
    pub fn calls(&self) -> usize {
        self.made.calls
    }

    /// The copies of a denoising loop on the provider's device, in the last stage; `None` if it was the host's.
    pub fn device_copies(&self) -> Option<DeviceCopies> {
        self.made.device_copies
    }

    /// The number of `[[stage]]` tables that it went through.
    pub fn stages(&self) -> usize {
        self.made.stages
    }

    /// True if no stage goes on with it.
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// Returns how it was made. The first record of a pipeline waits until the digests of its files are computed.
    ///
    /// # Errors
    /// [`Error::Io`] if a file of the model cannot be read.
    pub fn record(&self) -> Result<Record> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner).record(&self.made)
    }

    /// Encodes it as PNG with its record.
    ///
    /// # Errors
    /// As [`Image::record`].
    pub fn to_png(&self) -> Result<Vec<u8>> {
        self.encode(ImageFormat::Png)
    }

    /// Encodes it in a format, with its record.
    ///
    /// # Errors
    /// As [`Image::record`], and [`Error::Input`] if the image does not fit the format.
    pub fn encode(&self, format: ImageFormat) -> Result<Vec<u8>> {
        encode_as(&self.made.pixels, format, &self.record()?.chunks()?)
    }

    /// Writes it with its record, whole or not at all: as JPEG or WebP where the name ends so, else as PNG.
    ///
    /// # Errors
    /// [`Error::Input`] for a name that promises another format, [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let format = extension.and_then(ImageFormat::of_extension).unwrap_or_default();
        if format == ImageFormat::Png {
            crate::files::require_format("image", path, "png", "images are written as PNG, JPEG or WebP")?;
        }
        save_png(path, &self.encode(format)?)
    }

    /// Returns the image as the run made it, with the settings that it had.
    pub fn finished(&self) -> &FinishedImage {
        &self.made
    }
}

impl serde::Serialize for Image {
    /// Writes `index`, `seed`, `width`, `height`, `rgb` in base64, and `record`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine;
        use serde::ser::{Error as _, SerializeStruct};
        let record = self.record().map_err(|error: Error| S::Error::custom(error))?;
        let mut object = serializer.serialize_struct("Image", 6)?;
        object.serialize_field("index", &self.index())?;
        object.serialize_field("seed", &self.seed())?;
        object.serialize_field("width", &self.width())?;
        object.serialize_field("height", &self.height())?;
        object.serialize_field("rgb", &base64::engine::general_purpose::STANDARD.encode(self.rgb()))?;
        object.serialize_field("record", &record)?;
        object.end()
    }
}
