//! Converts float32 values to half precision or to 8 bits with a scale.

use std::io::{self, Write};

use half::f16;
use half::slice::HalfFloatSliceExt;

/// The number of values that share a scale.
pub const BLOCK: usize = 64;
/// The number of values converted at once.
const CHUNK: usize = 1024 * BLOCK;
/// The limit for a tensor's relative error. The largest relative error of half precision, except for numbers too small
/// for it, is 2⁻¹¹ per value; a tensor with twice that on average has many values that are too small.
const MOST_ERROR: f64 = 1.0 / 1024.0;
/// The largest magnitude of an 8-bit value. Excluding −128 makes the format symmetric.
const LARGEST: f32 = 127.0;

/// The errors of converted values.
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorStats {
    /// The largest error.
    pub largest: f64,
    /// The sum of the squared errors.
    changes: f64,
    /// The sum of the squared values.
    numbers: f64,
    /// The number of NaN and infinite values.
    wild: usize,
    /// The number of finite values beyond the format's range.
    beyond: usize,
}

impl ErrorStats {
    /// Adds the errors of another tensor.
    pub fn add(&mut self, other: &Self) {
        self.largest = self.largest.max(other.largest);
        self.changes += other.changes;
        self.numbers += other.numbers;
    }

    /// Returns the errors over the values, each the root of the sum of squares.
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

    /// Returns the reason why the tensor stays float32, if it does.
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

/// Measures the errors of little-endian float32 values in half precision; fails with the reason if they stay float32.
pub fn check_half(bytes: &[u8]) -> Result<ErrorStats, String> {
    let errors = measure_half(bytes);
    errors.refusal(true).map_or(Ok(errors), Err)
}

/// The values of a tensor in half precision.
#[derive(Debug, Clone)]
pub enum HalfFit {
    /// They are rounded. Infinities stay infinite.
    Rounded(ErrorStats),
    /// The largest finite number of float32, positive or negative, is the only one beyond the range: masks and bounds for
    /// which torch writes `finfo(dtype)`, and which become the largest number of half precision.
    Limits(ErrorStats),
    /// Some are beyond the range; the reason.
    Beyond(String),
    /// Most are too small; the reason.
    TooSmall(String),
}

/// Returns how little-endian float32 values fit half precision.
pub fn half_fit(bytes: &[u8]) -> HalfFit {
    let errors = measure_half(bytes);
    let limits = || chunks(bytes).flatten().filter(|number| number.abs() == f32::MAX).count();
    match errors {
        ErrorStats { beyond: 1.., .. } if limits() == errors.beyond => HalfFit::Limits(errors),
        ErrorStats { beyond: 1.., .. } => {
            HalfFit::Beyond(ErrorStats { wild: 0, ..errors }.refusal(true).unwrap_or_default())
        }
        _ => match (ErrorStats { wild: 0, ..errors }).refusal(true) {
            Some(reason) => HalfFit::TooSmall(reason),
            None => HalfFit::Rounded(errors),
        },
    }
}

/// Returns little-endian float32 values with the largest number of half precision in the place of the largest of float32.
pub fn with_half_limits(bytes: &[u8]) -> Vec<u8> {
    let limited = |number: f32| if number.abs() == f32::MAX { number.signum() * f16::MAX.to_f32() } else { number };
    chunks(bytes).flatten().flat_map(|number| limited(number).to_le_bytes()).collect()
}

fn measure_half(bytes: &[u8]) -> ErrorStats {
    let mut errors = ErrorStats::default();
    let mut wide = vec![0.0; CHUNK];
    for (numbers, halves) in halves(bytes) {
        let Some(wide) = wide.get_mut(..halves.len()) else { continue };
        halves.convert_to_f32_slice(wide);
        numbers.iter().zip(wide).for_each(|(&number, now)| errors.note(number, *now));
    }
    errors
}

/// Writes little-endian float32 values in half precision.
pub fn write_half(bytes: &[u8], out: &mut (impl Write + ?Sized)) -> io::Result<()> {
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

/// The values of a tensor that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleGroup {
    /// Each [`BLOCK`] consecutive values.
    Block,
    /// The values of each column; the number of columns.
    Column(usize),
}

impl ScaleGroup {
    /// Returns the index of the scale for the value at `at`.
    fn scale_of(self, at: usize) -> usize {
        match self {
            Self::Block => at / BLOCK,
            Self::Column(columns) => at.checked_rem(columns).unwrap_or(0),
        }
    }
}

/// Measures the errors of little-endian float32 values (whole blocks or rows of them) in 8 bits, and returns their
/// scales, 1 if all values that share one are zero; fails with the reason if they stay float32.
pub fn check_scaled(bytes: &[u8], shared: ScaleGroup) -> Result<(ErrorStats, Vec<f32>), String> {
    let count = match shared {
        ScaleGroup::Block => bytes.len() / (4 * BLOCK),
        ScaleGroup::Column(columns) => columns,
    };
    let mut scales = vec![0.0f32; count];
    for (at, number) in chunks(bytes).flatten().enumerate() {
        let largest = scales.get_mut(shared.scale_of(at));
        largest.into_iter().for_each(|largest| *largest = largest.max(number.abs()));
    }
    for scale in &mut scales {
        let largest = *scale;
        *scale = if largest / LARGEST > 0.0 { largest / LARGEST } else { 1.0 };
    }
    let mut errors = ErrorStats::default();
    for (at, number) in chunks(bytes).flatten().enumerate() {
        let scale = scales.get(shared.scale_of(at)).copied().unwrap_or(1.0);
        errors.note(number, f32::from(quantize_value(number, scale)) * scale);
    }
    errors.refusal(false).map_or(Ok((errors, scales)), Err)
}

/// Writes little-endian float32 values as 8-bit ones with these scales.
pub fn write_scaled(bytes: &[u8], shared: ScaleGroup, scales: &[f32], out: &mut impl Write) -> io::Result<()> {
    let mut places = 0..;
    for numbers in chunks(bytes) {
        let scaled = numbers.into_iter().zip(&mut places);
        let narrow =
            scaled.map(|(number, at)| quantize_value(number, scales.get(shared.scale_of(at)).copied().unwrap_or(1.0)));
        out.write_all(&narrow.flat_map(i8::to_le_bytes).collect::<Vec<u8>>())?;
    }
    Ok(())
}

/// Divides a number by its scale and rounds to the nearest integer, ties to even.
fn quantize_value(number: f32, scale: f32) -> i8 {
    (number / scale).round_ties_even().clamp(-LARGEST, LARGEST) as i8
}

fn chunks(bytes: &[u8]) -> impl Iterator<Item = Vec<f32>> {
    bytes
        .chunks(4 * CHUNK)
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
        // A few small values next to larger ones are no loss.
        assert!(check_half(&bytes([1e-8, 0.5])).is_ok());
    }

    #[test]
    fn a_block_is_scaled_by_its_largest() {
        let numbers = (0..2 * BLOCK).map(|n| if n < BLOCK { n as f32 - 63.5 } else { 0.0 });
        let bytes = bytes(numbers);
        let (errors, scales) = check_scaled(&bytes, ScaleGroup::Block).unwrap();
        assert_eq!(scales, [0.5, 1.0]);
        assert_eq!((errors.largest, errors.relative()), (0.0, 0.0));
        let mut out = Vec::new();
        write_scaled(&bytes, ScaleGroup::Block, &scales, &mut out).unwrap();
        assert_eq!((out.len(), out[0] as i8, out[63] as i8, out[64]), (2 * BLOCK, -127, -1, 0));
    }
    #[test]
    fn a_column_is_scaled_by_its_largest() {
        let numbers = bytes([63.5, 0.0, -1.0, -31.75, 0.0, 254.0]);
        let (errors, scales) = check_scaled(&numbers, ScaleGroup::Column(3)).unwrap();
        // -31.75 and -1 are ties, and round to even.
        assert_eq!((scales.as_slice(), errors.largest), (&[0.5, 1.0, 2.0][..], 1.0));
        let mut out = Vec::new();
        write_scaled(&numbers, ScaleGroup::Column(3), &scales, &mut out).unwrap();
        assert_eq!(out.iter().map(|&byte| byte as i8).collect::<Vec<_>>(), [127, 0, 0, -64, 0, 127]);
    }
}
