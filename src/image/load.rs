//! Pictures from files.

use std::io::BufReader;
use std::path::Path;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageError, ImageReader};

use super::Rgb8;
use crate::error::{Error, Result};
use crate::files::open_input;
use crate::guard::contain;

/// The longest side of a picture that is decoded, in pixels.
pub const MAX_SIDE: usize = 16_384;

/// The most pixels of a picture that is decoded.
pub const MAX_PIXELS: usize = 100_000_000;

const HELP: &str = "give a PNG, JPEG, WebP or BMP file that a viewer can open";

/// Width and height of a picture file after its EXIF rotation, from its header alone.
///
/// # Errors
///
/// As [`load`].
pub fn dimensions(path: &Path) -> Result<(usize, usize)> {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    contained(path, || {
        let mut decoder = open(path)?;
        let (width, height) = size(&decoder);
        let turned = matches!(orientation(&mut decoder), Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
        Ok(if turned { (height, width) } else { (width, height) })
    })
}

/// Loads a PNG, JPEG, WebP or BMP file, told apart by what stands in it and not by its name.
///
/// The pixels are those of diffusers' `load_image`, which is Pillow's `exif_transpose` and `convert("RGB")`: turned
/// as EXIF says, alpha dropped (what is transparent shows the colour that is stored there), grey made three equal
/// channels, palettes looked up, the low bytes of 16-bit samples dropped. Two things differ. Of 16-bit grey Pillow
/// keeps what fits into eight bits and makes the rest white; here it is scaled like any other. And lossy formats are
/// decoded within a few levels of Pillow's libraries, as the standards allow. Of an animation the first picture counts.
///
/// # Errors
///
/// [`Error::Input`] where there is no such file, it is no picture of these formats, it is cut short, or it has more
/// than [`MAX_SIDE`] pixels a side or [`MAX_PIXELS`] in all, which is known before any of them is decoded;
/// [`Error::Io`] where it cannot be opened.
pub fn load(path: &Path) -> Result<Rgb8> {
    let picture = decode(path)?;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let data = match picture {
        DynamicImage::ImageLuma16(p) => p.iter().flat_map(|&v| [high(v); 3]).collect(),
        DynamicImage::ImageLumaA16(p) => p.pixels().flat_map(|p| [high(p.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(p) => p.iter().map(|&v| high(v)).collect(),
        DynamicImage::ImageRgba16(p) => p.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(high)).collect(),
        other => other.into_rgb8().into_raw(),
    };
    Rgb8::new(width, height, data).ok_or_else(|| Error::input(path.display().to_string(), "has no pixels", HELP))
}

/// The picture as the file holds it, turned as EXIF says.
pub(super) fn decode(path: &Path) -> Result<DynamicImage> {
    contained(path, || {
        let mut decoder = open(path)?;
        let orientation = orientation(&mut decoder);
        let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| unreadable(path, &e))?;
        picture.apply_orientation(orientation);
        Ok(picture)
    })
}

/// Calls a decoder of another crate, whose panic is the file's fault.
pub(super) fn contained<T>(path: &Path, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    contain(decode).unwrap_or_else(|panic| Err(Error::input(path.display().to_string(), panic.to_string(), HELP)))
}

fn open(path: &Path) -> Result<impl ImageDecoder + use<>> {
    let file = BufReader::new(open_input(path)?);
    let reader = ImageReader::new(file).with_guessed_format().map_err(|e| Error::io(path, "reading", e))?;
    let decoder = reader.into_decoder().map_err(|e| unreadable(path, &e))?;
    let (width, height) = size(&decoder);
    check_size(path, width, height)?;
    Ok(decoder)
}

/// Refuses a picture of more pixels than are read.
pub(super) fn check_size(path: &Path, width: usize, height: usize) -> Result<()> {
    if width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_PIXELS {
        let problem = format!("is {width}×{height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS} in all are read");
        return Err(Error::input(path.display().to_string(), problem, "scale the picture down first"));
    }
    Ok(())
}

fn size(decoder: &impl ImageDecoder) -> (usize, usize) {
    let (width, height) = decoder.dimensions();
    (width as usize, height as usize)
}

/// How the picture has to be turned. EXIF data that cannot be read turns nothing, as with other programs.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    decoder.orientation().unwrap_or(Orientation::NoTransforms)
}

fn high(sample: u16) -> u8 {
    (sample >> 8) as u8
}

fn unreadable(path: &Path, error: &ImageError) -> Error {
    let problem = match error {
        ImageError::Unsupported(_) => "is no picture in a format that is read".to_owned(),
        ImageError::Limits(_) => format!("is too large a picture: {error}"),
        _ => format!("cannot be decoded: {error}"),
    };
    Error::input(path.display().to_string(), problem, HELP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/image").join(name)
    }

    /// Each file beside the PNG that Pillow makes of it.
    #[test]
    fn every_kind_of_file_becomes_what_pillow_makes_of_it() {
        let mut kinds = 0;
        for entry in std::fs::read_dir(golden("load")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name.ends_with(".rgb.png") {
                continue;
            }
            let want = load(&golden("load").join(format!("{name}.rgb.png"))).unwrap();
            let got = load(&path).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(dimensions(&path).unwrap(), (want.width(), want.height()), "{name}");
            assert_eq!((got.width(), got.height()), (want.width(), want.height()), "{name}");
            let worst = got.data().iter().zip(want.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            let bound = if name.contains("lossy") { 6 } else { 0 };
            assert!(worst <= bound, "{name}: {worst} levels off");
            kinds += 1;
        }
        assert!(kinds > 20, "{kinds} files");
    }

    #[test]
    fn what_is_no_picture_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let png = std::fs::read(golden("load/rgb.png")).unwrap();
        // A header that promises much, with next to nothing behind it.
        let sized = |width: u32, height: u32| {
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, width, height);
            encoder.set_color(png::ColorType::Rgb);
            encoder.write_header().unwrap().write_chunk(png::chunk::IDAT, &[0x78]).unwrap();
            file
        };
        for (name, bytes, word) in [
            ("text.png", b"a prompt".to_vec(), "format"),
            ("page.jpg", b"<html></html>".to_vec(), "format"),
            ("empty.png", Vec::new(), "format"),
            ("cut.png", png[..png.len() / 2].to_vec(), "decoded"),
            ("stub.png", png[..20].to_vec(), "decoded"),
            ("long.png", sized(20_000, 10), "20000×10"),
            ("wide.png", sized(12_000, 12_000), "12000×12000"),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = load(&path).unwrap_err();
            assert!(matches!(error, Error::Input { .. }), "{error}");
            assert!(error.to_string().contains(name) && error.to_string().contains(word), "{error}");
        }
        assert!(load(dir.path()).unwrap_err().to_string().contains("is a directory"));
        assert!(load(&dir.path().join("none.png")).unwrap_err().to_string().contains("no such file"));
    }

    #[test]
    fn the_name_does_not_decide_the_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("picture.jpg");
        std::fs::copy(golden("load/rgb.png"), &path).unwrap();
        assert_eq!(load(&path).unwrap(), load(&golden("load/rgb.png")).unwrap());
    }
}
