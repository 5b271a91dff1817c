//! Label maps: images that hold a number for each pixel.

use std::io::BufReader;
use std::path::Path;

use super::{InputLimit, load::contained};
use crate::error::{Error, Result};
use crate::files::open_input;

/// A number for each pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap {
    /// The width in pixels.
    pub width: usize,
    /// The height in pixels.
    pub height: usize,
    /// The labels, rows from the top.
    pub labels: Vec<u8>,
}

/// Loads a label map: a PNG of 8 bits or fewer, grey (the level is the label) or with a palette (the entry is).
///
/// # Errors
///
/// [`Error::Input`] where there is no such file, it is no PNG of that kind, it is cut short or too large;
/// [`Error::Io`] where it cannot be opened.
pub fn load_labels(path: &Path, limit: InputLimit) -> Result<LabelMap> {
    contained(path, || decode_labels(path, limit))
}

fn decode_labels(path: &Path, limit: InputLimit) -> Result<LabelMap> {
    const HELP: &str = "save it as a PNG with one label a pixel, 8 bits, grey or with a palette";
    let fail = |problem: String| Error::input(path.display().to_string(), problem, HELP);
    let mut decoder = png::Decoder::new_with_limits(BufReader::new(open_input(path)?), limit.of_png());
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(|e| fail(format!("cannot be decoded as a PNG: {e}")))?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    limit.check(path, (width, height))?;
    let (color, depth) = reader.output_color_type();
    if !matches!(color, png::ColorType::Grayscale | png::ColorType::Indexed) || depth == png::BitDepth::Sixteen {
        return Err(fail(format!("holds {color:?} of {} bits, and labels are single numbers up to 255", depth as u8)));
    }
    let Some(size) = reader.output_buffer_size() else { return Err(fail("is too large to be read".to_owned())) };
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
    /// The same map at another size, each pixel that of the nearest.
    pub fn resized(&self, width: usize, height: usize) -> Self {
        let at = |i: usize, from: usize, to: usize| ((2 * i + 1) * from / (2 * to)).min(from.saturating_sub(1));
        let pixel =
            |y: usize, x: usize| self.labels[at(y, self.height, height) * self.width + at(x, self.width, width)];
        let labels = (0..height).flat_map(|y| (0..width).map(move |x| (y, x))).map(|(y, x)| pixel(y, x)).collect();
        Self { width, height, labels }
    }
}
