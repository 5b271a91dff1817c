//! Encoding in one of several formats.

use ::image::codecs::webp::WebPEncoder;
use ::image::{ExtendedColorType, ImageEncoder};
use mozjpeg::{ColorSpace, Compress, Marker};

use super::{Rgb8, encode_png};
use crate::error::{Error, Result};
use crate::guard::contain;

/// The format of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImageFormat {
    /// PNG, lossless.
    #[default]
    Png,
    /// JPEG of a quality from 1 to 100.
    Jpeg(u8),
    /// WebP, lossless.
    WebP,
}

impl ImageFormat {
    /// The quality of JPEG files unless another is requested.
    pub const QUALITY: u8 = 90;

    /// Returns the extension of file names, with its dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => ".png",
            Self::Jpeg(_) => ".jpg",
            Self::WebP => ".webp",
        }
    }

    /// Returns the format of a file name's extension: `png`, `jpg`, `jpeg` or `webp`, in any case.
    pub fn of_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg(Self::QUALITY)),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }
}

/// Encodes an image: PNG with text chunks, JPEG and WebP with the last text as EXIF's ImageDescription.
///
/// # Errors
/// [`Error::Input`] if the texts or the image do not fit the format.
pub fn encode_as(image: &Rgb8, format: ImageFormat, texts: &[(&str, String)]) -> Result<Vec<u8>> {
    let exif = || texts.last().map(|(keyword, text)| tiff(&format!("{keyword}: {text}"))).unwrap_or_default();
    match format {
        ImageFormat::Png => encode_png(image, texts),
        ImageFormat::Jpeg(quality) => encode_jpeg(image, quality, &exif()),
        ImageFormat::WebP => encode_webp(image, exif()),
    }
}

fn encode_jpeg(image: &Rgb8, quality: u8, exif: &[u8]) -> Result<Vec<u8>> {
    let fail =
        |problem: String| Error::input("image", format!("cannot be encoded as JPEG: {problem}"), "write PNG or WebP");
    let segment = [b"Exif\0\0", exif].concat();
    if segment.len() > 65_533 {
        return Err(fail("its record is longer than 64 KiB".to_owned()));
    }
    if image.width.max(image.height) > 65_500 {
        return Err(fail("a side is longer than 65500 pixels".to_owned()));
    }
    let encoded = contain(|| {
        let mut settings = Compress::new(ColorSpace::JCS_RGB);
        settings.set_size(image.width, image.height);
        settings.set_quality(f32::from(quality));
        let mut jpeg = settings.start_compress(Vec::new())?;
        jpeg.write_marker(Marker::APP(1), &segment);
        jpeg.write_scanlines(&image.data)?;
        jpeg.finish()
    });
    let encoded = encoded.map_err(|panic| fail(panic.to_string()))?;
    encoded.map_err(|error: std::io::Error| fail(error.to_string()))
}

fn encode_webp(image: &Rgb8, exif: Vec<u8>) -> Result<Vec<u8>> {
    let fail = |problem: String| Error::input("image", format!("cannot be encoded as WebP: {problem}"), "write PNG");
    if image.width.max(image.height) > 16_384 {
        return Err(fail("a side is longer than 16384 pixels".to_owned()));
    }
    let mut bytes = Vec::new();
    let mut encoder = WebPEncoder::new_lossless(&mut bytes);
    encoder.set_exif_metadata(exif).map_err(|error| fail(error.to_string()))?;
    let written = encoder.write_image(&image.data, image.width as u32, image.height as u32, ExtendedColorType::Rgb8);
    written.map_err(|error| fail(error.to_string()))?;
    Ok(bytes)
}

/// The tag of EXIF's ImageDescription.
pub(crate) const DESCRIPTION: u16 = 0x010e;

/// Formats a TIFF file with an ImageDescription and nothing else, which is what EXIF data is.
fn tiff(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len() + 1).unwrap_or(u32::MAX);
    // Little endian; a directory at 8 with one entry of ASCII (type 2), whose text is at 26.
    let mut bytes = b"II*\0\x08\0\0\0\x01\0".to_vec();
    bytes.extend(DESCRIPTION.to_le_bytes());
    bytes.extend([2, 0]);
    bytes.extend(length.to_le_bytes());
    bytes.extend(26_u32.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(text.bytes().map(|byte| if byte == 0 { b' ' } else { byte }));
    bytes.push(0);
    bytes
}
