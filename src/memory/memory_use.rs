//! The memory of a process as a value.

/// The resident memory of the process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Private memory, without pages of files and shared memory.
    pub private: u64,
    /// Pages of files, which the system can reclaim and other processes can share.
    pub mapped: u64,
    /// The peak of their sum since the last [`MemoryUse::reset_peak`].
    pub peak: u64,
}
