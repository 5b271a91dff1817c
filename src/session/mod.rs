//! The only module that imports ort: finds the runtime library, sets up execution providers, opens and runs graphs.
//!
//! ONNX Runtime is loaded at run time, not linked: [`Runtime::load`] looks for its library, fetches the official build
//! if it finds none, and rejects one that is too old. [`Session::open`] opens a graph on a list of execution providers
//! ([`PROVIDERS`]). [`Session::run`] and [`Session::run_into`] run it on host tensors and convert between the caller's
//! types (`f32`, `i64`, `bool`) and those that the graph declares. [`Cancel`] stops a run from another thread.
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

mod arenas;
mod assignment;
mod cancel;
mod convert;
mod device_runs;
mod fetch;
mod finite;
mod graph;
mod graph_error;
mod invoke;
mod library;
mod memory_messages;
mod operators;
mod options;
mod placement;
mod provider;
mod trial;
mod weights;

pub use cancel::Cancel;
pub use device_runs::{DeviceRuns, DeviceTensor, Place};
pub use fetch::{FetchEvent, InstalledBuild, PINNED_VERSION, install};
pub use graph::{GraphRun, Session, SmallGraphs};
pub use library::{
    CachedBuild, Candidate, Env, Flavor, Host, HostApi, LOADER_LOG, LibrarySource, Runtime, RuntimeOptions, Search,
    Verdict, cached_builds, minimum_version, search, user_cache,
};
pub use options::{Optimization, SessionOptions, WeightFile, cpu_threads, usable_threads};
pub use placement::Placement;
pub use provider::{
    PROVIDERS, Provider, ProviderChoice, ProviderDevice, ProviderPlace, ProviderStatus, find_provider,
    provider_statuses,
};
