//! Distinguishes graph files from other files.

use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};
use crate::tensor::Field;

/// Checks that the file starts like an ONNX model and is complete.
///
/// The most common problems are a web page, a Git LFS pointer and an interrupted download, and the runtime calls all of
/// them "protobuf parsing failed".
pub fn check(path: &Path, bytes: &[u8]) -> Result<()> {
    let again = "download or copy the file again";
    if bytes.is_empty() {
        return Err(Error::model(path, "the file is empty", again));
    }
    if let Some((problem, help)) = foreign(bytes) {
        return Err(Error::model(path, problem, help));
    }
    match walk(bytes) {
        Walk::Model => Ok(()),
        Walk::Cut { needed } => Err(Error::model(
            path,
            format!("the file is truncated: its contents need at least {needed} bytes, it has {}", bytes.len()),
            again,
        )),
        Walk::Other => Err(Error::model(
            path,
            "is not an ONNX graph: the bytes are not those of a protobuf ModelProto",
            "use a .onnx file made by an exporter such as scripts/export.py",
        )),
    }
}

/// Returns true for a Git LFS pointer, which a clone without LFS has for a large file.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}

/// Identifies a file that is certainly not a graph, with a hint.
fn foreign(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    if is_lfs_pointer(bytes) {
        return Some((
            "is a Git LFS pointer, not the file it points to",
            "fetch the file itself: `git lfs install`, then `git lfs pull` in the clone",
        ));
    }
    let head = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let head = head[..head.len().min(64)].trim_ascii_start();
    if head.first() == Some(&b'<') {
        return Some((
            "looks like a web page: the download failed, maybe a license page or a Git LFS pointer's address",
            "open the address in a browser, accept its terms, and download the file itself",
        ));
    }
    if bytes.get(4..8) == Some(b"ORTM") {
        return Some((
            "is a graph in ONNX Runtime's own .ort format, which describes too little of its inputs",
            "use the .onnx file it was converted from",
        ));
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.get(8..10) == Some(b"{\"") {
        return Some((
            "contains PyTorch weights, not an ONNX graph",
            "export the checkpoint with scripts/export.py and use the directory that it writes",
        ));
    }
    None
}

enum Walk {
    Model,
    Cut { needed: u64 },
    Other,
}

/// The reason why a number could not be read.
enum Unread {
    /// The data ends in it.
    Ended,
    /// It is longer than a valid number.
    TooLong,
}

/// Walks the top-level fields of a `ModelProto`, skipping their contents.
fn walk(bytes: &[u8]) -> Walk {
    let mut at = 0usize;
    while at < bytes.len() {
        let is_first = at == 0;
        match field(bytes, &mut at, is_first) {
            Ok(()) => {}
            Err(end) => return end,
        }
    }
    Walk::Model
}

/// Moves `at` past one field.
fn field(bytes: &[u8], at: &mut usize, is_first: bool) -> Result<(), Walk> {
    /// A generous limit for ModelProto's field numbers; today the highest is 26.
    const LAST_FIELD: u64 = 64;
    /// The number of the graph's field, the only long one.
    const GRAPH: u64 = 7;
    let cut = Walk::Cut { needed: bytes.len() as u64 + 1 };
    let number = |at: &mut usize| match varint(bytes, at) {
        Ok(n) => Ok(Some(n)),
        Err(Unread::Ended) => Ok(None),
        Err(Unread::TooLong) => Err(Walk::Other),
    };
    let Some(key) = number(at)? else { return Err(cut) };
    let (field, wire) = (key >> 3, key & 7);
    if field == 0 || field > LAST_FIELD || (is_first && field > 8) {
        return Err(Walk::Other);
    }
    let length = match wire {
        0 => number(at)?.map(|_| 0),
        1 => Some(8),
        2 => number(at)?,
        5 => Some(4),
        _ => return Err(Walk::Other),
    };
    let Some(length) = length else { return Err(cut) };
    let end = (*at as u64).saturating_add(length);
    if end > bytes.len() as u64 {
        // At the start of a file, a field other than the graph that extends past the end is noise misread as a length.
        let is_noise = is_first && field != GRAPH;
        return Err(if is_noise { Walk::Other } else { Walk::Cut { needed: end } });
    }
    *at = end as usize;
    Ok(())
}

/// Calls `visit` with the number and the content range of every length-delimited field in the message at `message` in
/// `bytes`; `None` if that is not a message.
pub fn fields(bytes: &[u8], message: Range<usize>, mut visit: impl FnMut(u64, Range<usize>)) -> Option<()> {
    whole_fields(bytes, message, |number, field| visit(number, field.body..field.end))
}

/// As [`fields`], with the range of the whole field.
pub fn whole_fields(bytes: &[u8], message: Range<usize>, mut visit: impl FnMut(u64, Field)) -> Option<()> {
    let bytes = bytes.get(..message.end)?;
    let mut at = message.start;
    while at < bytes.len() {
        let start = at;
        let key = varint(bytes, &mut at).ok()?;
        let length = match key & 7 {
            0 => varint(bytes, &mut at).map(|_| 0).ok()?,
            1 => 8,
            2 => usize::try_from(varint(bytes, &mut at).ok()?).ok()?,
            5 => 4,
            _ => return None,
        };
        let end = at.checked_add(length).filter(|&end| end <= bytes.len())?;
        if key & 7 == 2 {
            visit(key >> 3, Field { start, body: at, end });
        }
        at = end;
    }
    Some(())
}

fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, Unread> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or(Unread::Ended)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unread::TooLong)
}
