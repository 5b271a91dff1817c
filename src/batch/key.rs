//! Names of images by content.

use sha2::{Digest, Sha256};

use crate::image::ImageFormat;

/// The name of an image: the SHA-256 of the canonical form of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// Returns the key of a text.
    pub(super) fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Returns the key as a number: its first eight bytes, big-endian.
    pub fn number(self) -> u64 {
        self.0.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// Returns the image's file below the batch's folder: `<first two digits>/<key>.png`, `.jpg` or `.webp`.
    pub fn file(self, format: ImageFormat) -> String {
        let text = self.to_string();
        format!("{}/{text}{}", &text[..2], format.extension())
    }
}

impl std::fmt::Display for Key {
    /// Writes 64 hexadecimal digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sha256_in_hexadecimal() {
        let key = Key::of("abc");
        assert_eq!(key.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(key.number(), 0xba78_16bf_8f01_cfea);
        assert_eq!(key.file(ImageFormat::Jpeg(90)), format!("ba/{key}.jpg"));
    }
}
