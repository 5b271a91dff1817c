//! The operations after the sums of a product.

use super::functions::{Activation, activate};
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

/// Applies an activation. Without one, the lane stays in registers.
#[inline(always)]
fn activated(mut lane: Lane, activation: Activation) -> Lane {
    if activation != Activation::Identity {
        activate(activation, &mut lane.0);
    }
    lane
}

/// The operations after the sums of one panel and image.
pub struct PanelEpilogue<'a> {
    of: Epilogue<'a>,
    offsets: [Lane; HALVES],
    factors: [Lane; HALVES],
    out_columns: usize,
    /// The first column of the result.
    at: usize,
    /// The columns of the result that are this panel's.
    width: usize,
}

impl<'a> PanelEpilogue<'a> {
    /// Prepares them for a panel of a product of `columns`.
    #[inline(always)]
    pub fn new(of: Epilogue<'a>, columns: usize, panel: usize, image: usize) -> Self {
        let at = panel * COLUMNS;
        let mut offsets = [Lane::ZERO; HALVES];
        for values in [of.bias, of.added.map(|added| &added[image * columns..])].into_iter().flatten() {
            for (offsets, values) in offsets.iter_mut().zip(values[at..columns].chunks(LANES)) {
                *offsets = offsets.plus(&Lane::read(values));
            }
        }
        let out_columns = of.out_columns(columns);
        let (at, width) = if of.is_gated { (at / 2, COLUMNS / 2) } else { (at, COLUMNS.min(columns - at)) };
        let mut factors = [Lane::all(1.0); HALVES];
        if let Some(gate) = of.gate {
            let gate = &gate[image * out_columns + at..][..width];
            factors.iter_mut().zip(gate.chunks(LANES)).for_each(|(factors, gate)| *factors = Lane::read(gate));
        }
        Self { of, offsets, factors, out_columns, at, width }
    }

    /// Writes a row of the result.
    ///
    /// # Safety
    /// No other task writes this row of this panel.
    #[inline(always)]
    pub unsafe fn write<O: Number>(&self, row: usize, sums: &[f32; COLUMNS], out: &Parts<'_, O>) {
        let Epilogue { activation, is_gated, gate, residual, .. } = self.of;
        let start = row * self.out_columns + self.at;
        // Its gates are the other half of a gated panel.
        for half in 0..self.width.div_ceil(LANES) {
            let mut lane = self.sum(half, sums);
            if is_gated {
                lane = lane.times_each(&activated(self.sum(1, sums), activation));
            } else {
                lane = activated(lane, activation);
            }
            if gate.is_some() {
                lane = lane.times_each(&self.factors[half]);
            }
            let (at, width) = (start + half * LANES, LANES.min(self.width - half * LANES));
            if let Some(residual) = residual {
                lane = lane.plus(&Lane::read(&residual[at..at + width]));
            }
            // SAFETY: as the caller promises.
            lane.write(unsafe { out.range(at, width) });
        }
    }

    #[inline(always)]
    fn sum(&self, half: usize, sums: &[f32; COLUMNS]) -> Lane {
        Lane::read(&sums[half * LANES..(half + 1) * LANES]).plus(&self.offsets[half])
    }
}
