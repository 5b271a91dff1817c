//! The transform of weights, some depths of a panel at a time.

use std::marker::PhantomData;

use super::cancellation::Cancellation;
use super::transform::Transform;
use crate::kernels::instruction_set::Work;
use crate::kernels::lane::{HALVES, Lane};
use crate::kernels::number::Number;
use crate::kernels::tile_size::COLUMNS;

/// The distance of two products' weights for this many depths: apart by more than a multiple of 4096 bytes, so that those of one
/// place are in different sets of the first cache.
pub fn product_stride(depth: usize) -> usize {
    (depth + 1) * COLUMNS
}

/// Transforms `depth` of the depths of a panel from `first` on to `[products, depth]` of the panel's columns.
///
/// Depths and columns are in the same order in both, so that this is done without regard to it.
pub struct PanelTransform<'t, T, E, const W: usize, const S: usize> {
    /// The panel of the nine taps.
    pub panel: &'t [E],
    /// The first depth.
    pub first: usize,
    /// The number of depths.
    pub depth: usize,
    /// How the weights are rounded; `None` for each to the nearest, which takes a third of the time.
    pub cancellation: Option<&'t Cancellation>,
    /// Room for the transformed weights.
    pub out: &'t mut [E],
    /// The transform.
    pub transform: PhantomData<T>,
}

impl<T: Transform<W, S>, E: Number, const W: usize, const S: usize> Work for PanelTransform<'_, T, E, W, S> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        const TAPS: usize = 9;
        let Self { panel, first, depth, cancellation, out, .. } = self;
        let (of_tap, of_product) = (panel.len() / TAPS, product_stride(depth));
        let panel = &panel[first * COLUMNS..];
        // Out here, so that they are not filled with zeros each time.
        let (mut lines, mut weights) = ([[[L::zero(); 3]; HALVES]; W], [[[L::zero(); W]; W]; HALVES]);
        for at in (0..depth * COLUMNS).step_by(COLUMNS) {
            for across in 0..3 {
                let mut taps = [[L::zero(); 3]; HALVES];
                for down in 0..3 {
                    let [first, second] = L::read_columns(&panel[(3 * down + across) * of_tap + at..][..COLUMNS]);
                    (taps[0][down], taps[1][down]) = (first, second);
                }
                let [first, second] = [T::weights(&taps[0]), T::weights(&taps[1])];
                for (line, (first, second)) in lines.iter_mut().zip(first.into_iter().zip(second)) {
                    (line[0][across], line[1][across]) = (first, second);
                }
            }
            for (row, line) in lines.iter().enumerate() {
                let [first, second] = [T::weights(&line[0]), T::weights(&line[1])];
                if cancellation.is_some() {
                    (weights[0][row], weights[1][row]) = (first, second);
                    continue;
                }
                for (column, columns) in first.into_iter().zip(second).enumerate() {
                    let to = (row * W + column) * of_product + at;
                    L::write_columns(columns.into(), &mut out[to..to + COLUMNS]);
                }
            }
            let Some(cancellation) = cancellation else { continue };
            for weights in &mut weights {
                cancellation.round::<L, E, W>(weights);
            }
            for (product, (first, second)) in weights[0].iter().flatten().zip(weights[1].iter().flatten()).enumerate() {
                let to = product * of_product + at;
                L::write_columns([*first, *second], &mut out[to..to + COLUMNS]);
            }
        }
    }
}
