//! Checksums of the cache's files, which tell a bit that changed on the disk while size and times stayed.
//!
//! They are CRC-32, which tells every change of up to 32 bits in a row, and is made about as fast as a file is read. They
//! are no protection against someone who writes to the cache on purpose.

use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;

/// Bytes that one checksum is of.
const BLOCK: usize = 4 << 20;

/// The text before the checksum on the last line of a small file.
const SEAL: &str = "\n// crc32 ";

/// The checksum of each block of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksums(Vec<u32>);

impl Checksums {
    /// Reads a file and sums it up.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let mut sums = Vec::new();
        each_block(path, |_, sum| {
            sums.push(sum);
            true
        })?;
        Ok(Self(sums))
    }

    /// Reads a file, and returns the place of its first damaged block in bytes, if any. Ends early, without one, as soon as
    /// `goes_on` says so.
    pub(super) fn damage(&self, path: &Path, goes_on: impl Fn() -> bool) -> Result<Option<u64>> {
        let mut damaged = None;
        let mut blocks = 0;
        let read = each_block(path, |at, sum| {
            blocks = at + 1;
            if self.0.get(at) != Some(&sum) {
                damaged = Some(at as u64 * BLOCK as u64);
            }
            damaged.is_none() && goes_on()
        })?;
        let is_short = read == Ended::AtTheEnd && blocks < self.0.len();
        Ok(damaged.or(is_short.then_some(blocks as u64 * BLOCK as u64)))
    }
}

#[derive(PartialEq)]
enum Ended {
    AtTheEnd,
    Early,
}

/// Calls `see` with the number and the checksum of each block of a file, until it says no.
fn each_block(path: &Path, mut see: impl FnMut(usize, u32) -> bool) -> Result<Ended> {
    let failed = |e| Error::io(path, "reading", e);
    let mut file = files::open(path).map_err(failed)?;
    let mut block = Vec::with_capacity(BLOCK);
    for at in 0.. {
        block.clear();
        file.by_ref().take(BLOCK as u64).read_to_end(&mut block).map_err(failed)?;
        if block.is_empty() {
            break;
        }
        if !see(at, crc32fast::hash(&block)) {
            return Ok(Ended::Early);
        }
    }
    Ok(Ended::AtTheEnd)
}

/// Writes a small file whole: JSON, and its checksum on the last line.
pub(super) fn write_sealed(path: &Path, content: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(content).map_err(|e| Error::io(path, "writing", e.into()))?;
    files::write_whole(path, |file| {
        use std::io::Write;
        writeln!(file, "{text}{SEAL}{:08x}", crc32fast::hash(text.as_bytes()))
    })
}

/// Reads what [`write_sealed`] wrote; `None` if there is no such file, or it is not as it was written.
pub(super) fn read_sealed<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let whole = files::read_text(path).ok()?;
    let (text, seal) = whole.rsplit_once(SEAL)?;
    let is_whole = u32::from_str_radix(seal.trim_end(), 16).ok()? == crc32fast::hash(text.as_bytes());
    serde_json::from_str(text).ok().filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flipped_bit_is_found_in_its_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        let mut bytes: Vec<u8> = (0..2 * BLOCK + 1000).map(|i| (i * 31 % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let sums = Checksums::of(&path).unwrap();
        assert_eq!((sums.0.len(), sums.damage(&path, || true).unwrap()), (3, None));
        for (at, bit) in [(0, 0), (BLOCK - 1, 7), (BLOCK, 3), (2 * BLOCK + 999, 1)] {
            bytes[at] ^= 1 << bit;
            std::fs::write(&path, &bytes).unwrap();
            let found = sums.damage(&path, || true).unwrap();
            assert_eq!(found, Some((at / BLOCK * BLOCK) as u64), "byte {at}");
            bytes[at] ^= 1 << bit;
        }
        std::fs::write(&path, &bytes[..BLOCK]).unwrap();
        assert_eq!(sums.damage(&path, || true).unwrap(), Some(BLOCK as u64));
        std::fs::write(&path, [&bytes[..], &[0; BLOCK]].concat()).unwrap();
        assert_eq!(sums.damage(&path, || true).unwrap(), Some(2 * BLOCK as u64));
        assert_eq!(sums.damage(&path, || false).unwrap(), None);
    }

    #[test]
    fn a_sealed_file_with_any_byte_changed_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealed.json");
        let content = vec!["split".to_owned(), "0.25".to_owned()];
        write_sealed(&path, &content).unwrap();
        assert_eq!(read_sealed::<Vec<String>>(&path), Some(content));
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() - 1 {
            let mut changed = good.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert_eq!(read_sealed::<Vec<String>>(&path), None, "byte {at}");
            std::fs::write(&path, &good[..at]).unwrap();
            assert_eq!(read_sealed::<Vec<String>>(&path), None, "{at} bytes");
        }
    }
}
