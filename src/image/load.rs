//! Images from files.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};

use super::Rgb8;
use super::jpeg::{self, Jpeg};
use crate::error::{Error, Result, count_of};
use crate::files::open_input;
use crate::guard::contain;

const HELP: &str = "give a PNG, JPEG, WebP or BMP file that a viewer can open";
const AGAIN: &str = "fetch the file again; or if an image editor shows all of it, save it anew there";

/// The largest image that is read from a file. It is compared with the file's header, before a pixel is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputLimit {
    megapixels: usize,
}

impl InputLimit {
    /// The limit in millions of pixels if nothing sets another: 64.
    pub const MEGAPIXELS: usize = 64;

    /// A limit in millions of pixels.
    pub const fn new(megapixels: usize) -> Self {
        Self { megapixels }
    }

    /// The limit in millions of pixels.
    pub fn megapixels(self) -> usize {
        self.megapixels
    }

    /// The limit in pixels.
    fn pixels(self) -> u64 {
        (self.megapixels as u64).saturating_mul(1_000_000)
    }

    /// Refuses an image of more pixels.
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

    /// The limits of the png crate's decoder: room for a byte a pixel, and for what it holds besides.
    pub(super) fn of_png(self) -> png::Limits {
        let limits = png::Limits::default();
        png::Limits { bytes: limits.bytes.max(usize::try_from(self.pixels()).unwrap_or(usize::MAX).saturating_mul(2)) }
    }

    /// The limits of the image crate's decoders: room for four channels of 16 bits, and for what they hold besides.
    fn of_decoder(self) -> Limits {
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

/// Returns the width and height of an image file after its EXIF rotation, from its header alone.
///
/// # Errors
///
/// As [`load`].
pub fn dimensions(path: &Path, limit: InputLimit) -> Result<(usize, usize)> {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let mut opened = open(path, limit)?;
    let (width, height) = opened.size();
    let turned = matches!(opened.orientation(), Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
    Ok(if turned { (height, width) } else { (width, height) })
}

/// Loads a PNG, JPEG, WebP or BMP file, told apart by its contents and not by its name.
///
/// The pixels are those of diffusers' `load_image`, which is Pillow's `exif_transpose` and `convert("RGB")`: turned
/// as EXIF says, alpha dropped (transparent pixels show the color that is stored there), grey made three equal
/// channels, palettes looked up, the low bytes of 16-bit samples dropped, CMYK converted without a profile. JPEG files
/// are decoded by libjpeg, as in Pillow. Two things differ. Of 16-bit grey Pillow keeps what fits into eight bits and
/// makes the rest white; here it is scaled like any other. And lossy WebP is decoded within a few levels of Pillow's
/// library, as the standard allows. Of an animation the first image counts.
///
/// # Errors
///
/// [`Error::Input`] if there is no such file, it is not an image of these formats, it is cut short or damaged, or it
/// has more pixels than `limit`, which is known from its header; [`Error::Io`] if it cannot be opened.
pub fn load(path: &Path, limit: InputLimit) -> Result<Rgb8> {
    let image = decode(path, limit)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let data = match image {
        DynamicImage::ImageLuma16(p) => p.iter().flat_map(|&v| [high(v); 3]).collect(),
        DynamicImage::ImageLumaA16(p) => p.pixels().flat_map(|p| [high(p.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(p) => p.iter().map(|&v| high(v)).collect(),
        DynamicImage::ImageRgba16(p) => p.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(high)).collect(),
        other => other.into_rgb8().into_raw(),
    };
    Rgb8::new(width, height, data).ok_or_else(|| Error::input(path.display().to_string(), "has no pixels", HELP))
}

/// Decodes an image as the file holds it, turned as EXIF says.
pub(super) fn decode(path: &Path, limit: InputLimit) -> Result<DynamicImage> {
    let mut opened = open(path, limit)?;
    let orientation = opened.orientation();
    let mut image = match opened {
        Opened::Jpeg(jpeg) => jpeg.decode().map_err(|problem| undecoded(path, &problem))?,
        Opened::Other(decoder) => {
            contained(path, || DynamicImage::from_decoder(decoder).map_err(|e| unreadable(path, &e)))?
        }
    };
    image.apply_orientation(orientation);
    Ok(image)
}

/// A file whose header was read.
enum Opened {
    Jpeg(Box<Jpeg<BufReader<File>>>),
    Other(Box<dyn ImageDecoder>),
}

impl Opened {
    /// The width and height of the stored image.
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Jpeg(jpeg) => jpeg.size(),
            Self::Other(decoder) => (decoder.dimensions().0 as usize, decoder.dimensions().1 as usize),
        }
    }

    /// The rotation that EXIF asks for. EXIF data that cannot be read turns nothing, as with other programs.
    fn orientation(&mut self) -> Orientation {
        let found = match self {
            Self::Jpeg(jpeg) => jpeg.orientation(),
            Self::Other(decoder) => decoder.orientation().ok(),
        };
        found.unwrap_or(Orientation::NoTransforms)
    }
}

fn open(path: &Path, limit: InputLimit) -> Result<Opened> {
    let mut file = BufReader::new(open_input(path)?);
    let start = file.fill_buf().map_err(|e| Error::io(path, "reading", e))?;
    let opened = if start.starts_with(&jpeg::START) {
        Opened::Jpeg(Box::new(Jpeg::open(file).map_err(|problem| undecoded(path, &problem))?))
    } else {
        if riff_length(start).is_some_and(|length| file.get_ref().metadata().is_ok_and(|file| file.len() < length)) {
            return Err(undecoded(path, "it is cut short"));
        }
        let mut reader = ImageReader::new(file).with_guessed_format().map_err(|e| Error::io(path, "reading", e))?;
        reader.limits(limit.of_decoder());
        Opened::Other(contained(path, || match reader.into_decoder() {
            Ok(decoder) => Ok(Box::new(decoder)),
            Err(error) => Err(unreadable(path, &error)),
        })?)
    };
    limit.check(path, opened.size())?;
    Ok(opened)
}

/// The length of the whole file that the header of a WebP file tells. Its decoder reads on without the last bytes.
fn riff_length(start: &[u8]) -> Option<u64> {
    let (length, _) = start.strip_prefix(b"RIFF")?.split_first_chunk()?;
    Some(u64::from(u32::from_le_bytes(*length)) + 8)
}

fn high(sample: u16) -> u8 {
    (sample >> 8) as u8
}

/// Calls a decoder of another crate, whose panic is the file's fault.
pub(super) fn contained<T>(path: &Path, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    contain(decode).unwrap_or_else(|panic| Err(undecoded(path, &panic.to_string())))
}

fn unreadable(path: &Path, error: &ImageError) -> Error {
    match error {
        ImageError::Unsupported(_) => {
            Error::input(path.display().to_string(), "is not an image in a format that is read", HELP)
        }
        _ => undecoded(path, &error.to_string()),
    }
}

fn undecoded(path: &Path, problem: &str) -> Error {
    Error::input(path.display().to_string(), format!("cannot be decoded: {problem}"), AGAIN)
}

#[cfg(test)]
mod tests;
