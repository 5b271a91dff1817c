//! JPEG files, decoded by libjpeg: the same pixels, to the bit, as Pillow's libjpeg-turbo gives.
//!
//! libjpeg goes on after damage that it notices, and fills the rest of the image with grey. Here each of its warnings
//! about the compressed data is an error.

use std::ffi::CStr;
use std::io::BufRead;
use std::os::raw::{c_int, c_long};
use std::panic::resume_unwind;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, GrayImage, RgbImage};
use mozjpeg::{ColorSpace, Decompress, Marker};
use mozjpeg_sys as ffi;

use crate::guard::contain;

/// The bytes that a JPEG file starts with.
pub(super) const START: [u8; 3] = [0xff, 0xd8, 0xff];

/// The first bytes of an APP1 segment with EXIF data.
const EXIF: &[u8] = b"Exif\0\0";

/// The most scans of a file. Each is a pass over the whole image, and may be a few bytes long: a file of a megabyte can hold
/// a hundred thousand, which take minutes to decode. Encoders write up to some dozens.
const MOST_SCANS: c_long = 256;

/// A JPEG file whose header was read.
pub(super) struct Jpeg<R>(Decompress<R>);

impl<R: BufRead> Jpeg<R> {
    /// Reads the header.
    pub(super) fn open(reader: R) -> Result<Self, String> {
        guarded(|| {
            let builder = Decompress::builder().with_err(error_manager()).with_markers(&[Marker::APP(1)]);
            Ok(Self(builder.from_reader(reader)?))
        })
    }

    /// The width and height of the stored image.
    pub(super) fn size(&self) -> (usize, usize) {
        self.0.size()
    }

    /// The rotation that EXIF asks for, if any.
    pub(super) fn orientation(&self) -> Option<Orientation> {
        let exif = self.0.markers().find_map(|marker| marker.data.strip_prefix(EXIF))?;
        Orientation::from_exif_chunk(exif)
    }

    /// Decodes the pixels: gray for one channel, RGB for all others.
    pub(super) fn decode(self) -> Result<DynamicImage, String> {
        let (width, height) = (u32::try_from(self.size().0), u32::try_from(self.size().1));
        let (Ok(width), Ok(height)) = (width, height) else { return Err("it is too large".to_owned()) };
        let image = guarded(|| {
            let jpeg = self.0;
            match jpeg.color_space() {
                ColorSpace::JCS_GRAYSCALE => {
                    Ok(GrayImage::from_raw(width, height, pixels(jpeg, ColorSpace::JCS_GRAYSCALE)?).map(Into::into))
                }
                ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => {
                    let rgb = pixels(jpeg, ColorSpace::JCS_CMYK)?.as_chunks().0.iter().flat_map(rgb_of_cmyk).collect();
                    Ok(RgbImage::from_raw(width, height, rgb).map(Into::into))
                }
                _ => Ok(RgbImage::from_raw(width, height, pixels(jpeg, ColorSpace::JCS_RGB)?).map(Into::into)),
            }
        });
        image?.ok_or_else(|| "pixels are missing".to_owned())
    }
}

/// Decodes all rows, and reads on to the end of the image, so that a file without one is refused.
fn pixels<R: BufRead>(jpeg: Decompress<R>, space: ColorSpace) -> std::io::Result<Vec<u8>> {
    let mut started = jpeg.to_colorspace(space)?;
    let pixels = started.read_scanlines::<u8>()?;
    started.finish()?;
    Ok(pixels)
}

/// Pillow's `convert("RGB")` of a CMYK pixel, which JPEG files hold inverted.
fn rgb_of_cmyk(&[c, m, y, k]: &[u8; 4]) -> [u8; 3] {
    [c, m, y].map(|ink| {
        // a · b / 255, rounded, as Pillow's MULDIV255.
        let product = u32::from(255 - ink) * u32::from(k) + 128;
        let covered = ((product >> 8) + product) >> 8;
        (u32::from(k) - covered.min(u32::from(k))) as u8
    })
}

/// Runs libjpeg, which reports errors by unwinding with their text.
fn guarded<T>(work: impl FnOnce() -> std::io::Result<T>) -> Result<T, String> {
    contain(work).map_err(|panic| panic.0)?.map_err(|e| e.to_string())
}

fn error_manager() -> ffi::jpeg_error_mgr {
    // SAFETY: the struct is one of C's, of numbers, pointers and optional functions, for which zeros are values;
    // `jpeg_std_error` fills it and keeps no pointer to it.
    let mut manager = unsafe {
        let mut manager: ffi::jpeg_error_mgr = std::mem::zeroed();
        ffi::jpeg_std_error(&mut manager);
        manager
    };
    manager.error_exit = Some(refuse);
    manager.emit_message = Some(refuse_warnings);
    manager
}

/// Ends the call of libjpeg that cannot go on.
extern "C-unwind" fn refuse(info: &mut ffi::jpeg_common_struct) {
    resume_unwind(Box::new(message(info)));
}

/// Called with level -1 for each warning, and from 0 on for remarks.
extern "C-unwind" fn refuse_warnings(info: &mut ffi::jpeg_common_struct, level: c_int) {
    // Not about the pixels: an unknown version of JFIF, an unknown number in Adobe's segment.
    let is_harmless = matches!(code(info), ffi::JWRN_JFIF_MAJOR | ffi::JWRN_ADOBE_XFORM);
    let is_too_much = code(info) == ffi::JTRC_SOS && count_scan(info) > MOST_SCANS;
    if level < 0 && !is_harmless || is_too_much {
        refuse(info);
    }
}

/// Counts the scans that libjpeg has come upon, in the manager's count of warnings, which nothing else uses.
fn count_scan(info: &mut ffi::jpeg_common_struct) -> c_long {
    // SAFETY: as in `code`; libjpeg holds no reference to the manager while it calls.
    unsafe { info.err.as_mut() }.map_or(0, |manager| {
        manager.num_warnings += 1;
        manager.num_warnings
    })
}

/// The number of the message that libjpeg reports.
fn code(info: &ffi::jpeg_common_struct) -> ffi::J_MESSAGE_CODE {
    // SAFETY: libjpeg calls with the manager that `error_manager` made, which lives as long as the decompressor.
    unsafe { info.err.as_ref() }.map_or(0, |manager| manager.msg_code)
}

fn message(info: &ffi::jpeg_common_struct) -> String {
    let known = match code(info) {
        ffi::JWRN_JPEG_EOF | ffi::JERR_INPUT_EOF | ffi::JERR_INPUT_EMPTY => "it is cut short",
        ffi::JWRN_HIT_MARKER => "it is damaged: the compressed data of some pixels is missing",
        ffi::JWRN_EXTRANEOUS_DATA => "it is damaged: the compressed data goes on after the last pixel",
        ffi::JWRN_HUFF_BAD_CODE => "it is damaged: the compressed data holds an unknown code",
        ffi::JWRN_MUST_RESYNC => "it is damaged: a restart marker is missing",
        ffi::JWRN_BOGUS_PROGRESSION => "it is damaged: its scans are not in order",
        ffi::JTRC_SOS => return format!("it has more than {MOST_SCANS} scans"),
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
    // The texts have places for numbers, which are left out.
    let text = text.unwrap_or_default();
    let plain = text.split('%').next().unwrap_or_default().trim_end_matches([' ', '0', 'x', ',', ':']);
    format!("libjpeg reports \"{plain}\"")
}
