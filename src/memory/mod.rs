//! The memory that this process uses, and the memory that is available.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
mod memory_use;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", windows)))]
mod unknown;
#[cfg(windows)]
mod windows;

#[cfg(any(target_os = "linux", target_os = "android"))]
use linux as system;
#[cfg(target_os = "macos")]
use macos as system;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", windows)))]
use unknown as system;
#[cfg(windows)]
use windows as system;

pub use memory_use::MemoryUse;

impl MemoryUse {
    /// Reads the memory use of this process; `None` on systems other than Linux, Windows and macOS.
    ///
    /// Windows and macOS count private memory that is not resident, too: `private` is then at most the resident memory, and
    /// `mapped` the rest of it.
    pub fn current() -> Option<Self> {
        system::current()
    }

    /// Resets the peak. Only Linux allows it; elsewhere the peak remains that of the process.
    pub fn reset_peak() {
        system::reset_peak();
    }
}

/// Returns the bytes that the process can still allocate before the machine or its container runs out of memory; `None` on
/// systems other than Linux, Windows and macOS.
pub fn available() -> Option<u64> {
    system::available()
}

#[cfg(all(test, any(target_os = "linux", target_os = "macos", windows)))]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_is_counted() {
        /// More than the other tests of this process free meanwhile.
        const BYTES: usize = 256 << 20;
        let before = MemoryUse::current().unwrap();
        let held = vec![1_u8; BYTES];
        let now = MemoryUse::current().unwrap();
        assert_eq!(held.iter().map(|&byte| usize::from(byte)).sum::<usize>(), BYTES);
        assert!(now.private > before.private + BYTES as u64 / 2, "{before:?} {now:?}");
        assert!(now.peak >= now.private, "{now:?}");
    }

    #[test]
    fn a_machine_that_runs_this_has_memory_left() {
        let free = available().unwrap();
        assert!((16 << 20..64 << 40).contains(&free), "{free}");
    }
}
