//! The only room that imports ort: the runtime library, execution providers, opening and running graphs.
//!
//! ONNX Runtime is not linked but loaded when the program runs: [`Runtime::load`] looks for its library, fetches the
//! official build where none is found, and refuses one that is too old. [`Session::open`] opens a graph on a list of
//! execution providers ([`PROVIDERS`]), and [`Session::run`] and [`Session::run_into`] run it on host tensors,
//! converting between what callers hold (`f32`, `i64`, `bool`) and what the graph declares.
//! [`Cancel`] stops a run from another thread.
//!
//! ```no_run
//! use ldm_ort::session::{Cancel, Runtime, RuntimeOptions, Session, SessionOptions};
//! use ndarray::arr1;
//!
//! # fn main() -> ldm_ort::Result<()> {
//! let runtime = Runtime::load(&RuntimeOptions::default())?;
//! let options = SessionOptions { component: "unet".into(), ..SessionOptions::default() };
//! let mut unet = Session::open(&runtime, "unet/model.onnx".as_ref(), &options)?;
//! let timestep = arr1(&[981_i64]);
//! let outputs = unet.run(&[("timestep", timestep.view().into())], &["out_sample"], &Cancel::new())?;
//! # Ok(())
//! # }
//! ```

mod cancel;
mod convert;
mod fetch;
mod graph;
mod invoke;
mod library;
mod options;
mod placement;
mod provider;
mod trial;
mod weights;

pub use cancel::Cancel;
pub use fetch::{FetchEvent, Installed, PINNED_VERSION, install};
pub use graph::{Run, Session};
pub use library::{
    Cached, Candidate, Env, Flavour, LOADER_LOG, Runtime, RuntimeOptions, Search, Source, Verdict, cached,
    minimum_version, search, user_cache,
};
pub use options::{Optimization, SessionOptions, WeightFile, cpu_threads, usable_threads};
pub use placement::Placement;
pub use provider::{PROVIDERS, Provider, ProviderChoice, ProviderStatus, find_provider, provider_statuses};
