//! Label maps: images with a class number per pixel.

use std::io::BufReader;
use std::path::Path;

use super::{InputLimit, load::contain_panics};
use crate::error::{Error, Result};
use crate::files::open_input;

/// A class number per pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap {
    /// The width in pixels.
    pub width: usize,
    /// The height in pixels.
    pub height: usize,
    /// The labels, rows from the top.
    pub labels: Vec<u8>,
}

/// Loads a label map: a PNG of at most 8 bits, gray (the level is the label) or with a palette (the index is the
/// label).
///
/// # Errors
///
/// [`Error::Input`] if the file is missing, is not such a PNG, is truncated or too large; [`Error::Io`] if it cannot be
/// opened.
pub fn load_labels(path: &Path, limit: InputLimit) -> Result<LabelMap> {
    contain_panics(path, || decode_labels(path, limit))
}

fn decode_labels(path: &Path, limit: InputLimit) -> Result<LabelMap> {
    const HELP: &str = "save it as a PNG with one label per pixel, 8 bits, gray or with a palette";
    let fail = |problem: String| Error::input(path.display().to_string(), problem, HELP);
    let mut decoder = png::Decoder::new_with_limits(BufReader::new(open_input(path)?), limit.png_limits());
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(|e| fail(format!("cannot be decoded as a PNG: {e}")))?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    limit.check(path, (width, height))?;
    let (color, depth) = reader.output_color_type();
    if !matches!(color, png::ColorType::Grayscale | png::ColorType::Indexed) || depth == png::BitDepth::Sixteen {
        return Err(fail(format!("expected one channel of at most 8 bits, found {color:?} of {} bits", depth as u8)));
    }
    let Some(size) = reader.output_buffer_size() else { return Err(fail("is too large to read".to_owned())) };
    let mut bytes = vec![0; size];
    let frame = reader.next_frame(&mut bytes).map_err(|e| fail(format!("cannot be decoded: {e}")))?;
    let bits = depth as usize;
    let (per_byte, mask) = (8 / bits, ((1_u16 << bits) - 1) as u8);
    let label = |row: &[u8], x: usize| {
        let shift = 8 - bits * (x % per_byte + 1);
        row.get(x / per_byte).map_or(0, |byte| (byte >> shift) & mask)
    };
    let rows = bytes.chunks(frame.line_size.max(1)).take(height);
    let labels = rows.flat_map(|row| (0..width).map(|x| label(row, x)).collect::<Vec<_>>()).collect();
    Ok(LabelMap { width, height, labels })
}

impl LabelMap {
    /// Resizes the map by nearest neighbor.
    pub fn resize(&self, width: usize, height: usize) -> Self {
        let at = |i: usize, from: usize, to: usize| ((2 * i + 1) * from / (2 * to)).min(from.saturating_sub(1));
        let pixel =
            |y: usize, x: usize| self.labels[at(y, self.height, height) * self.width + at(x, self.width, width)];
        let labels = (0..height).flat_map(|y| (0..width).map(move |x| (y, x))).map(|(y, x)| pixel(y, x)).collect();
        Self { width, height, labels }
    }
}
