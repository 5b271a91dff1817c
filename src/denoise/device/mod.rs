//! The denoising loop on a provider's device: a sample goes there once, and comes back when it is denoised.
//!
//! The denoiser's graph and a small graph of the step take turns; what one writes, the other reads on the device. Steps are
//! linear combinations ([`LinearSteps`](crate::scheduler::LinearSteps)), so that one form of graph is that of all schedulers.

mod control;
mod device_loop;
mod device_run;
mod graph_sample;
mod graph_writer;
mod history;
mod obstacle;
mod read_back;
mod setup;
mod step_graph;

pub use device_loop::{DeviceCopies, DeviceLoop, RunNoise};
pub use device_run::StepSession;
pub use obstacle::DeviceObstacle;
