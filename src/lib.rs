//! Runs latent diffusion models on ONNX Runtime.
#![deny(missing_docs)]

pub mod bundle;
pub mod cli;
pub mod denoise;
pub mod error;
mod files;
pub mod image;
pub mod latent;
pub mod metadata;
pub mod npy;
pub mod pipeline;
pub mod plan;
pub mod rng;
pub mod scheduler;
pub mod session;
pub mod spec;
pub mod task;
pub mod tensor;
pub mod text;

pub use error::{Error, Problem, Result};
