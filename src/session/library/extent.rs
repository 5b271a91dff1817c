//! The length that a shared library's file must have.
//!
//! The system's loader maps the sections that the headers describe, and a page beyond the end of the file ends the
//! process with SIGBUS. So a truncated file has to be found before it is loaded.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// The limit for the size of the tables in bytes; those of ONNX Runtime's libraries have some kilobytes.
const MOST: u64 = 1 << 20;

/// Returns the number of bytes that the headers of an ELF, PE or Mach-O file describe, or `None` if the headers are
/// truncated or of an unknown format.
pub(super) fn described(file: &mut File) -> Option<u64> {
    let mut bytes = Bytes { file };
    match bytes.at(0, 4)?.as_slice() {
        b"\x7fELF" => elf(&mut bytes),
        [b'M', b'Z', ..] => pe(&mut bytes),
        magic if magic == 0xfeed_facf_u32.to_le_bytes() => mach_o(&mut bytes, 0),
        magic if magic == 0xcafe_babe_u32.to_be_bytes() => universal(&mut bytes),
        _ => None,
    }
}

/// Reads parts of a file by their offset.
struct Bytes<'f> {
    file: &'f mut File,
}

impl Bytes<'_> {
    fn at(&mut self, offset: u64, length: u64) -> Option<Vec<u8>> {
        if length > MOST {
            return None;
        }
        self.file.seek(SeekFrom::Start(offset)).ok()?;
        let mut bytes = Vec::new();
        self.file.by_ref().take(length).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 == length).then_some(bytes)
    }
}

/// Reads the little-endian number of `width` bytes at `at`.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let digits = bytes.get(at..at.checked_add(width)?)?;
    Some(digits.iter().rev().fold(0, |n, &digit| n << 8 | u64::from(digit)))
}

/// Returns the largest end offset of the parts that a table of `count` rows of `size` bytes at `offset` describes,
/// including the table itself. `part` reads a row's offset and length.
fn furthest(
    bytes: &mut Bytes<'_>,
    [offset, count, size]: [u64; 3],
    part: impl Fn(&[u8]) -> Option<(u64, u64)>,
) -> Option<u64> {
    let table = bytes.at(offset, count.checked_mul(size)?)?;
    let mut end = offset.checked_add(table.len() as u64)?;
    for row in table.chunks_exact(usize::try_from(size).ok().filter(|&size| size > 0)?) {
        let (offset, length) = part(row)?;
        end = end.max(offset.checked_add(length)?);
    }
    Some(end)
}

/// Reads an ELF file of 64 or 32 bits, little-endian: its segments and section table (System V ABI, chapters 4 and 5).
fn elf(bytes: &mut Bytes<'_>) -> Option<u64> {
    let head = bytes.at(0, 52)?;
    let is_long = *head.get(4)? == 2;
    let head = if is_long { bytes.at(0, 64)? } else { head };
    // Offsets of e_phoff, e_shoff, e_phentsize with the fields after it; of p_offset and p_filesz.
    let (width, [segments, sections, counts], [offset, length]) =
        if is_long { (8, [32, 40, 54], [8, 32]) } else { (4, [28, 32, 42], [4, 16]) };
    let short = |at: usize| number(&head, at, 2);
    let segments = [number(&head, segments, width)?, short(counts + 2)?, short(counts)?];
    let end = furthest(bytes, segments, |row| Some((number(row, offset, width)?, number(row, length, width)?)))?;
    let table = short(counts + 6)?.checked_mul(short(counts + 4)?)?;
    Some(end.max(number(&head, sections, width)?.checked_add(table)?))
}

/// Reads a PE file: its sections (Microsoft's PE format, "Section Table").
fn pe(bytes: &mut Bytes<'_>) -> Option<u64> {
    let at = number(&bytes.at(0x3c, 4)?, 0, 4)?;
    let head = bytes.at(at, 24)?;
    let table = [at.checked_add(24)?.checked_add(number(&head, 20, 2)?)?, number(&head, 6, 2)?, 40];
    furthest(bytes, table, |row| Some((number(row, 20, 4)?, number(row, 16, 4)?)))
}

/// Reads a 64-bit Mach-O file that begins at `start`: its segments.
fn mach_o(bytes: &mut Bytes<'_>, start: u64) -> Option<u64> {
    const SEGMENT_64: u64 = 0x19;
    let head = bytes.at(start, 32)?;
    let commands = bytes.at(start.checked_add(32)?, number(&head, 20, 4)?)?;
    let (mut rest, mut end) = (commands.as_slice(), start.checked_add(32)?.checked_add(commands.len() as u64)?);
    for _ in 0..number(&head, 16, 4)? {
        let length = usize::try_from(number(rest, 4, 4)?).ok().filter(|&length| length >= 8)?;
        if number(rest, 0, 4)? == SEGMENT_64 {
            let segment = number(rest, 40, 8)?.checked_add(number(rest, 48, 8)?)?;
            end = end.max(start.checked_add(segment)?);
        }
        rest = rest.get(length..)?;
    }
    Some(end)
}

/// Reads a universal binary: several Mach-O files, with a big-endian table.
fn universal(bytes: &mut Bytes<'_>) -> Option<u64> {
    let big = |row: &[u8], at: usize| Some(u64::from(u32::from_be_bytes(row.get(at..at + 4)?.try_into().ok()?)));
    let count = big(&bytes.at(4, 4)?, 0)?;
    furthest(bytes, [8, count, 20], |row| Some((big(row, 8)?, big(row, 12)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> Option<u64> {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        described(&mut file)
    }

    /// Bytes with little-endian numbers of `width` bytes at some offsets.
    fn with(length: usize, start: &[u8], numbers: &[(usize, usize, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[..start.len()].copy_from_slice(start);
        for &(at, width, number) in numbers {
            bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
        }
        bytes
    }

    #[test]
    fn headers_tell_the_length() {
        let segments = [(32, 8, 64), (54, 2, 56), (56, 2, 2), (64 + 8, 8, 0), (64 + 32, 8, 500)];
        let more = [(120 + 8, 8, 4096), (120 + 32, 8, 100), (40, 8, 5000), (58, 2, 64), (60, 2, 3)];
        assert_eq!(written(&with(200, b"\x7fELF\x02", &[&segments[..], &more].concat())), Some(5000 + 3 * 64));
        assert_eq!(written(&with(200, b"\x7fELF\x02", &[&segments[..], &more[..2]].concat())), Some(4196));
        let short = [(28, 4, 52), (42, 2, 32), (44, 2, 1), (52 + 4, 4, 1000), (52 + 16, 4, 24)];
        assert_eq!(written(&with(100, b"\x7fELF\x01", &short)), Some(1024));
        let pe = [(0x3c, 4, 128), (128 + 6, 2, 2), (128 + 20, 2, 16), (168 + 16, 4, 512), (168 + 20, 4, 1024)];
        assert_eq!(written(&with(300, b"MZ", &pe)), Some(1536));
        let mach =
            [(16, 4, 2), (20, 4, 80), (32, 4, 1), (36, 4, 8), (40, 4, 0x19), (44, 4, 72), (80, 8, 4096), (88, 8, 7)];
        assert_eq!(written(&with(112, b"\xcf\xfa\xed\xfe", &mach)), Some(4103));
        let mut fat = with(28, b"\xca\xfe\xba\xbe", &[]);
        fat[7] = 1;
        fat[18] = 1;
        fat[23] = 5;
        assert_eq!(written(&fat), Some(261));
    }

    #[test]
    fn headers_that_are_cut_off_tell_nothing() {
        let segments = [(32, 8, 64), (54, 2, 56), (56, 2, 2)];
        assert_eq!(written(&with(175, b"\x7fELF\x02", &segments)), None);
        assert_eq!(written(&with(63, b"\x7fELF\x02", &segments)), None);
        assert_eq!(written(&with(200, b"\x7fELF\x02", &[(32, 8, u64::MAX), (54, 2, 56), (56, 2, 2)])), None);
        assert_eq!(written(&with(200, b"\x7fELF\x02", &[(32, 8, 64), (56, 2, 2)])), None);
        assert_eq!(written(&with(40, b"\xcf\xfa\xed\xfe", &[(16, 4, u64::MAX), (20, 4, 8)])), None);
        assert_eq!(written(b"MZ"), None);
        assert_eq!(written(b""), None);
    }
}
