//! Runs latent diffusion models on ONNX Runtime: a model directory and a pipeline.toml go in, images come out.
//!
//! ```no_run
//! use ldm_ort::{Engine, Request};
//!
//! # fn main() -> ldm_ort::Result<()> {
//! let mut pipeline = Engine::default().open("pipeline.toml")?;
//! let images = pipeline.generate(&Request::new().seed(42).steps(20))?;
//! images[0].save("image.png")?;
//! # Ok(())
//! # }
//! ```
//!
//! Below that front door a pipeline passes through three types. A [`Spec`] is the TOML as written, with every key checked.
//! A [`Plan`] is that spec held against the model directory it names, with every choice made; a [`plan::ModelSources`]
//! reads a directory once for any number of plans. An [`execution::Execution`] has graphs open and runs any number of
//! plans.
//!
//! Paths in a pipeline are relative to its file, or to the current directory where the text came from elsewhere. What
//! happens is told to an [`execution::Observer`], which may stop the run; a [`Cancel`] stops it from another thread. Everything
//! that goes wrong is one [`Error`], which says whose fault it is.
//!
//! The rooms below the front: [`bundle`] reads model directories, [`session`] finds ONNX Runtime and runs graphs,
//! [`scheduler`], [`rng`], [`text`], [`latent`], [`denoise`] and [`task`] are the parts of a diffusion model that are
//! not graphs, [`lora`] changes the weights of those. [`plot`] draws schedules.
#![deny(missing_docs)]

pub mod bundle;
#[cfg(feature = "cli")]
pub mod cli;
pub mod conditioner;
pub mod denoise;
pub mod engine;
pub mod error;
pub mod execution;
mod files;
pub mod graph_cache;
mod guard;
pub mod image;
pub mod latent;
pub mod lora;
pub mod memory;
pub mod metadata;
pub mod npy;
pub mod plan;
#[cfg(feature = "plot")]
pub mod plot;
pub mod quantize;
pub mod rewrite;
pub mod rng;
pub mod scheduler;
pub mod session;
pub mod spec;
pub mod task;
pub mod tensor;
pub mod text;
mod threads;
pub mod tiles;

pub use bundle::Bundle;
pub use engine::{Engine, EngineBuilder, Event, Image, Pipeline, Request};
pub use error::{Error, Problem, Result, StepPosition};
pub use plan::{Plan, RunPlan};
pub use session::{Cancel, Runtime, RuntimeOptions};
pub use spec::{Overrides, Spec};

/// The README's Rust compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
