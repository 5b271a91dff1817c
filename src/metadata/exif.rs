//! The record in the EXIF data of JPEG and WebP files.

use super::RECORD_KEYWORD;
use crate::image::DESCRIPTION;

/// Returns the record's JSON in a JPEG or WebP file. `None` for files of other formats; an inner `None` without a record.
pub(super) fn find_json(file: &[u8]) -> Option<Option<String>> {
    let exif = match file {
        [0xff, 0xd8, rest @ ..] => jpeg_exif(rest),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', rest @ ..] => webp_exif(rest),
        _ => return None,
    };
    Some(exif.and_then(description).and_then(|text| {
        let json = text.strip_prefix(RECORD_KEYWORD)?.strip_prefix(": ")?;
        Some(json.to_owned())
    }))
}

/// Finds the EXIF data in the segments before the pixels.
fn jpeg_exif(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let [0xff, kind, high, low, ..] = *rest else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let content = rest.get(4..2 + length)?;
        if kind == 0xe1
            && let Some(exif) = content.strip_prefix(b"Exif\0\0")
        {
            return Some(exif);
        }
        if kind == 0xda {
            return None;
        }
        rest = rest.get(2 + length..)?;
    }
}

/// Finds the EXIF data in the chunks.
fn webp_exif(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (name, size) = (rest.get(..4)?, rest.get(4..8)?);
        let size = usize::try_from(u32::from_le_bytes(size.try_into().ok()?)).ok()?;
        let content = rest.get(8..8_usize.checked_add(size)?)?;
        if name == b"EXIF" {
            return Some(content);
        }
        rest = rest.get(8 + size + size % 2..)?;
    }
}

/// Returns the ImageDescription in EXIF data, which is a TIFF file.
fn description(tiff: &[u8]) -> Option<String> {
    let is_little = match tiff.get(..2)? {
        b"II" => true,
        b"MM" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(if is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }).ok()
    };
    let directory = long(4)?;
    let entries = (0..usize::from(short(directory)?)).map(|at| directory + 2 + 12 * at);
    let entry = entries.into_iter().find(|&entry| short(entry) == Some(DESCRIPTION))?;
    let (length, at) = (long(entry + 4)?, long(entry + 8)?);
    let text = tiff.get(at..at.checked_add(length)?)?;
    String::from_utf8(text.strip_suffix(b"\0").unwrap_or(text).to_vec()).ok()
}
