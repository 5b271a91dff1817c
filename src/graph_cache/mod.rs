//! The cache of optimized graphs.
//!
//! Opening an exported graph costs ONNX Runtime seconds to half a minute of one thread at every start: it folds constants,
//! fuses nodes and rearranges weights for the CPU, and holds the rearranged weights in its own memory. [`GraphCache::open`]
//! does this once, stores the result in a folder of the user's cache, and opens it from there with its weights mapped from
//! the file instead of copied.
//!
//! An entry belongs to one graph at one size of its axes, one version of ONNX Runtime and one kind of CPU, all of which are
//! in its [key](CachedGraph::key). It is not a file to ship.
//!
//! The cache has a [size limit](SizeLimit): the least recently used entries are removed for new ones, but never one that a
//! process has open. In a folder that cannot be written, existing entries are opened and no new ones are made.

mod cache_file;
mod cache_folder;
mod checksums;
mod digest;
mod entry;
mod eviction;
mod integrity;
mod key;
mod lock;
mod measured;
mod opening;
mod own_operators;
mod rewritten;
mod size_limit;
mod stamp;
mod usage;
mod verified;
mod verify;
mod wanted;

pub use cache_file::CacheFile;
pub use cache_folder::GraphCache;
pub use digest::digest;
pub use entry::{CachedGraph, DamagedFile};
pub use eviction::Trimmed;
pub(crate) use key::processor;
pub use measured::Rows;
pub use opening::GraphCacheEvent;
pub use own_operators::{is_of_precision, require_own_precision};
pub use rewritten::open_uncached;
pub use size_limit::SizeLimit;
pub use verified::Difference;
pub use verify::Verified;
