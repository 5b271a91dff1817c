//! The transforms of windows and tiles, for some channels at a time.

use super::{POINTS_OF_FOUR, POINTS_OF_THREE};
use crate::kernels::lane::Lane;

/// Transforms of windows of side `WINDOW` and tiles of side `TILE`, written out.
pub trait Transform<const WINDOW: usize, const TILE: usize> {
    /// The side of a window in pixels of the image.
    const PIXELS: usize = WINDOW;

    /// Transforms a row or a column of a window, the first [`Transform::PIXELS`] numbers, in its place: `Bᵀ d`.
    fn forward<L: Lane>(line: &mut [L; WINDOW]);

    /// Transforms a row or a column of a kernel: `G g`.
    fn weights<L: Lane>(line: &[L; 3]) -> [L; WINDOW];

    /// Transforms a row or a column of products to one of a tile: `Aᵀ m`.
    fn back<L: Lane>(line: &[L; WINDOW]) -> [L; TILE];
}

/// The factors of a kernel's three weights for each of two points: `1`, the point and its square, divided by the product of its
/// distances from all other points, of which 0 may be one.
const fn of_points(points: [f32; 2], has_zero: bool) -> [[f32; 3]; 2] {
    let [a, b] = [points[0] as f64, points[1] as f64];
    let (of_a, of_b) = if has_zero { (a, b) } else { (1.0, 1.0) };
    let vanishes = [2.0 * a * (a * a - b * b) * of_a, 2.0 * b * (b * b - a * a) * of_b];
    [
        [(1.0 / vanishes[0]) as f32, (a / vanishes[0]) as f32, (a * a / vanishes[0]) as f32],
        [(1.0 / vanishes[1]) as f32, (b / vanishes[1]) as f32, (b * b / vanishes[1]) as f32],
    ]
}

/// For each of two points, what it and its negative have in common, and what has the other sign.
#[inline(always)]
fn even_and_odd<L: Lane>(line: &[L; 3], [of_a, of_b]: &[[f32; 3]; 2]) -> [(L, L); 2] {
    let [g0, g1, g2] = *line;
    let even_a = g0.times(L::all(of_a[0])).plus_times(g2, L::all(of_a[2]));
    let even_b = g0.times(L::all(of_b[0])).plus_times(g2, L::all(of_b[2]));
    [(even_a, g1.times(L::all(of_a[1]))), (even_b, g1.times(L::all(of_b[1])))]
}

/// F(2×2, 3×3).
pub struct Two;

impl Transform<4, 2> for Two {
    #[inline(always)]
    fn forward<L: Lane>(line: &mut [L; 4]) {
        let [d0, d1, d2, d3] = *line;
        *line = [d2.minus(d0), d2.plus(d1), d2.minus(d1), d3.minus(d1)];
    }

    #[inline(always)]
    fn weights<L: Lane>(line: &[L; 3]) -> [L; 4] {
        let [g0, g1, g2] = *line;
        let (even, odd) = (g0.plus(g2).times(L::all(0.5)), g1.times(L::all(0.5)));
        [g0.times(L::all(-1.0)), even.plus(odd), even.minus(odd), g2]
    }

    #[inline(always)]
    fn back<L: Lane>(line: &[L; 4]) -> [L; 2] {
        let [m0, m1, m2, m3] = *line;
        [m0.plus(m1.plus(m2)), m1.minus(m2).plus(m3)]
    }
}

/// F(3×3, 3×3). The points are ±a and ±b: what a point and its negative have in common is computed once.
pub struct Three;

impl Transform<5, 3> for Three {
    #[inline(always)]
    fn forward<L: Lane>(line: &mut [L; 5]) {
        let [a, b] = POINTS_OF_THREE;
        let (less_a, less_b) = (L::all(-a * a), L::all(-b * b));
        let [d0, d1, d2, d3, d4] = *line;
        let (odd_a, odd_b) = (d3.plus_times(d1, less_b), d3.plus_times(d1, less_a));
        let even_a = d2.plus_times(d0, less_b).times(L::all(a));
        let even_b = d2.plus_times(d0, less_a).times(L::all(b));
        line[0] = odd_a.plus(even_a);
        line[1] = odd_a.minus(even_a);
        line[2] = odd_b.plus(even_b);
        line[3] = odd_b.minus(even_b);
        line[4] = d4.plus_times(d2, L::all(-a * a - b * b)).plus_times(d0, L::all(a * a * b * b));
    }

    #[inline(always)]
    fn weights<L: Lane>(line: &[L; 3]) -> [L; 5] {
        const OF_POINTS: [[f32; 3]; 2] = of_points(POINTS_OF_THREE, false);
        let [(even_a, odd_a), (even_b, odd_b)] = even_and_odd(line, &OF_POINTS);
        [odd_a.plus(even_a), odd_a.minus(even_a), odd_b.plus(even_b), odd_b.minus(even_b), line[2]]
    }

    #[inline(always)]
    fn back<L: Lane>(line: &[L; 5]) -> [L; 3] {
        let [a, b] = POINTS_OF_THREE;
        let [m0, m1, m2, m3, m4] = *line;
        let (even_a, even_b) = (m0.plus(m1), m2.plus(m3));
        let (odd_a, odd_b) = (m0.minus(m1), m2.minus(m3));
        [
            even_a.plus(even_b),
            odd_b.times(L::all(b)).plus_times(odd_a, L::all(a)),
            m4.plus_times(even_b, L::all(b * b)).plus_times(even_a, L::all(a * a)),
        ]
    }
}

/// F(4×4, 3×3). The same, and the point 0.
pub struct Four;

impl Transform<6, 4> for Four {
    #[inline(always)]
    fn forward<L: Lane>(line: &mut [L; 6]) {
        let [a, b] = POINTS_OF_FOUR;
        let (less_a, less_b) = (L::all(-a * a), L::all(-b * b));
        let (sum, product) = (L::all(-a * a - b * b), L::all(a * a * b * b));
        let [d0, d1, d2, d3, d4, d5] = *line;
        let (even_a, even_b) = (d4.plus_times(d2, less_b), d4.plus_times(d2, less_a));
        let odd_a = d3.plus_times(d1, less_b).times(L::all(a));
        let odd_b = d3.plus_times(d1, less_a).times(L::all(b));
        line[0] = d4.plus_times(d2, sum).plus_times(d0, product);
        line[1] = even_a.plus(odd_a);
        line[2] = even_a.minus(odd_a);
        line[3] = even_b.plus(odd_b);
        line[4] = even_b.minus(odd_b);
        line[5] = d5.plus_times(d3, sum).plus_times(d1, product);
    }

    #[inline(always)]
    fn weights<L: Lane>(line: &[L; 3]) -> [L; 6] {
        const OF_POINTS: [[f32; 3]; 2] = of_points(POINTS_OF_FOUR, true);
        const OF_ZERO: f32 = 1.0 / (POINTS_OF_FOUR[0] * POINTS_OF_FOUR[0] * POINTS_OF_FOUR[1] * POINTS_OF_FOUR[1]);
        let [(even_a, odd_a), (even_b, odd_b)] = even_and_odd(line, &OF_POINTS);
        [
            line[0].times(L::all(OF_ZERO)),
            even_a.plus(odd_a),
            even_a.minus(odd_a),
            even_b.plus(odd_b),
            even_b.minus(odd_b),
            line[2],
        ]
    }

    #[inline(always)]
    fn back<L: Lane>(line: &[L; 6]) -> [L; 4] {
        let [a, b] = POINTS_OF_FOUR;
        let [m0, m1, m2, m3, m4, m5] = *line;
        let (even_a, even_b) = (m1.plus(m2), m3.plus(m4));
        let (odd_a, odd_b) = (m1.minus(m2), m3.minus(m4));
        [
            m0.plus(even_a.plus(even_b)),
            odd_b.times(L::all(b)).plus_times(odd_a, L::all(a)),
            even_b.times(L::all(b * b)).plus_times(even_a, L::all(a * a)),
            m5.plus_times(odd_b, L::all(b * b * b)).plus_times(odd_a, L::all(a * a * a)),
        ]
    }
}

/// F(2×2, 2×2) of doubled pixels.
pub struct Doubled;

impl Transform<6, 4> for Doubled {
    const PIXELS: usize = 4;

    #[inline(always)]
    fn forward<L: Lane>(line: &mut [L; 6]) {
        let [d0, d1, d2, d3, ..] = *line;
        *line = [d0.minus(d1), d1, d2.minus(d1), d1.minus(d2), d2, d3.minus(d2)];
    }

    #[inline(always)]
    fn weights<L: Lane>(line: &[L; 3]) -> [L; 6] {
        let [g0, g1, g2] = *line;
        let (first, last) = (g0.plus(g1), g1.plus(g2));
        let all = first.plus(g2);
        [g0, all, last, first, all, g2]
    }

    #[inline(always)]
    fn back<L: Lane>(line: &[L; 6]) -> [L; 4] {
        let [m0, m1, m2, m3, m4, m5] = *line;
        [m0.plus(m1), m3.plus(m4), m1.plus(m2), m4.plus(m5)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Filtering;
    use crate::kernels::lane::Array;
    use crate::kernels::tile_size::LANES;

    /// The transforms are those of the matrices, and a tile is a convolution.
    #[test]
    fn transforms_are_the_matrices() {
        check::<Two, 4, 2>(Filtering::Two);
        check::<Three, 5, 3>(Filtering::Three);
        check::<Four, 6, 4>(Filtering::Four);
        check::<Doubled, 6, 4>(Filtering::Doubled);
    }

    fn check<T: Transform<W, S>, const W: usize, const S: usize>(filtering: Filtering) {
        let number = |n: usize| ((n * 37 + 11) % 29) as f32 / 29.0 - 0.5;
        let mut line: [Array; W] = std::array::from_fn(|at| Array::all(number(at)));
        let from = line.map(|lane| f64::from(lane.values()[0]));
        T::forward(&mut line);
        let is_doubled = filtering == Filtering::Doubled;
        for (row, made) in filtering.of_image().iter().zip(&line) {
            let wanted: f64 = row.iter().zip(from).map(|(coefficient, value)| coefficient * value).sum();
            assert!((f64::from(made.values()[LANES - 1]) - wanted).abs() < 1e-6, "{made:?}, not {wanted}");
        }
        let kernel = [0.5, -0.25, 0.125];
        let made = T::weights(&kernel.map(|value| Array::all(value as f32)));
        for ((weights, made), line) in filtering.of_weights().iter().zip(made).zip(&mut line) {
            let weight: f64 = weights.iter().zip(kernel).map(|(weight, value)| weight * value).sum();
            assert!((f64::from(made.values()[0]) - weight).abs() < 1e-6, "{made:?}, not {weight}");
            *line = line.times(made);
        }
        for (at, made) in T::back(&line).iter().enumerate() {
            let place = |tap: usize| if is_doubled { (at + tap).div_ceil(2) } else { at + tap };
            let wanted: f64 = kernel.iter().enumerate().map(|(tap, weight)| weight * from[place(tap)]).sum();
            assert!((f64::from(made.values()[0]) - wanted).abs() < 1e-6, "{made:?}, not {wanted}");
        }
        for (row, made) in filtering.of_tile_rows().iter().zip(T::back(&line)) {
            let wanted: f64 = row.iter().zip(&line).map(|(factor, lane)| factor * f64::from(lane.values()[0])).sum();
            assert!((f64::from(made.values()[0]) - wanted).abs() < 1e-6, "{made:?}, not {wanted}");
        }
        assert_eq!((filtering.tile(), filtering.products()), (S, W * W));
    }
}
