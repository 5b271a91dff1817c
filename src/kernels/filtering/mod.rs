//! 3×3 convolutions with fewer multiplications: minimal filtering of Winograd 1980, as in Lavin and Gray 2015 (arXiv
//! 1509.09308, section 4.1).
//!
//! Each tile of the result, m×m pixels, comes from a window of (m + 2)×(m + 2) pixels of the image. The window is transformed
//! to as many numbers `Bᵀ d B`; each is multiplied by a separate matrix `[out, in]` of the transformed weights `G g Gᵀ`;
//! and these products are transformed to the tile, `Aᵀ m A`.

mod cancellation;
mod convolution;
mod transform;
mod weights;
mod windows;

pub use convolution::FilteredConvolution;

/// A size of tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Filtering {
    /// F(2×2, 3×3): 16 products instead of 36.
    Two,
    /// F(3×3, 3×3): 25 products instead of 81. Rounds 1.6 times as much as `Two`.
    Three,
    /// F(4×4, 3×3): 36 products instead of 144. Rounds 2.8 times as much as `Two`.
    Four,
    /// For an image whose pixels are doubled in both directions before: four pixels of the result in a row are two at even
    /// and two at odd places, each two by F(2, 2) of four pixels of the image. 36 products instead of 64. Rounds 1.5 times as
    /// much as `Two`.
    Doubled,
}

/// Points of Cook's and Toom's polynomials, with their negatives. F(4×4) also has 0, and all have infinity. These minimize how much
/// the rounding errors of transformed windows and weights grow: 2.62 and 4.74 times, against 1.67 for F(2×2).
const POINTS_OF_THREE: [f32; 2] = [0.375, 1.25];
const POINTS_OF_FOUR: [f32; 2] = [0.65625, 1.53125];

impl Filtering {
    /// The filtering whose tiles have this side, of an image whose pixels are doubled or not.
    pub fn of_tile(side: usize, is_doubled: bool) -> Option<Self> {
        let all = [Self::Two, Self::Three, Self::Four, Self::Doubled].into_iter();
        all.filter(|own| (*own == Self::Doubled) == is_doubled).find(|own| own.tile() == side)
    }

    /// The side of a tile.
    pub fn tile(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Three => 3,
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

    fn points(self) -> Vec<f64> {
        let both_signs = |points: [f32; 2]| points.into_iter().map(f64::from).flat_map(|point| [point, -point]);
        match self {
            Self::Two => vec![0.0, 1.0, -1.0],
            Self::Three => both_signs(POINTS_OF_THREE).collect(),
            Self::Four => [0.0].into_iter().chain(both_signs(POINTS_OF_FOUR)).collect(),
            Self::Doubled => Vec::new(),
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
            let of_points = self.points().into_iter().map(|point| point.powi(power as i32));
            of_points.chain([if power == highest { 1.0 } else { 0.0 }]).collect()
        };
        (0..=highest).map(row).collect()
    }
}
