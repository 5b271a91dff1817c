//! The front door: an [`Engine`] opens pipelines, a [`Pipeline`] runs requests, a [`Request`] says what to make.
//!
//! The command `ldm-ort` is one front end of this room; programs that embed the library are others. Environment variables,
//! the graph cache, the choice of ONNX Runtime's build, records and files are the same for all of them.

mod background_writer;
mod builder;
mod converter;
mod digests;
mod environment;
mod event;
mod image;
mod json;
mod name_pattern;
mod open;
mod pipeline;
mod planner;
mod recorder;
mod replay;
mod request;
mod saver;
mod task_support;

pub(crate) use background_writer::BackgroundWriter;
pub use builder::{Engine, EngineBuilder};
pub use digests::{KnownDigests, ModelDigests, configuration_digests, model_digest};
pub use environment::Environment;
pub use event::Event;
pub use image::Image;
pub use json::pipeline_spec;
pub use name_pattern::NamePattern;
pub use pipeline::Pipeline;
pub use planner::RequestPlanner;
pub use recorder::{Recorder, arithmetic};
pub use replay::Replay;
pub use request::Request;
pub use saver::Saver;
pub use task_support::{model_spec, pipeline_toml};
