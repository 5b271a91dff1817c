//! Many requests on one machine or on many: content-addressed images, resumable, in shards.
//!
//! Each line of the input is a request; each of its images has a [`Key`], the SHA-256 of everything that determines its
//! pixels ([`canonical`](BatchPlanner::plan) form of the request, digests of the model and of input files). The image is
//! stored as `<first two digits>/<key>.png`. A run makes the images of its [`Shard`] that are not stored yet, so that runs
//! can be repeated, killed, split differently and moved to other machines, and no image is made twice. A [`Store`] is a
//! folder, or with the feature `s3` a bucket. An [`OpenBatch`] keeps the pipeline open from one run to the next.

mod canonical;
mod definition;
mod key;
mod lines;
mod local_store;
mod maker;
mod manifest;
mod opening;
mod planner;
mod run;
#[cfg(feature = "s3")]
mod s3_store;
mod shard;
mod store;
mod verify;
mod whole;

pub use definition::{BatchEvent, BatchObserver, ImageBatch, Summary};
pub use key::Key;
pub use lines::{InputLine, LineForm, read_lines};
pub use local_store::LocalStore;
pub use manifest::ManifestEntry;
pub use opening::{batch_spec, open_store};
pub use planner::{BatchPlanner, PlannedImage, PlannedRequest};
pub use run::OpenBatch;
#[cfg(feature = "s3")]
pub use s3_store::S3Store;
pub use shard::Shard;
pub use store::{Claim, Store};
pub use verify::{Finding, Verification, verify};
