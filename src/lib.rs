//! Runs latent diffusion models on ONNX Runtime: a model directory and a pipeline.toml go in, images come out.
//!
//! # A first image
//!
//! An [`Engine`] finds ONNX Runtime, or fetches it once, and keeps optimized graphs in the user's cache, as the command
//! `ldm-ort` does; one is enough for a program. It opens a [`Pipeline`]: a pipeline file, or a model directory as it was
//! exported ([`Engine::open_model`]).
//!
//! ```
//! use ldm_ort::{Engine, Request};
//!
//! # fn main() -> ldm_ort::Result<()> {
//! let engine = Engine::builder().build()?;
//! let mut pipeline = engine.open("pipeline.toml")?;
//! let images = pipeline.generate(&Request::new().prompt("a red circle on a white background").seed(42).steps(2))?;
//! assert_eq!((images[0].width(), images[0].height()), (64, 64));
//! images[0].save(std::env::temp_dir().join("circle.png"))?;
//! # Ok(())
//! # }
//! ```
//!
//! # Requests
//!
//! A [`Request`] is a cheap value that names what differs from the pipeline's file: prompts, seeds, steps, size, scheduler,
//! guidance, input images, LoRA scales, another task. [`Pipeline::check`] says what is wrong with one without running it. A
//! pipeline runs any number of requests and loads each graph once; a request for another task loads what that needs besides.
//!
//! ```
//! # use ldm_ort::{Engine, Request};
//! # fn main() -> ldm_ort::Result<()> {
//! # let mut pipeline = Engine::builder().build()?.open("pipeline.toml")?;
//! let base = Request::new().seed(1).steps(2);
//! let circle = pipeline.generate(&base.clone().prompt("a red circle on a white background"))?.remove(0);
//! // Pixels in memory, or a path.
//! let redrawn = Request::image_to_image(circle.pixels().clone(), "a blue square on a white background").strength(0.5);
//! assert_eq!(pipeline.generate(&redrawn.steps(2).seed(1))?.len(), 1);
//! // The same request in every form.
//! let json = r#"{"prompt": "a red circle on a white background", "seed": 1, "steps": 2}"#;
//! assert_eq!(pipeline.generate(&Request::from_json(json)?)?[0].rgb(), circle.rgb());
//! // An unknown field is an error that lists the valid ones.
//! assert!(pipeline.check(&Request::new().set("sede", 7)).is_err());
//! # Ok(())
//! # }
//! ```
//!
//! # Progress, previews and stopping
//!
//! [`Pipeline::run`] reports an [`Event`] for each step, each preview and each finished [`Image`]. Any clone of a [`Cancel`]
//! stops it, from another thread or from within, in the time of one node of a graph.
//!
//! ```
//! # use ldm_ort::{Cancel, Engine, ErrorKind, Event, Request};
//! # fn main() -> ldm_ort::Result<()> {
//! # let mut pipeline = Engine::builder().build()?.open("pipeline.toml")?;
//! let cancel = Cancel::new();
//! let stopped = pipeline.run(&Request::new().steps(20), &cancel, &mut |event| {
//!     if let Event::Step { step: 3, .. } = event {
//!         cancel.cancel();
//!     }
//! });
//! assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Interrupted);
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! Every failure is one [`Error`], whose text names the file, key or tensor, what was expected, what was found, and what to do.
//! [`Error::kind`] tells whose fault it is, for a front end to map. After an error a pipeline can be used as before.
//!
//! # In other programs
//!
//! [`Engine`] and [`Cancel`] are `Send` and `Sync`, [`Pipeline`] is `Send`: a pipeline for each worker. A program with an ONNX
//! Runtime of its own hands it over with [`EngineBuilder::ort_environment`] or [`EngineBuilder::ort_api`]. `examples/` has a
//! program for each of these.
//!
//! # Rooms
//!
//! Below the front door [`spec`] reads pipeline files, [`bundle`] reads model directories, [`plan`] joins both, [`execution`]
//! runs plans, [`session`] finds ONNX Runtime and runs graphs; [`scheduler`], [`rng`], [`text`], [`vae`], [`denoise`] and
//! [`task`] are the parts of a diffusion model that are not graphs, [`lora`] changes the weights of those.
#![deny(missing_docs)]

pub mod aliases;
pub mod batch;
pub mod bundle;
mod byte_size;
#[cfg(feature = "cli")]
pub mod cli;
pub mod conditioner;
pub mod denoise;
mod elementary;
pub mod engine;
pub mod error;
pub mod execution;
pub mod family;
mod files;
pub mod graph_cache;
mod guard;
pub mod image;
pub mod kernels;
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
