//! The operations after the sums of a product.

use super::functions::Activation;
use super::lane::{HALVES, Lane};
use super::number::Number;
use super::threads::Parts;
use super::tile::FetchedRows;
use super::tile_size::{COLUMNS, LANES};

/// The operations after a product. The result of a row is `activation(sum + bias + added) · gate + residual`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// A number for each column.
    pub bias: Option<&'a [f32]>,
    /// A number for each image and column, such as a time embedding.
    pub added: Option<&'a [f32]>,
    /// The activation.
    pub activation: Activation,
    /// True if columns are in pairs of 16 values and 16 gates: the result has half of the columns, `value ·
    /// activation(gate)`.
    pub is_gated: bool,
    /// A factor for each image and column.
    pub gate: Option<&'a [f32]>,
    /// A number for each row and column of the result.
    pub residual: Option<&'a [f32]>,
}

impl Epilogue<'_> {
    /// The columns of the result of a product of `columns`.
    pub fn out_columns(&self, columns: usize) -> usize {
        if self.is_gated { columns / 2 } else { columns }
    }

    /// Panics if an operand does not have the length that `columns` and `images` want.
    pub fn check(&self, columns: usize, images: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == columns));
        let per_image = |values: Option<&[f32]>, columns: usize| values.is_none_or(|v| v.len() == images * columns);
        assert!(per_image(self.added, columns) && per_image(self.gate, self.out_columns(columns)));
        assert!(!self.is_gated || columns.is_multiple_of(COLUMNS));
    }
}

/// The operations after the sums of one panel and image.
pub struct PanelEpilogue<'a, L> {
    of: Epilogue<'a>,
    offsets: [L; HALVES],
    factors: [L; HALVES],
    out_columns: usize,
    /// The first column of the result.
    at: usize,
    /// The columns of the result that are this panel's.
    width: usize,
}

impl<'a, L: Lane> PanelEpilogue<'a, L> {
    /// Prepares them for a panel of a product of `columns`.
    #[inline(always)]
    pub fn new(of: Epilogue<'a>, columns: usize, panel: usize, image: usize) -> Self {
        let at = panel * COLUMNS;
        let mut offsets = [L::zero(); HALVES];
        for values in [of.bias, of.added.map(|added| &added[image * columns..])].into_iter().flatten() {
            for (offsets, values) in offsets.iter_mut().zip(values[at..columns].chunks(LANES)) {
                *offsets = offsets.plus(L::read(values));
            }
        }
        let out_columns = of.out_columns(columns);
        let (at, width) = if of.is_gated { (at / 2, COLUMNS / 2) } else { (at, COLUMNS.min(columns - at)) };
        let mut factors = [L::all(1.0); HALVES];
        if let Some(gate) = of.gate {
            let gate = &gate[image * out_columns + at..][..width];
            factors.iter_mut().zip(gate.chunks(LANES)).for_each(|(factors, gate)| *factors = L::read(gate));
        }
        Self { of, offsets, factors, out_columns, at, width }
    }

    /// Adds what [`PanelEpilogue::write`] reads and writes to `rows` that are fetched: the result is seldom in a cache.
    #[inline(always)]
    pub fn fetched<O: Number>(&self, rows: StepRows, out: &Parts<'_, O>, fetched: &mut Vec<FetchedRows>) {
        let (start, stride) = (rows.first * self.out_columns + self.at, rows.step * self.out_columns);
        fetched.push(fetched_rows(out.address(start), self.width, stride, rows.count));
        if let Some(residual) = self.of.residual {
            fetched.push(fetched_rows(residual.as_ptr().wrapping_add(start), self.width, stride, rows.count));
        }
    }

    /// Writes rows of the result, of sums that this may change.
    ///
    /// # Safety
    /// No other task writes these rows of this panel.
    #[inline(always)]
    pub unsafe fn write<O: Number>(&self, rows: StepRows, sums: &mut [[f32; COLUMNS]], out: &Parts<'_, O>) {
        let sums = &mut sums[..rows.count];
        let mut offsets = self.offsets;
        if self.of.is_gated || self.of.activation != Activation::Identity {
            self.activate::<O>(sums);
            offsets = [L::zero(); HALVES];
        }
        // SAFETY: as the caller promises.
        unsafe {
            match (self.of.residual.is_some(), self.width) {
                (true, COLUMNS) => self.write_rows::<O, COLUMNS, true>(&offsets, rows, sums, out),
                (false, COLUMNS) => self.write_rows::<O, COLUMNS, false>(&offsets, rows, sums, out),
                (true, _) => self.write_rows::<O, 0, true>(&offsets, rows, sums, out),
                (false, _) => self.write_rows::<O, 0, false>(&offsets, rows, sums, out),
            }
        }
    }

    /// Adds the offsets, and applies the activation or the gates, which are the other half of a gated panel.
    #[inline(always)]
    fn activate<O: Number>(&self, sums: &mut [[f32; COLUMNS]]) {
        let Epilogue { activation, is_gated, .. } = self.of;
        for sums in sums {
            let mut halves = [L::zero(); HALVES];
            for half in 0..HALVES {
                halves[half] = L::read(&sums[half * LANES..(half + 1) * LANES]).plus(self.offsets[half]);
            }
            if is_gated {
                halves[0] = halves[0].times(halves[1].activated::<O>(activation));
            } else {
                for half in &mut halves {
                    *half = half.activated::<O>(activation);
                }
            }
            for half in 0..HALVES {
                halves[half].write(&mut sums[half * LANES..(half + 1) * LANES]);
            }
        }
    }

    /// Writes rows of `WIDTH` columns, or, if that is 0, of those that there are.
    ///
    /// # Safety
    /// As [`PanelEpilogue::write`].
    #[inline(always)]
    unsafe fn write_rows<O: Number, const WIDTH: usize, const RESIDUAL: bool>(
        &self,
        offsets: &[L; HALVES],
        rows: StepRows,
        sums: &[[f32; COLUMNS]],
        out: &Parts<'_, O>,
    ) {
        let width = if WIDTH == 0 { self.width } else { WIDTH };
        let (start, stride) = (rows.first * self.out_columns + self.at, rows.step * self.out_columns);
        let mut out = out.rows(start, stride, sums.len(), width);
        let mut residual = self.of.residual.unwrap_or_default();
        if RESIDUAL {
            residual = &residual[start..][..sums.len().saturating_sub(1) * stride + width];
        }
        for (number, sums) in sums.iter().enumerate() {
            for (half, (offset, factor)) in offsets.iter().zip(self.factors).enumerate() {
                let at = half * LANES;
                if at >= width {
                    break;
                }
                let count = if WIDTH == 0 { LANES.min(width - at) } else { LANES };
                let mut lane = L::read(&sums[at..at + LANES]).plus(*offset).times(factor);
                // SAFETY: within the result and the residual, as was checked above, and the caller has these rows alone.
                unsafe {
                    if RESIDUAL {
                        let residual = residual.as_ptr().add(number * stride + at);
                        lane = lane.plus(L::read(std::slice::from_raw_parts(residual, count)));
                    }
                    lane.write(std::slice::from_raw_parts_mut(out.add(at), count));
                }
            }
            out = out.wrapping_add(stride);
        }
    }
}

/// Rows of `width` values that are fetched.
fn fetched_rows<T>(start: *const T, width: usize, stride: usize, rows: usize) -> FetchedRows {
    let size = size_of::<T>();
    FetchedRows { start: start.cast(), stride: stride * size, bytes: width * size, rows }
}

/// Rows of a result at equal distances.
#[derive(Debug, Clone, Copy)]
pub struct StepRows {
    /// The first one.
    pub first: usize,
    /// The distance of two rows.
    pub step: usize,
    /// The number of rows.
    pub count: usize,
}
