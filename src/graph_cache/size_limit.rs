//! The size limit of the cache.

use crate::byte_size;

/// The largest size of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SizeLimit {
    /// 64 GB, or half of what the disk has free for the cache if that is less.
    #[default]
    Auto,
    /// This many bytes.
    Bytes(u64),
    /// No limit but the free space of the disk.
    Unlimited,
}

impl SizeLimit {
    /// The limit of [`SizeLimit::Auto`], in bytes.
    pub const LARGEST_AUTO: u64 = 64_000_000_000;

    /// Reads a limit: a size such as `20 GB`, or `unlimited`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "unlimited" => Some(Self::Unlimited),
            size => byte_size::parse(size).map(Self::Bytes),
        }
    }

    /// The limit in bytes for a cache of `cached` bytes on a disk that has `free` bytes free.
    pub(super) fn bytes(self, cached: u64, free: u64) -> u64 {
        match self {
            Self::Auto => (free.saturating_add(cached) / 2).min(Self::LARGEST_AUTO),
            Self::Bytes(bytes) => bytes,
            Self::Unlimited => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_and_never_more_than_half_of_the_disk_by_default() {
        assert_eq!(SizeLimit::parse("20 GB"), Some(SizeLimit::Bytes(20_000_000_000)));
        assert_eq!(SizeLimit::parse(" unlimited"), Some(SizeLimit::Unlimited));
        assert_eq!(["", "20", "much", "-1 GB"].map(SizeLimit::parse), [None; 4]);
        assert_eq!(SizeLimit::Auto.bytes(0, u64::MAX), 64_000_000_000);
        // What is cached does not count against what may be.
        assert_eq!(SizeLimit::Auto.bytes(10, 30), 20);
        assert_eq!(SizeLimit::Auto.bytes(30, 10), 20);
        assert_eq!(SizeLimit::Bytes(7).bytes(30, 10), 7);
    }
}
