//! The operations after the sums of a product.

use super::functions::Activation;
use super::lane::{HALVES, Lane};
use super::number::Number;
use super::threads::Parts;
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

    /// Adds the cache lines that [`PanelEpilogue::write`] reads and writes to `lines`: the result is seldom in a cache.
    #[inline(always)]
    pub fn lines<O: Number>(&self, rows: StepRows, out: &Parts<'_, O>, lines: &mut Vec<*const i8>) {
        for number in 0..rows.count {
            let start = rows.row(number) * self.out_columns + self.at;
            add_lines(out.address(start), self.width, lines);
            if let Some(residual) = self.of.residual {
                add_lines(residual.as_ptr().wrapping_add(start), self.width, lines);
            }
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
            self.activate(sums);
            offsets = [L::zero(); HALVES];
        }
        // SAFETY: as the caller promises.
        unsafe {
            match (self.of.residual, self.width) {
                (Some(residual), COLUMNS) => self.write_rows::<O, COLUMNS, true>(&offsets, rows, sums, residual, out),
                (None, COLUMNS) => self.write_rows::<O, COLUMNS, false>(&offsets, rows, sums, &[], out),
                (Some(residual), _) => self.write_rows::<O, 0, true>(&offsets, rows, sums, residual, out),
                (None, _) => self.write_rows::<O, 0, false>(&offsets, rows, sums, &[], out),
            }
        }
    }

    /// Adds the offsets, and applies the activation or the gates, which are the other half of a gated panel.
    #[inline(always)]
    fn activate(&self, sums: &mut [[f32; COLUMNS]]) {
        let Epilogue { activation, is_gated, .. } = self.of;
        for sums in sums {
            let mut halves = [L::zero(); HALVES];
            for half in 0..HALVES {
                halves[half] = L::read(&sums[half * LANES..(half + 1) * LANES]).plus(self.offsets[half]);
            }
            if is_gated {
                halves[0] = halves[0].times(halves[1].activated(activation));
            } else {
                for half in &mut halves {
                    *half = half.activated(activation);
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
        residual: &[f32],
        out: &Parts<'_, O>,
    ) {
        let width = if WIDTH == 0 { self.width } else { WIDTH };
        for (number, sums) in sums.iter().enumerate() {
            let start = rows.row(number) * self.out_columns + self.at;
            // SAFETY: as the caller promises.
            let out = unsafe { out.range(start, width) };
            let residual = if RESIDUAL { &residual[start..start + width] } else { residual };
            for half in 0..width.div_ceil(LANES) {
                let at = half * LANES..width.min((half + 1) * LANES);
                let mut lane = L::read(&sums[half * LANES..(half + 1) * LANES]).plus(offsets[half]);
                lane = lane.times(self.factors[half]);
                if RESIDUAL {
                    lane = lane.plus(L::read(&residual[at.clone()]));
                }
                lane.write(&mut out[at]);
            }
        }
    }
}

/// Adds the cache lines of some values, which begin at a line or a fraction of it.
#[inline(always)]
fn add_lines<T>(start: *const T, len: usize, lines: &mut Vec<*const i8>) {
    const LINE: usize = 64;
    for at in (0..len * size_of::<T>()).step_by(LINE) {
        lines.push(start.cast::<i8>().wrapping_add(at));
    }
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

impl StepRows {
    #[inline(always)]
    fn row(self, number: usize) -> usize {
        self.first + number * self.step
    }
}
