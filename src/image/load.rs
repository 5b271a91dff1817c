//! Image loading.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};

use super::Rgb8;
use super::jpeg::{self, Jpeg};
use crate::error::{Error, Result, count_of};
use crate::files::open_input;
use crate::guard::contain;

const HELP: &str = "use a PNG, JPEG, WebP or BMP file that an image viewer can open";
const AGAIN: &str = "fetch the file again, or open it in an image editor and save it again";

/// The maximum size of an input image, checked against the file's header before decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputLimit {
    megapixels: usize,
}

impl InputLimit {
    /// The default limit in megapixels: 64.
    pub const MEGAPIXELS: usize = 64;

    /// Creates a limit in megapixels.
    pub const fn new(megapixels: usize) -> Self {
        Self { megapixels }
    }

    /// Returns the limit in megapixels.
    pub fn megapixels(self) -> usize {
        self.megapixels
    }

    /// Returns the limit in pixels.
    fn pixels(self) -> u64 {
        (self.megapixels as u64).saturating_mul(1_000_000)
    }

    /// Rejects an image with more pixels.
    pub(super) fn check(self, path: &Path, (width, height): (usize, usize)) -> Result<()> {
        if (width as u64).saturating_mul(height as u64) <= self.pixels() {
            return Ok(());
        }
        Err(Error::input(
            path.display().to_string(),
            format!("is {width}×{height} pixels; expected at most {}", count_of(self.megapixels, "megapixel")),
            "scale the image down, or raise [run] max_input_megapixels",
        ))
    }

    /// Returns the limits for the png crate's decoder: one byte per pixel, and its own allocations.
    pub(super) fn png_limits(self) -> png::Limits {
        let limits = png::Limits::default();
        png::Limits { bytes: limits.bytes.max(usize::try_from(self.pixels()).unwrap_or(usize::MAX).saturating_mul(2)) }
    }

    /// Returns the limits for the image crate's decoders: four channels of 16 bits, and their own allocations.
    fn decoder_limits(self) -> Limits {
        let mut limits = Limits::default();
        limits.max_alloc = limits.max_alloc.map(|bytes| bytes.max(self.pixels().saturating_mul(12)));
        limits
    }
}

impl Default for InputLimit {
    fn default() -> Self {
        Self::new(Self::MEGAPIXELS)
    }
}

/// Returns the width and height of an image file after its EXIF orientation, from its header alone.
///
/// # Errors
///
/// As [`load`].
pub fn dimensions(path: &Path, limit: InputLimit) -> Result<(usize, usize)> {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let mut opened = open(path, limit)?;
    let (width, height) = opened.size();
    let rotated = matches!(opened.orientation(), Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
    Ok(if rotated { (height, width) } else { (width, height) })
}

/// Loads a PNG, JPEG, WebP or BMP file. The format is detected from the contents, not the name.
///
/// The pixels are those of diffusers' `load_image`, which applies Pillow's `exif_transpose` and `convert("RGB")`:
/// oriented by EXIF, alpha dropped (transparent pixels show their stored color), gray expanded to three channels,
/// palettes resolved, 16-bit samples reduced to their high bytes, CMYK converted without a profile. JPEG files are
/// decoded by libjpeg, as in Pillow. There are two differences. Pillow clips 16-bit gray to eight bits, so that most of
/// it becomes white; here it is scaled. Lossy WebP is within a few levels of Pillow's decoder, as the standard allows.
/// Of an animation the first image is loaded.
///
/// # Errors
///
/// [`Error::Input`] if the file is missing, is not an image of these formats, is truncated or damaged, or has more
/// pixels than `limit` according to its header; [`Error::Io`] if it cannot be opened.
pub fn load(path: &Path, limit: InputLimit) -> Result<Rgb8> {
    to_rgb(path, decode(path, limit)?)
}

impl Rgb8 {
    /// Decodes the bytes of a PNG, JPEG, WebP or BMP file, as [`load`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if they are not an image of these formats, are truncated or damaged, or the image has more pixels
    /// than `limit` according to its header.
    pub fn decode(bytes: &[u8], limit: InputLimit) -> Result<Self> {
        let name = Path::new("the image in memory");
        to_rgb(name, pixels(open_in(name, Cursor::new(bytes), Some(bytes.len() as u64), limit)?, name)?)
    }
}

/// Converts a decoded image as Pillow's `convert("RGB")` does.
fn to_rgb(path: &Path, image: DynamicImage) -> Result<Rgb8> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let data = match image {
        DynamicImage::ImageLuma16(p) => p.iter().flat_map(|&v| [high_byte(v); 3]).collect(),
        DynamicImage::ImageLumaA16(p) => p.pixels().flat_map(|p| [high_byte(p.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(p) => p.iter().map(|&v| high_byte(v)).collect(),
        DynamicImage::ImageRgba16(p) => p.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(high_byte)).collect(),
        other => other.into_rgb8().into_raw(),
    };
    Rgb8::new(width, height, data).ok_or_else(|| Error::input(path.display().to_string(), "has no pixels", HELP))
}

/// Decodes an image in its stored format, oriented by EXIF.
pub(super) fn decode(path: &Path, limit: InputLimit) -> Result<DynamicImage> {
    pixels(open(path, limit)?, path)
}

/// Decodes an image after its header.
fn pixels(mut opened: ImageFile<'_, impl BufRead>, path: &Path) -> Result<DynamicImage> {
    let orientation = opened.orientation();
    let mut image = match opened {
        ImageFile::Jpeg(jpeg) => jpeg.decode().map_err(|problem| undecoded(path, &problem))?,
        ImageFile::Other(decoder) => {
            contain_panics(path, || DynamicImage::from_decoder(decoder).map_err(|e| unreadable(path, &e)))?
        }
    };
    image.apply_orientation(orientation);
    Ok(image)
}

/// An image file after reading its header.
enum ImageFile<'r, R> {
    Jpeg(Box<Jpeg<R>>),
    Other(Box<dyn ImageDecoder + 'r>),
}

impl<R: BufRead> ImageFile<'_, R> {
    /// Returns the width and height of the stored image.
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Jpeg(jpeg) => jpeg.size(),
            Self::Other(decoder) => (decoder.dimensions().0 as usize, decoder.dimensions().1 as usize),
        }
    }

    /// Returns the EXIF orientation. Unreadable EXIF data is ignored, as in other programs.
    fn orientation(&mut self) -> Orientation {
        let found = match self {
            Self::Jpeg(jpeg) => jpeg.orientation(),
            Self::Other(decoder) => decoder.orientation().ok(),
        };
        found.unwrap_or(Orientation::NoTransforms)
    }
}

fn open(path: &Path, limit: InputLimit) -> Result<ImageFile<'static, BufReader<File>>> {
    let file = open_input(path)?;
    let length = file.metadata().ok().map(|file| file.len());
    open_in(path, BufReader::new(file), length, limit)
}

/// Reads the header of an image. `path` names it in errors; `length` is its number of bytes, if that is known.
fn open_in<'r, R: BufRead + Seek + 'r>(
    path: &Path,
    mut bytes: R,
    length: Option<u64>,
    limit: InputLimit,
) -> Result<ImageFile<'r, R>> {
    let start = bytes.fill_buf().map_err(|e| Error::io(path, "reading", e))?;
    let opened = if start.starts_with(&jpeg::START) {
        ImageFile::Jpeg(Box::new(Jpeg::open(bytes).map_err(|problem| undecoded(path, &problem))?))
    } else {
        if riff_length(start).zip(length).is_some_and(|(wanted, length)| length < wanted) {
            return Err(undecoded(path, "it is truncated"));
        }
        let mut reader = ImageReader::new(bytes).with_guessed_format().map_err(|e| Error::io(path, "reading", e))?;
        reader.limits(limit.decoder_limits());
        ImageFile::Other(contain_panics(path, || match reader.into_decoder() {
            Ok(decoder) => Ok(Box::new(decoder)),
            Err(error) => Err(unreadable(path, &error)),
        })?)
    };
    limit.check(path, opened.size())?;
    Ok(opened)
}

/// Returns the length of the file according to a WebP header. The decoder ignores missing bytes at the end.
fn riff_length(start: &[u8]) -> Option<u64> {
    let (length, _) = start.strip_prefix(b"RIFF")?.split_first_chunk()?;
    Some(u64::from(u32::from_le_bytes(*length)) + 8)
}

fn high_byte(sample: u16) -> u8 {
    (sample >> 8) as u8
}

/// Calls a decoder of another crate and reports its panic as an error of the file.
pub(super) fn contain_panics<T>(path: &Path, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    contain(decode).unwrap_or_else(|panic| Err(undecoded(path, &panic.to_string())))
}

fn unreadable(path: &Path, error: &ImageError) -> Error {
    match error {
        ImageError::Unsupported(_) => {
            Error::input(path.display().to_string(), "is not an image in a supported format", HELP)
        }
        _ => undecoded(path, &error.to_string()),
    }
}

fn undecoded(path: &Path, problem: &str) -> Error {
    Error::input(path.display().to_string(), format!("cannot be decoded: {problem}"), AGAIN)
}

#[cfg(test)]
mod tests;
