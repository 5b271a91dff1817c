//! Memory on other systems, of which nothing is known.

use super::memory_use::MemoryUse;

/// Returns nothing.
pub(super) fn current() -> Option<MemoryUse> {
    None
}

/// Does nothing.
pub(super) fn reset_peak() {}

/// Returns nothing.
pub(super) fn available() -> Option<u64> {
    None
}
