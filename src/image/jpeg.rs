//! JPEG decoding by libjpeg, with pixels identical to Pillow's libjpeg-turbo.
//!
//! libjpeg continues after damage and fills the rest of the image with gray. Here each of its warnings about the
//! compressed data is an error.

use std::ffi::CStr;
use std::io::BufRead;
use std::os::raw::{c_int, c_long};
use std::panic::resume_unwind;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, GrayImage, RgbImage};
use mozjpeg::{ColorSpace, Decompress, Marker};
use mozjpeg_sys as ffi;

use crate::guard::contain;

/// The first bytes of a JPEG file.
pub(super) const START: [u8; 3] = [0xff, 0xd8, 0xff];

/// The first bytes of an APP1 segment with EXIF data.
const EXIF: &[u8] = b"Exif\0\0";

/// The maximum number of scans. A scan can be a few bytes long but takes a pass over the whole image: a file of a
/// megabyte can contain a hundred thousand, which take minutes to decode. Encoders write at most a few dozen.
const MAX_SCANS: c_long = 256;

/// A JPEG file after reading its header.
pub(super) struct Jpeg<R>(Decompress<R>);

impl<R: BufRead> Jpeg<R> {
    /// Reads the header.
    pub(super) fn open(reader: R) -> Result<Self, String> {
        run_guarded(|| {
            let builder = Decompress::builder().with_err(error_manager()).with_markers(&[Marker::APP(1)]);
            Ok(Self(builder.from_reader(reader)?))
        })
    }

    /// Returns the width and height of the stored image.
    pub(super) fn size(&self) -> (usize, usize) {
        self.0.size()
    }

    /// Returns the EXIF orientation, if any.
    pub(super) fn orientation(&self) -> Option<Orientation> {
        let exif = self.0.markers().find_map(|marker| marker.data.strip_prefix(EXIF))?;
        Orientation::from_exif_chunk(exif)
    }

    /// Decodes the pixels to gray for one channel and to RGB otherwise.
    pub(super) fn decode(self) -> Result<DynamicImage, String> {
        let (width, height) = (u32::try_from(self.size().0), u32::try_from(self.size().1));
        let (Ok(width), Ok(height)) = (width, height) else { return Err("it is too large".to_owned()) };
        let image = run_guarded(|| {
            let jpeg = self.0;
            match jpeg.color_space() {
                ColorSpace::JCS_GRAYSCALE => {
                    Ok(GrayImage::from_raw(width, height, decode_pixels(jpeg, ColorSpace::JCS_GRAYSCALE)?)
                        .map(Into::into))
                }
                ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => {
                    let rgb =
                        decode_pixels(jpeg, ColorSpace::JCS_CMYK)?.as_chunks().0.iter().flat_map(cmyk_to_rgb).collect();
                    Ok(RgbImage::from_raw(width, height, rgb).map(Into::into))
                }
                _ => Ok(RgbImage::from_raw(width, height, decode_pixels(jpeg, ColorSpace::JCS_RGB)?).map(Into::into)),
            }
        });
        image?.ok_or_else(|| "pixels are missing".to_owned())
    }
}

/// Decodes all rows and reads to the end of the image, so that a truncated file is an error.
fn decode_pixels<R: BufRead>(jpeg: Decompress<R>, space: ColorSpace) -> std::io::Result<Vec<u8>> {
    let mut started = jpeg.to_colorspace(space)?;
    let pixels = started.read_scanlines::<u8>()?;
    started.finish()?;
    Ok(pixels)
}

/// Converts a CMYK pixel, inverted as in JPEG files, like Pillow's `convert("RGB")`.
fn cmyk_to_rgb(&[c, m, y, k]: &[u8; 4]) -> [u8; 3] {
    [c, m, y].map(|ink| {
        // a · b / 255, rounded, as Pillow's MULDIV255.
        let product = u32::from(255 - ink) * u32::from(k) + 128;
        let covered = ((product >> 8) + product) >> 8;
        (u32::from(k) - covered.min(u32::from(k))) as u8
    })
}

/// Runs libjpeg, which reports errors by unwinding with their text.
fn run_guarded<T>(work: impl FnOnce() -> std::io::Result<T>) -> Result<T, String> {
    contain(work).map_err(|panic| panic.0)?.map_err(|e| e.to_string())
}

fn error_manager() -> ffi::jpeg_error_mgr {
    // SAFETY: all zeros is a valid value of this C struct of numbers, pointers and optional functions; `jpeg_std_error`
    // fills it and keeps no pointer to it.
    let mut manager = unsafe {
        let mut manager: ffi::jpeg_error_mgr = std::mem::zeroed();
        ffi::jpeg_std_error(&mut manager);
        manager
    };
    manager.error_exit = Some(raise_error);
    manager.emit_message = Some(raise_warnings);
    manager
}

/// Unwinds out of libjpeg with the error message.
extern "C-unwind" fn raise_error(info: &mut ffi::jpeg_common_struct) {
    resume_unwind(Box::new(message(info)));
}

/// Raises an error for warnings. libjpeg calls it with level -1 for each warning, and with 0 or more for trace
/// messages.
extern "C-unwind" fn raise_warnings(info: &mut ffi::jpeg_common_struct, level: c_int) {
    // Warnings that do not concern pixels: an unknown JFIF version, an unknown number in Adobe's segment.
    let is_harmless = matches!(code(info), ffi::JWRN_JFIF_MAJOR | ffi::JWRN_ADOBE_XFORM);
    let is_too_much = code(info) == ffi::JTRC_SOS && count_scan(info) > MAX_SCANS;
    if level < 0 && !is_harmless || is_too_much {
        raise_error(info);
    }
}

/// Counts scans in the manager's warning counter, which is otherwise unused.
fn count_scan(info: &mut ffi::jpeg_common_struct) -> c_long {
    // SAFETY: as in `code`; libjpeg holds no reference to the manager during the call.
    unsafe { info.err.as_mut() }.map_or(0, |manager| {
        manager.num_warnings += 1;
        manager.num_warnings
    })
}

/// Returns the code of libjpeg's message.
fn code(info: &ffi::jpeg_common_struct) -> ffi::J_MESSAGE_CODE {
    // SAFETY: libjpeg passes the manager created by `error_manager`, which lives as long as the decompressor.
    unsafe { info.err.as_ref() }.map_or(0, |manager| manager.msg_code)
}

fn message(info: &ffi::jpeg_common_struct) -> String {
    let known = match code(info) {
        ffi::JWRN_JPEG_EOF | ffi::JERR_INPUT_EOF | ffi::JERR_INPUT_EMPTY => "it is truncated",
        ffi::JWRN_HIT_MARKER => "it is damaged: the compressed data of some pixels is missing",
        ffi::JWRN_EXTRANEOUS_DATA => "it is damaged: the compressed data goes on after the last pixel",
        ffi::JWRN_HUFF_BAD_CODE => "it is damaged: the compressed data holds an unknown code",
        ffi::JWRN_MUST_RESYNC => "it is damaged: a restart marker is missing",
        ffi::JWRN_BOGUS_PROGRESSION => "it is damaged: its scans are out of order",
        ffi::JTRC_SOS => return format!("it has more than {MAX_SCANS} scans"),
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    // SAFETY: as in `code`; the table holds pointers to constant, zero-terminated texts for the numbers 0 to
    // `last_jpeg_message`.
    let text = unsafe {
        let manager = info.err.as_ref();
        let entry = manager.filter(|manager| (0..=manager.last_jpeg_message).contains(&manager.msg_code));
        let text = entry.map(|manager| *manager.jpeg_message_table.offset(manager.msg_code as isize));
        text.filter(|text| !text.is_null()).map(|text| CStr::from_ptr(text.cast()).to_string_lossy().into_owned())
    };
    // Format specifiers and the text after them are left out.
    let text = text.unwrap_or_default();
    let plain = text.split('%').next().unwrap_or_default().trim_end_matches([' ', '0', 'x', ',', ':']);
    format!("libjpeg reports \"{plain}\"")
}
