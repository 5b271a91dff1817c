//! Attention without the matrix of scores: keys are taken some hundreds at a time, and what was summed before is scaled
//! when a larger score appears (Dao et al. 2022, arXiv 2205.14135).
//!
//! Scores are computed transposed, keys as rows and queries as columns. So a query's maximum and sum are column by column,
//! and the weights of two keys pack into a panel for the product with the values without any shuffling.
//!
//! A score is at most the product of the norms of its query and its key. Where that bound is small enough for float32's
//! exponents, no largest score is looked for, and the weights of 32 keys are made while the next scores are computed.

mod operands;
mod queries;
mod run;

pub use operands::{Attention, Heads, KeyMask};
