//! Runs latent diffusion models on ONNX Runtime: a model directory and a pipeline.toml go in, images come out.
//!
//! ```
//! use ldm_ort::{Engine, Request};
//!
//! # fn main() -> ldm_ort::Result<()> {
//! let engine = Engine::builder().build()?;
//! let mut pipeline = engine.open("pipeline.toml")?;
//! let images = pipeline.generate(&Request::new().prompts(["a red circle on a white background"]).seed(42).steps(2))?;
//! assert_eq!((images[0].width(), images[0].height()), (64, 64));
//! images[0].save(std::env::temp_dir().join("circle.png"))?;
//! # Ok(())
//! # }
//! ```
//!
//! An [`Engine`] finds ONNX Runtime, or fetches it once, and keeps optimized graphs in the user's cache, as the command
//! `ldm-ort` does; [`EngineBuilder`] changes that. A [`Pipeline`] is one model or several in a row, loaded. A [`Request`] is
//! a cheap value that names what differs from the pipeline's file: prompts, seeds, sizes, the scheduler, another task.
//! [`Pipeline::run`] reports an [`Event`] for each step and each finished [`Image`], and a [`Cancel`] stops it from another
//! thread. Every failure is one [`Error`]; [`Error::kind`] tells whose fault it is.
//!
//! The rooms below the front door: [`spec`] reads pipeline files, [`bundle`] reads model directories, [`plan`] joins both,
//! [`execution`] runs plans, [`session`] finds ONNX Runtime and runs graphs; [`scheduler`], [`rng`], [`text`], [`vae`], [`denoise`]
//! and [`task`] are the parts of a diffusion model that are not graphs, [`lora`] changes the weights of those.
#![deny(missing_docs)]

pub mod aliases;
pub mod batch;
pub mod bundle;
mod byte_size;
#[cfg(feature = "cli")]
pub mod cli;
pub mod conditioner;
pub mod denoise;
pub mod engine;
pub mod error;
pub mod execution;
pub mod family;
mod files;
pub mod graph_cache;
mod guard;
pub mod image;
mod keys;
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
pub mod vae;

pub use bundle::Bundle;
pub use engine::{Engine, EngineBuilder, Event, Image, Pipeline, Request};
pub use error::{Error, ErrorKind, Problem, Result, StepPosition};
pub use image::{InputLimit, Rgb8};
pub use plan::{Plan, RunPlan};
pub use session::{Cancel, Runtime, RuntimeOptions};
pub use spec::{Overrides, Spec};
pub use task::InputImage;

/// The README's Rust compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
