//! The weights of keys in attention, some keys at a time.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod scores;
mod weights;

pub use scores::{Scores, Softmax};
pub use weights::{AttentionElement, weights};
