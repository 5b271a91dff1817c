//! Transformed weights, rounded so that the errors of one kernel's weights cancel.
//!
//! A tile is a linear function of all products of its window, so the errors of a kernel's transformed weights can compensate for
//! each other. The expected square of the tile's error is `eᵀ Q e`, with the errors `e` of the weights. Weights are rounded in
//! turn: each to the value nearest to the one that minimizes this, given the errors of the weights before it.

use super::Filtering;
use crate::kernels::lane::Lane;
use crate::kernels::number::Number;

/// How the weights of a filtering are rounded.
#[derive(Debug, Clone, PartialEq)]
pub struct Cancellation {
    /// The rows of transformed weights, and their columns too, in the order in which they are rounded: the largest errors first.
    order: Vec<usize>,
    /// By place in this order, the shares of the errors of earlier rows that a row compensates for.
    shares: Vec<Vec<f32>>,
}

impl Cancellation {
    /// That of a filtering.
    pub fn new(filtering: Filtering) -> Self {
        let matrix = error_matrix(filtering);
        let factors = filtering.of_weights();
        let error = |at: usize| matrix[at][at] * factors[at].iter().map(|factor| factor * factor).sum::<f64>();
        let mut order: Vec<usize> = (0..factors.len()).collect();
        order.sort_by(|one, other| error(*other).total_cmp(&error(*one)));
        let ordered = order.iter().map(|&row| order.iter().map(|&column| matrix[row][column]).collect()).collect();
        Self { order, shares: shares(ordered) }
    }

    /// Rounds transformed weights to values of `E`.
    #[inline(always)]
    pub fn round<L: Lane, E: Number, const W: usize>(&self, weights: &mut [[L; W]; W]) {
        let mut errors = [[L::zero(); W]; W];
        for (row, (&at_row, of_row)) in self.order.iter().zip(&self.shares).enumerate() {
            // The errors of earlier rows that this one compensates for, by column, and then those of this row too.
            let mut left = [L::zero(); W];
            for (share, errors) in of_row.iter().zip(&errors) {
                for (left, error) in left.iter_mut().zip(errors) {
                    *left = left.plus_times(*error, L::all(*share));
                }
            }
            for (column, (&at_column, of_column)) in self.order.iter().zip(&self.shares).enumerate() {
                let mut compensated = left[column];
                for (share, earlier) in of_column.iter().zip(&left) {
                    compensated = compensated.plus_times(*earlier, L::all(*share));
                }
                let weight = weights[at_row][at_column];
                let rounded = weight.minus(compensated).rounded::<E>();
                weights[at_row][at_column] = rounded;
                errors[row][column] = rounded.minus(weight);
                left[column] = left[column].plus(errors[row][column]);
            }
        }
    }
}

/// The factor of rows, and that of columns, of `Q`: the products of two rows' effects on a tile (`A Aᵀ`), times the
/// covariance of the same two rows of a transformed window (`Bᵀ C B`, for pixels with the covariance `C`, which resemble their
/// neighbors a little).
fn error_matrix(filtering: Filtering) -> Vec<Vec<f64>> {
    const NEIGHBORS: f64 = 0.3;
    let (tile, image) = (filtering.of_tile_rows(), filtering.of_image());
    let entry = |one: usize, other: usize| {
        let meet: f64 = tile.iter().map(|row| row[one] * row[other]).sum();
        let pixels = |at: usize| image[at].iter().enumerate();
        let pairs = pixels(one).flat_map(|one| pixels(other).map(move |other| (one, other)));
        let together = pairs.map(|((at, one), (place, other))| one * other * NEIGHBORS.powi(at.abs_diff(place) as i32));
        meet * together.sum::<f64>()
    };
    (0..filtering.window()).map(|one| (0..filtering.window()).map(|other| entry(one, other)).collect()).collect()
}

/// The shares of a symmetric matrix `Q = M D Mᵀ`, with ones in the diagonal of `M` and zeros below: `eᵀ Q e` is the sum of
/// `D[j] (e[j] + Σ M[i][j] e[i])²`, with all i before j.
fn shares(mut matrix: Vec<Vec<f64>>) -> Vec<Vec<f32>> {
    let mut shares = vec![Vec::new(); matrix.len()];
    for last in (0..matrix.len()).rev() {
        let diagonal = matrix[last][last];
        let of_last: Vec<f64> = (0..last).map(|row| matrix[row][last] / diagonal).collect();
        for row in 0..last {
            for column in 0..last {
                matrix[row][column] -= of_last[row] * of_last[column] * diagonal;
            }
        }
        shares[last] = of_last.into_iter().map(|share| share as f32).collect();
    }
    shares
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::kernels::lane::Array;
    use crate::kernels::tile_size::LANES;

    /// The expected square of a tile's error, of what rounding leaves and of rounding each weight to the nearest.
    #[test]
    fn errors_cancel() {
        check::<4>(Filtering::Two, 0.72);
        check::<5>(Filtering::Three, 0.6);
        check::<6>(Filtering::Four, 0.48);
        check::<6>(Filtering::Doubled, 0.8);
    }

    fn check<const W: usize>(filtering: Filtering, most: f64) {
        let (cancellation, matrix) = (Cancellation::new(filtering), error_matrix(filtering));
        let factors = filtering.of_weights();
        let (mut left, mut nearest) = (0.0, 0.0);
        for at in 0..256 {
            let number =
                |lane: usize, tap: usize| (((at * LANES + lane) * 7919 + tap * 104_729) % 6421) as f64 / 6421.0 - 0.5;
            let weight = |row: usize, column: usize, lane: usize| -> f32 {
                let terms = (0..9).map(|tap| factors[row][tap / 3] * factors[column][tap % 3] * number(lane, tap));
                terms.sum::<f64>() as f32
            };
            let exact: [[Array; W]; W] = std::array::from_fn(|row| {
                std::array::from_fn(|column| Array::of(std::array::from_fn(|lane| weight(row, column, lane))))
            });
            let mut rounded = exact;
            cancellation.round::<Array, bf16, W>(&mut rounded);
            left += square(&matrix, &exact, &rounded);
            nearest += square(&matrix, &exact, &exact.map(|row| row.map(|lane| lane.rounded::<bf16>())));
        }
        let ratio = left / nearest;
        assert!(ratio < most && ratio > 0.0, "{filtering:?}: {ratio:.2}");
    }

    /// `eᵀ Q e` of all lanes.
    fn square<const W: usize>(matrix: &[Vec<f64>], exact: &[[Array; W]; W], rounded: &[[Array; W]; W]) -> f64 {
        let places = || (0..W).flat_map(|row| (0..W).map(move |column| (row, column)));
        let error = |(row, column): (usize, usize), lane: usize| {
            let values = [rounded, exact].map(|weights| f64::from(weights[row][column].values()[lane]));
            values[0] - values[1]
        };
        let of_lane = |lane: usize| {
            let errors: Vec<_> = places().map(|place| (place, error(place, lane))).collect();
            let terms = errors.iter().flat_map(|one| errors.iter().map(move |other| (one, other)));
            terms.map(|((at, one), (to, other))| one * matrix[at.0][to.0] * matrix[at.1][to.1] * other).sum::<f64>()
        };
        (0..LANES).map(of_lane).sum()
    }
}
