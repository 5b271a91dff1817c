//! Opens a pipeline's graphs once, runs any number of requests on them, and reports every step.

mod batch;
mod batching;
mod conditions;
mod decoding;
mod denoising;
mod event;
mod finished_image;
mod interrupt;
mod open;
mod parts;
mod pool;
mod position;
mod precision;
mod previews;
mod ready;
mod short_memory;
mod stages;
mod verification;
mod verification_report;

pub use event::{ExecutionEvent, Observer};
pub use finished_image::{FinishedImage, Timings};
pub use open::Execution;
pub use verification::verify_session;
pub use verification_report::{ComponentVerification, VerificationOutcome};
