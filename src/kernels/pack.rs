//! The right operands of products, in the order in which they are read.

use super::number::{Number, OperandValue};
use super::tile_size::COLUMNS;

/// The shape of a right operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PanelShape {
    /// Columns, each of which gives one number of the result.
    pub columns: usize,
    /// Places of the left operand that a row is made of: 1 for a matrix, 9 for a 3×3 convolution.
    pub taps: usize,
    /// Values at each place.
    pub depth: usize,
}

impl PanelShape {
    /// The depth with its padding.
    pub fn padded_depth<E: OperandValue>(self) -> usize {
        E::padded(self.depth)
    }

    /// The number of panels.
    pub fn panels(self) -> usize {
        self.columns.div_ceil(COLUMNS)
    }

    /// The number of values of a panel.
    pub fn panel_len<E: OperandValue>(self) -> usize {
        self.taps * self.padded_depth::<E>() * COLUMNS
    }

    /// The number of values of all panels.
    pub fn packed_len<E: OperandValue>(self) -> usize {
        self.panels() * self.panel_len::<E>()
    }

    /// Packs the operand whose value for a column, a tap and a depth is `value`.
    ///
    /// A panel holds 32 columns: by tap, by group of depths, by column, the depths of a group side by side. Depths and
    /// columns are padded with zeros. All instruction sets read the same order.
    pub fn pack<E: Number>(self, value: impl Fn(usize, usize, usize) -> f32) -> Vec<E> {
        let mut packed = vec![E::default(); self.packed_len::<E>()];
        for column in 0..self.columns {
            for tap in 0..self.taps {
                for at in 0..self.depth {
                    packed[self.place::<E>(column, tap, at)] = E::from_f32(value(column, tap, at));
                }
            }
        }
        packed
    }

    /// The place of a packed value.
    #[inline(always)]
    pub fn place<E: Number>(self, column: usize, tap: usize, at: usize) -> usize {
        let group = (tap * self.padded_depth::<E>() + at) / E::GROUP * E::GROUP;
        let within = group * COLUMNS + column % COLUMNS * E::GROUP + at % E::GROUP;
        column / COLUMNS * self.panel_len::<E>() + within
    }
}
