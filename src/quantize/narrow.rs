//! Float32 in fewer bits.

use std::io::{self, Write};

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Numbers that share a scale.
pub const BLOCK: usize = 64;
/// Numbers looked at in one go.
const CHUNK: usize = 1024 * BLOCK;
/// The largest relative error of half precision, but for numbers too small for it, is 2⁻¹¹ a number. A tensor with twice
/// that on the average has many that are too small.
const MOST_ERROR: f64 = 1.0 / 1024.0;
/// The largest magnitude of an 8-bit number. That −128 is left out makes the form symmetric.
const LARGEST: f32 = 127.0;

/// How far numbers are off.
#[derive(Debug, Clone, Copy, Default)]
pub struct Errors {
    /// The largest change.
    pub largest: f64,
    /// The squares of the changes.
    changes: f64,
    /// The squares of the numbers.
    numbers: f64,
    /// Numbers that are not finite.
    wild: usize,
    /// Finite ones beyond what the form holds.
    beyond: usize,
}

impl Errors {
    /// Adds those of another tensor.
    pub fn add(&mut self, other: &Self) {
        self.largest = self.largest.max(other.largest);
        self.changes += other.changes;
        self.numbers += other.numbers;
    }

    /// The changes over the numbers, each the root of the sum of squares.
    pub fn relative(&self) -> f64 {
        if self.numbers > 0.0 { (self.changes / self.numbers).sqrt() } else { 0.0 }
    }

    fn note(&mut self, number: f32, now: f32) {
        if !number.is_finite() {
            self.wild += 1;
        } else if !now.is_finite() {
            self.beyond += 1;
        } else {
            let change = f64::from(now) - f64::from(number);
            self.largest = self.largest.max(change.abs());
            self.changes += change * change;
            self.numbers += f64::from(number) * f64::from(number);
        }
    }

    /// Why the tensor stays float32, if it does.
    fn refusal(&self, is_half: bool) -> Option<String> {
        match self {
            Self { wild: 1.., .. } => Some(format!("{} of its values are NaN or infinite", self.wild)),
            Self { beyond: 1.., .. } => {
                Some(format!("{} of its values are beyond 65504, the largest of half precision", self.beyond))
            }
            _ if is_half && self.relative() > MOST_ERROR => Some(format!(
                "its values are too small for half precision, which would change them by {:.1e} of their size",
                self.relative()
            )),
            _ => None,
        }
    }
}

/// Looks at how float32 numbers, little-endian, come out in half precision; why they stay as they are, where they do.
pub fn check_half(bytes: &[u8]) -> Result<Errors, String> {
    let mut errors = Errors::default();
    let mut wide = vec![0.0; CHUNK];
    for (numbers, halves) in halves(bytes) {
        let Some(wide) = wide.get_mut(..halves.len()) else { continue };
        halves.convert_to_f32_slice(wide);
        numbers.iter().zip(wide).for_each(|(&number, now)| errors.note(number, *now));
    }
    errors.refusal(true).map_or(Ok(errors), Err)
}

/// Writes float32 numbers, little-endian, in half precision.
pub fn write_half(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    for (_, halves) in halves(bytes) {
        let narrow: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        out.write_all(&narrow)?;
    }
    Ok(())
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = (Vec<f32>, Vec<f16>)> {
    chunks(bytes).map(|numbers| {
        let mut halves = vec![f16::ZERO; numbers.len()];
        halves.convert_from_f32_slice(&numbers);
        (numbers, halves)
    })
}

/// Looks at how float32 numbers, little-endian and whole blocks of them, come out in blocks of 8 bits, and gives the
/// blocks' scales; why they stay as they are, where they do.
pub fn check_blocks(bytes: &[u8]) -> Result<(Errors, Vec<f32>), String> {
    let mut errors = Errors::default();
    let mut scales = Vec::with_capacity(bytes.len() / (4 * BLOCK));
    for numbers in chunks(bytes) {
        for block in numbers.chunks(BLOCK) {
            let scale = scale(block);
            block.iter().for_each(|&number| errors.note(number, f32::from(whole(number, scale)) * scale));
            scales.push(scale);
        }
    }
    errors.refusal(false).map_or(Ok((errors, scales)), Err)
}

/// Writes float32 numbers, little-endian and whole blocks of them, as 8-bit ones.
pub fn write_blocks(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    for numbers in chunks(bytes) {
        let mut narrow = Vec::with_capacity(numbers.len());
        for block in numbers.chunks(BLOCK) {
            let scale = scale(block);
            narrow.extend(block.iter().flat_map(|&number| whole(number, scale).to_le_bytes()));
        }
        out.write_all(&narrow)?;
    }
    Ok(())
}

/// Looks at how float32 numbers, little-endian and rows of so many `columns`, come out as 8-bit ones with a scale a column,
/// and gives the scales; why they stay as they are, where they do.
pub fn check_columns(bytes: &[u8], columns: usize) -> Result<(Errors, Vec<f32>), String> {
    let mut largest = vec![0.0f32; columns];
    for row in rows(bytes, columns) {
        largest.iter_mut().zip(row).for_each(|(largest, number)| *largest = largest.max(number.abs()));
    }
    let scales: Vec<f32> = largest.into_iter().map(scale_to).collect();
    let mut errors = Errors::default();
    for row in rows(bytes, columns) {
        let numbers = row.into_iter().zip(&scales);
        numbers.for_each(|(number, &scale)| errors.note(number, f32::from(whole(number, scale)) * scale));
    }
    errors.refusal(false).map_or(Ok((errors, scales)), Err)
}

/// Writes float32 numbers, little-endian, as 8-bit ones with these scales of their columns.
pub fn write_columns(bytes: &[u8], scales: &[f32], out: &mut impl Write) -> io::Result<()> {
    for row in rows(bytes, scales.len()) {
        let numbers = row.into_iter().zip(scales);
        let narrow: Vec<u8> = numbers.flat_map(|(number, &scale)| whole(number, scale).to_le_bytes()).collect();
        out.write_all(&narrow)?;
    }
    Ok(())
}

/// What a block's 8-bit numbers are multiplied by; 1 for a block of zeros.
fn scale(block: &[f32]) -> f32 {
    scale_to(block.iter().fold(0.0f32, |largest, number| largest.max(number.abs())))
}

/// What 8-bit numbers are multiplied by to reach the largest magnitude; 1 where that is zero.
fn scale_to(largest: f32) -> f32 {
    let scale = largest / LARGEST;
    if scale > 0.0 { scale } else { 1.0 }
}

/// A number over its scale, rounded to the nearest whole one, a half to the even one.
fn whole(number: f32, scale: f32) -> i8 {
    (number / scale).round_ties_even().clamp(-LARGEST, LARGEST) as i8
}

fn chunks(bytes: &[u8]) -> impl Iterator<Item = Vec<f32>> {
    rows(bytes, CHUNK)
}

fn rows(bytes: &[u8], columns: usize) -> impl Iterator<Item = Vec<f32>> {
    bytes
        .chunks(4 * columns.max(1))
        .map(|chunk| chunk.chunks_exact(4).filter_map(|b| b.try_into().ok()).map(f32::from_le_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(numbers: impl IntoIterator<Item = f32>) -> Vec<u8> {
        numbers.into_iter().flat_map(f32::to_le_bytes).collect()
    }

    #[test]
    fn what_half_cannot_hold_stays() {
        let fine = check_half(&bytes([1.0, -0.1, 65504.0, 0.0])).unwrap();
        assert!(fine.relative() > 0.0 && fine.relative() < 1.0 / 2048.0, "{fine:?}");
        assert!(check_half(&bytes([1.0, 65520.0])).unwrap_err().contains("1 of its values are beyond 65504"));
        assert!(check_half(&bytes([f32::NAN, f32::INFINITY])).unwrap_err().contains("2 of its values are NaN"));
        assert!(check_half(&bytes([1e-8; 8])).unwrap_err().contains("too small"));
        // A few small ones beside larger ones are no loss.
        assert!(check_half(&bytes([1e-8, 0.5])).is_ok());
    }

    #[test]
    fn a_block_is_scaled_by_its_largest() {
        let numbers = (0..2 * BLOCK).map(|n| if n < BLOCK { n as f32 - 63.5 } else { 0.0 });
        let bytes = bytes(numbers);
        let (errors, scales) = check_blocks(&bytes).unwrap();
        assert_eq!(scales, [0.5, 1.0]);
        assert_eq!((errors.largest, errors.relative()), (0.0, 0.0));
        let mut out = Vec::new();
        write_blocks(&bytes, &mut out).unwrap();
        assert_eq!((out.len(), out[0] as i8, out[63] as i8, out[64]), (2 * BLOCK, -127, -1, 0));
    }

    #[test]
    fn a_column_is_scaled_by_its_largest() {
        let bytes_of = bytes([63.5, 0.0, -1.0, -31.75, 0.0, 254.0]);
        let (errors, scales) = check_columns(&bytes_of, 3).unwrap();
        assert_eq!(scales, [0.5, 1.0, 2.0]);
        // -31.75 and -1 are halfway between two: 63.5 and 0.5 of their scales.
        assert_eq!(errors.largest, 1.0);
        let mut out = Vec::new();
        write_columns(&bytes_of, &scales, &mut out).unwrap();
        assert_eq!(out.iter().map(|&byte| byte as i8).collect::<Vec<_>>(), [127, 0, 0, -64, 0, 127]);
        assert!(check_columns(&bytes([1.0, f32::INFINITY]), 2).unwrap_err().contains("1 of its values are NaN"));
    }
}
