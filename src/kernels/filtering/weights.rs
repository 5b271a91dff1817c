//! Transformed weights, rounded so that the errors of one kernel's weights cancel.
//!
//! A tile is a linear function of all products of its window, so the errors of a kernel's transformed weights can compensate for
//! each other. The expected square of the tile's error is `eᵀ Q e`, with the errors `e` of the weights. Weights are rounded in
//! turn: each to the value nearest to the one that minimizes this, given the errors of the weights before it.

use super::Filtering;
use crate::kernels::instruction_set::{InstructionSet, Work, vectorized};
use crate::kernels::lane::Lane;
use crate::kernels::number::Number;
use crate::kernels::pack::PanelShape;
use crate::kernels::tile_size::LANES;

/// A number of each of some kernels. All instruction sets compute the same bits.
type KernelLanes = [f64; LANES];

/// A transform of 3×3 kernels `g` to `G g Gᵀ`.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightTransform {
    /// `G`, by row of the transformed weights.
    rows: Vec<[f64; 3]>,
    /// The rows, and columns too, in the order in which they are rounded: the largest errors first.
    order: Vec<usize>,
    /// By place in this order, the shares of the errors of earlier rows that a row compensates for.
    shares: Vec<Vec<f64>>,
}

impl WeightTransform {
    /// The transform of a filtering.
    pub fn new(filtering: Filtering) -> Self {
        let rows = filtering.of_weights();
        let matrix = error_matrix(filtering);
        let error = |at: usize| matrix[at][at] * rows[at].iter().map(|factor| factor * factor).sum::<f64>();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|one, other| error(*other).total_cmp(&error(*one)));
        let ordered = order.iter().map(|&row| order.iter().map(|&column| matrix[row][column]).collect()).collect();
        Self { rows, order, shares: shares(ordered) }
    }

    /// Packs the transformed weights of some columns, as [`PanelShape::pack`] does; `taps` of the shape are the products.
    /// `kernel` gives a weight of a column, a depth and one of the nine taps.
    pub fn pack<E: Number>(&self, shape: PanelShape, kernel: impl Fn(usize, usize, usize) -> f32) -> Vec<E> {
        let mut packed = vec![E::default(); shape.packed_len::<E>()];
        vectorized(InstructionSet::best(), Packing { transform: self, shape, kernel, packed: &mut packed });
        packed
    }

    /// Transforms some kernels: the weights by row, then by column.
    #[inline(always)]
    fn transformed(&self, kernels: &[[KernelLanes; 3]; 3], weights: &mut [KernelLanes]) {
        let side = self.rows.len();
        for (factors, weights) in self.rows.iter().zip(weights.chunks_exact_mut(side)) {
            let line: [KernelLanes; 3] = std::array::from_fn(|column| {
                sum(factors, [&kernels[0][column], &kernels[1][column], &kernels[2][column]])
            });
            for (factors, weight) in self.rows.iter().zip(weights) {
                *weight = sum(factors, line.each_ref());
            }
        }
    }

    /// Rounds transformed weights, and returns their errors in `errors`.
    #[inline(always)]
    fn round<E: Number>(&self, weights: &mut [KernelLanes], errors: &mut [KernelLanes]) {
        let side = self.rows.len();
        for (row, of_row) in self.shares.iter().enumerate() {
            // The errors of earlier rows that this one compensates for, by column.
            let mut left = [[0.0; LANES]; LARGEST];
            for (share, errors) in of_row.iter().zip(errors.chunks_exact(side)) {
                for (left, error) in left.iter_mut().zip(errors) {
                    add(left, *share, error);
                }
            }
            for (column, of_column) in self.shares.iter().enumerate() {
                let mut compensated = left[column];
                for (earlier, share) in of_column.iter().enumerate() {
                    add(&mut compensated, *share, &left[earlier]);
                    add(&mut compensated, *share, &errors[row * side + earlier]);
                }
                let weight = &mut weights[self.order[row] * side + self.order[column]];
                let error = &mut errors[row * side + column];
                for ((weight, error), compensated) in weight.iter_mut().zip(error).zip(compensated) {
                    let rounded = f64::from(E::from_f32((*weight - compensated) as f32).to_f32());
                    *error = rounded - *weight;
                    *weight = rounded;
                }
            }
        }
    }
}

/// The side of the largest window.
const LARGEST: usize = 6;

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
fn shares(mut matrix: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut shares = vec![Vec::new(); matrix.len()];
    for last in (0..matrix.len()).rev() {
        let diagonal = matrix[last][last];
        let of_last: Vec<f64> = (0..last).map(|row| matrix[row][last] / diagonal).collect();
        for row in 0..last {
            for column in 0..last {
                matrix[row][column] -= of_last[row] * of_last[column] * diagonal;
            }
        }
        shares[last] = of_last;
    }
    shares
}

/// The weights of some columns, transformed into panels.
struct Packing<'a, E, F> {
    transform: &'a WeightTransform,
    shape: PanelShape,
    kernel: F,
    packed: &'a mut [E],
}

impl<E: Number, F: Fn(usize, usize, usize) -> f32> Work for Packing<'_, E, F> {
    #[inline(always)]
    fn run<L: Lane>(self) {
        let Self { transform, shape, kernel, packed } = self;
        let products = shape.taps;
        let (mut weights, mut errors) = (vec![[0.0; LANES]; products], vec![[0.0; LANES]; products]);
        for column in 0..shape.columns {
            for first in (0..shape.depth).step_by(LANES) {
                let count = LANES.min(shape.depth - first);
                let mut kernels = [[[0.0; LANES]; 3]; 3];
                for (tap, values) in kernels.as_flattened_mut().iter_mut().enumerate() {
                    for (at, value) in values.iter_mut().take(count).enumerate() {
                        *value = f64::from(kernel(column, first + at, tap));
                    }
                }
                transform.transformed(&kernels, &mut weights);
                transform.round::<E>(&mut weights, &mut errors);
                for (product, values) in weights.iter().enumerate() {
                    for (at, value) in values.iter().take(count).enumerate() {
                        packed[shape.place::<E>(column, product, first + at)] = E::from_f32(*value as f32);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn sum(factors: &[f64; 3], of: [&KernelLanes; 3]) -> KernelLanes {
    std::array::from_fn(|at| factors[0] * of[0][at] + factors[1] * of[1][at] + factors[2] * of[2][at])
}

#[inline(always)]
fn add(to: &mut KernelLanes, factor: f64, of: &KernelLanes) {
    for (to, value) in to.iter_mut().zip(of) {
        *to += factor * value;
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// The expected square of a tile's error, of what rounding leaves and of rounding each weight to the nearest.
    #[test]
    fn errors_cancel() {
        for (filtering, most) in
            [(Filtering::Two, 0.72), (Filtering::Three, 0.6), (Filtering::Four, 0.48), (Filtering::Doubled, 0.8)]
        {
            let transform = WeightTransform::new(filtering);
            let (side, matrix) = (filtering.window(), error_matrix(filtering));
            let shape = PanelShape { columns: 40, taps: filtering.products(), depth: 96 };
            let kernel = |column: usize, at: usize, tap: usize| {
                ((column * 7919 + at * 104_729 + tap * 1009) % 6421) as f32 / 6421.0 - 0.5
            };
            let packed = transform.pack::<bf16>(shape, kernel);
            let exact = transform.pack::<f32>(shape, kernel);
            let square = |rounded: &dyn Fn(usize) -> f32| {
                let mut total = 0.0;
                for (column, at) in (0..shape.columns).flat_map(|column| (0..shape.depth).map(move |at| (column, at))) {
                    let error = |product: usize| {
                        let place = |product| {
                            (shape.place::<bf16>(column, product, at), shape.place::<f32>(column, product, at))
                        };
                        let (place, of_exact) = place(product);
                        let value = if rounded(place).is_nan() {
                            bf16::from_f32(exact[of_exact]).to_f32()
                        } else {
                            rounded(place)
                        };
                        f64::from(value) - f64::from(exact[of_exact])
                    };
                    let errors: Vec<f64> = (0..shape.taps).map(error).collect();
                    for (one, other) in (0..shape.taps).flat_map(|one| (0..shape.taps).map(move |other| (one, other))) {
                        let entry = matrix[one / side][other / side] * matrix[one % side][other % side];
                        total += errors[one] * entry * errors[other];
                    }
                }
                total
            };
            let ratio = square(&|at| packed[at].to_f32()) / square(&|_| f32::NAN);
            assert!(ratio < most, "{filtering:?}: {ratio:.2}");
        }
    }
}
