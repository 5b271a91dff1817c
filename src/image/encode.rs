//! PNG encoding.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;

use super::Rgb8;
use crate::error::{Error, Result};
use crate::files::write_whole;

/// Encodes an image as PNG, with text chunks of these keywords and texts before the pixels. The output is
/// deterministic.
///
/// A text is a `tEXt` chunk if Latin-1 can represent it, which most readers support, and a UTF-8 `iTXt` chunk
/// otherwise.
///
/// # Errors
///
/// [`Error::Input`] for an invalid keyword; PNG requires 1 to 79 characters of Latin-1.
pub fn encode_png(image: &Rgb8, texts: &[(&str, String)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode(image, texts, &mut bytes)
        .map_err(|e| Error::input("image", format!("cannot be encoded as PNG: {e}"), ""))?;
    Ok(bytes)
}

fn encode(image: &Rgb8, texts: &[(&str, String)], bytes: &mut Vec<u8>) -> Result<(), png::EncodingError> {
    let side = |n: usize| u32::try_from(n).map_err(std::io::Error::other);
    let mut encoder = png::Encoder::new(bytes, side(image.width)?, side(image.height)?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    // Photographs have about the same size as with the default and take much less time (docs/performance.md).
    encoder.set_compression(png::Compression::Fast);
    for (keyword, text) in texts {
        // Text chunks cannot contain NUL.
        let text = if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) };
        if text.chars().all(|c| u32::from(c) < 256) {
            encoder.add_text_chunk((*keyword).to_owned(), text.into_owned())?;
        } else {
            encoder.add_itxt_chunk((*keyword).to_owned(), text.into_owned())?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&image.data)?;
    writer.finish()
}

/// Writes an encoded image atomically. If `path` is a symbolic link, its target is replaced. A device or FIFO is
/// written to directly.
///
/// # Errors
///
/// [`Error::Io`] naming `path`, for example if the disk is full. An existing file is then unchanged.
pub fn save_png(path: &Path, png: &[u8]) -> Result<()> {
    write_whole(path, |file| file.write_all(png))
}

#[cfg(test)]
mod tests {
    use super::super::{InputLimit, load};
    use super::*;

    fn image() -> Rgb8 {
        Rgb8::new(5, 3, (0..45).map(|v| v * 5).collect()).unwrap()
    }

    #[test]
    fn pixels_and_texts_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let texts = [
            ("parameters", "a caf\u{e9}\nSteps: 20".to_owned()),
            ("ldm-ort", "{\"prompt\": \"\u{732b} \u{1f600}\"}".to_owned()),
            ("nul", "a\0b".to_owned()),
            ("empty", String::new()),
        ];
        let bytes = encode_png(&image(), &texts).unwrap();
        assert_eq!(bytes, encode_png(&image(), &texts).unwrap());
        save_png(&path, &bytes).unwrap();
        assert_eq!(load(&path, InputLimit::default()).unwrap(), image());

        let reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let info = reader.info();
        let latin: Vec<_> = info.uncompressed_latin1_text.iter().map(|c| (&*c.keyword, c.text.clone())).collect();
        assert_eq!(latin, [texts[0].clone(), texts[3].clone()]);
        let utf8: Vec<_> = info.utf8_text.iter().map(|c| (&*c.keyword, c.get_text().unwrap())).collect();
        assert_eq!(utf8, [texts[1].clone(), ("nul", "a\u{fffd}b".to_owned())]);
    }

    #[test]
    fn bad_keywords_are_refused() {
        for keyword in [String::new(), "\u{732b}".to_owned(), "k".repeat(80)] {
            assert!(matches!(encode_png(&image(), &[(&keyword, String::new())]), Err(Error::Input { .. })));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_failed_write_names_the_path() {
        // No user can create a file in /proc.
        let error = save_png(Path::new("/proc/image.png"), b"png").unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(error.to_string().contains("/proc/image.png: writing failed"), "{error}");
    }
}
