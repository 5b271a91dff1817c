//! Reasons for which nodes compute in float32, beside those of their operators.

pub const POSITIONS: &str = "timesteps and positions, and their sines and cosines, need more than 11 bits";
pub const NORMS: &str = "squares of activations and their means leave the range of half precision";
pub const DIVISIONS: &str = "denominators of linear attention are too small for half precision";
pub const RESIDUALS: &str = "sums over the layers of a text encoder with RMS norms leave the range of half precision";
pub const SCORES: &str = "scores of attention, in float32 where config.json has upcast_attention";
pub const WHOLE_NUMBERS: &str = "lengths, positions and masks computed from whole numbers are exact in float32";
pub const WEIGHTS: &str = "the values of a weight or a constant leave the range of half precision";
