//! Images that were not cut off.

/// The bytes that are looked at, at each end.
pub(super) const EDGE: usize = 12;

/// The last chunk of a PNG file.
const IEND: [u8; 12] = [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xae, 0x42, 0x60, 0x82];

/// True if a file of this length has the first and the last bytes of a whole PNG, JPEG or WebP file.
pub(super) fn is_whole(start: &[u8], end: &[u8], length: u64) -> bool {
    match start {
        [0x89, b'P', b'N', b'G', ..] => end.ends_with(&IEND),
        [0xff, 0xd8, ..] => end.ends_with(&[0xff, 0xd9]),
        [b'R', b'I', b'F', b'F', a, b, c, d, ..] => u64::from(u32::from_le_bytes([*a, *b, *c, *d])) + 8 == length,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{ImageFormat, Rgb8, encode_as};

    #[test]
    fn a_cut_image_is_not_whole() {
        let image = Rgb8::new(5, 3, (0..45).collect()).unwrap();
        for format in [ImageFormat::Png, ImageFormat::Jpeg(90), ImageFormat::WebP] {
            let bytes = encode_as(&image, format, &[("ldm-ort", "{}".to_owned())]).unwrap();
            let whole = |bytes: &[u8]| {
                let edge = EDGE.min(bytes.len());
                is_whole(&bytes[..edge], &bytes[bytes.len() - edge..], bytes.len() as u64)
            };
            assert!(whole(&bytes), "{format:?}");
            for length in [0, 1, 12, bytes.len() / 2, bytes.len() - 1] {
                assert!(!whole(&bytes[..length]), "{format:?} {length}");
            }
        }
    }
}
