//! Runs latent diffusion models on ONNX Runtime: a model directory and a pipeline.toml go in, images come out.
//!
//! A pipeline passes through three types. A [`Spec`] is the TOML as written, with every key checked. A [`Plan`] is that
//! spec held against the model directory it names, with every choice made. A [`ModelExecution`] has the graphs open and runs
//! any number of requests.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use ldm_ort::{Cancel, Event, Overrides, ModelExecution, Plan, Runtime, RuntimeOptions, Spec};
//!
//! # fn main() -> ldm_ort::Result<()> {
//! let text = r#"
//! [model]
//! path = "models/shapes"
//!
//! [task.text-to-image]
//! prompt = "a red circle on a white background"
//! guidance_scale = 3.0
//!
//! [run]
//! steps = 2
//! seed = 42
//! "#;
//! let plan = Plan::new(Spec::parse(text, None, &Overrides::default())?)?;
//! let runtime = Runtime::load(&RuntimeOptions::default())?;
//! let cancel = Cancel::new();
//!
//! let mut images = Vec::new();
//! let mut watch = |event: Event<'_>| {
//!     if let Event::Image(image) = &event {
//!         images.push(image.pixels.clone());
//!     }
//!     ControlFlow::Continue(())
//! };
//! let mut pipeline = ModelExecution::load(plan.model, &runtime, &cancel, &mut watch)?;
//! pipeline.run(&plan.request, &cancel, &mut watch)?;
//! assert_eq!((images[0].width(), images[0].height()), (64, 64));
//! # Ok(())
//! # }
//! ```
//!
//! A pipeline of several models in a row is run by [`execution::Execution`] in the place of [`ModelExecution`].
//!
//! Paths in a pipeline are relative to its file, or to the current directory where the text came from elsewhere. What
//! happens is told to an [`Observer`], which may stop the run; a [`Cancel`] stops it from another thread. Everything
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
pub mod error;
pub mod execution;
mod files;
pub mod graph_cache;
mod guard;
pub mod image;
mod keys;
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
pub use error::{Error, Problem, Result, StepPosition};
pub use execution::{Event, Image, ModelExecution, Observer};
pub use plan::{Plan, RunPlan};
pub use session::{Cancel, Runtime, RuntimeOptions};
pub use spec::{Overrides, Spec};

/// The README's Rust compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
