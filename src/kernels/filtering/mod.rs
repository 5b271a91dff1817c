//! 3×3 convolutions with fewer multiplications: minimal filtering of Winograd 1980, as in Lavin and Gray 2015 (arXiv
//! 1509.09308, section 4.1).
//!
//! Each tile of the result, m×m pixels, comes from a window of (m + 2)×(m + 2) pixels of the image. The window is transformed
//! to as many numbers `Bᵀ d B`; each is multiplied by a separate matrix `[out, in]` of the transformed weights `G g Gᵀ`;
//! and these products are transformed to the tile, `Aᵀ m A`.

mod convolution;
mod transform;

pub use convolution::FilteredConvolution;

/// A size of tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Filtering {
    /// F(2×2, 3×3): 16 products instead of 36. Rounds less than the convolution itself.
    Two,
    /// F(4×4, 3×3): 36 products instead of 144. Rounds about five times as much.
    Four,
    /// For an image whose pixels are doubled in both directions before: four pixels of the result in a row are two at even
    /// and two at odd places, each two by F(2, 2) of four pixels of the image. 36 products instead of 64. Rounds 1.3 times as
    /// much as `Two` in float32, and 1.6 times in bf16.
    Doubled,
}

/// The points of Cook's and Toom's polynomials but infinity. In a search among small fractions, those of F(4×4) had a third
/// of the error of the usual 0, ±1, ±2.
const POINTS: [f64; 5] = [0.0, 0.75, -0.75, 1.5, -1.5];
const FEWER_POINTS: [f64; 3] = [0.0, 1.0, -1.0];

impl Filtering {
    /// The filtering whose tiles have this side, of an image whose pixels are doubled or not.
    pub fn of_tile(side: usize, is_doubled: bool) -> Option<Self> {
        let all = [Self::Two, Self::Four, Self::Doubled].into_iter();
        all.filter(|own| (*own == Self::Doubled) == is_doubled).find(|own| own.tile() == side)
    }

    /// The side of a tile.
    pub fn tile(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four | Self::Doubled => 4,
        }
    }

    /// The side of a transformed window.
    pub fn window(self) -> usize {
        self.tile() + 2
    }

    /// The products of a tile.
    pub fn products(self) -> usize {
        self.window() * self.window()
    }

    fn points(self) -> &'static [f64] {
        match self {
            Self::Two => &FEWER_POINTS,
            Self::Four => &POINTS,
            Self::Doubled => &[],
        }
    }

    /// `G`, by row of the transformed weights.
    pub fn of_weights(self) -> Vec<[f64; 3]> {
        if self == Self::Doubled {
            // At even places the kernel's first weight and the sum of the others, at odd ones the sum of two and the last.
            let even = [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]];
            let odd = [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0]];
            return [even, odd].concat();
        }
        let points = self.points();
        let of_point = |(at, &point): (usize, &f64)| {
            let others = points.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, other)| point - other);
            let vanishes: f64 = others.product();
            [1.0 / vanishes, point / vanishes, point * point / vanishes]
        };
        // Infinity takes the highest power alone.
        points.iter().enumerate().map(of_point).chain([[0.0, 0.0, 1.0]]).collect()
    }

    /// `Bᵀ`: the coefficients of the polynomials that vanish at all points but one.
    pub fn of_image(self) -> Vec<Vec<f64>> {
        if self == Self::Doubled {
            let even = [[1.0, -1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, -1.0, 1.0, 0.0]];
            let odd = [[0.0, 1.0, -1.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, -1.0, 1.0]];
            return [even, odd].concat().iter().map(|row| row.to_vec()).collect();
        }
        let points = self.points();
        let of_point = |at: usize| {
            let mut polynomial = vec![0.0; self.window()];
            polynomial[0] = 1.0;
            for point in points.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, point)| point) {
                for power in (0..polynomial.len()).rev() {
                    let lower = if power > 0 { polynomial[power - 1] } else { 0.0 };
                    polynomial[power] = lower - point * polynomial[power];
                }
            }
            polynomial
        };
        (0..self.window()).map(of_point).collect()
    }

    /// `Aᵀ`, by row of the tile.
    pub fn of_tile_rows(self) -> Vec<Vec<f64>> {
        if self == Self::Doubled {
            let firsts = [0, 3, 1, 4];
            let row =
                |first| (0..self.window()).map(|at| f64::from(u8::from(at == first || at == first + 1))).collect();
            return firsts.into_iter().map(row).collect();
        }
        let highest = self.tile() - 1;
        let row = |power: usize| {
            let of_points = self.points().iter().map(|point| point.powi(power as i32));
            of_points.chain([if power == highest { 1.0 } else { 0.0 }]).collect()
        };
        (0..=highest).map(row).collect()
    }

    /// The transform of weights.
    pub fn weights(self) -> WeightTransform {
        let matrix = self.of_weights();
        let pairs = matrix.iter().flat_map(|left| matrix.iter().map(move |right| (left, right)));
        let products = pairs.map(|(left, right)| std::array::from_fn(|tap| left[tap / 3] * right[tap % 3]));
        WeightTransform(products.collect())
    }
}

/// A transform of 3×3 kernels: the factors of their nine weights, for each product.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightTransform(Vec<[f64; 9]>);

impl WeightTransform {
    /// A transformed weight: a number of `G g Gᵀ` for the 3×3 kernel `g`, by rows. The sum is float64.
    pub fn weight(&self, kernel: impl Fn(usize) -> f32, product: usize) -> f32 {
        let factors = self.0[product].iter().enumerate();
        factors.map(|(tap, factor)| factor * f64::from(kernel(tap))).sum::<f64>() as f32
    }
}
