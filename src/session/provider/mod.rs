//! Execution providers: the backends on which ONNX Runtime runs a graph.

mod choice;
mod devices;
mod locate;
mod option_names;
mod plugin;
mod register;
mod requirement;
mod selection;
mod status;
mod table;

pub(super) use choice::captures_runs;
pub(super) use choice::ort_name;
pub use choice::{ProviderChoice, find_provider};
pub use devices::ProviderDevice;
pub(super) use selection::{CPU, on_cpu, select, unusable};
pub use status::{ProviderPlace, ProviderStatus, provider_statuses};
pub use table::{PROVIDERS, Provider};
