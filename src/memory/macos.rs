//! Memory on macOS: the kernel's counts of the process, and of the machine.

use std::ffi::{CStr, c_void};

use super::memory_use::MemoryUse;

/// Reads the memory use of this process. Compressed pages count as private.
pub(super) fn current() -> Option<MemoryUse> {
    // SAFETY: the structure has only integers, for which zeros are values.
    let mut usage: libc::rusage_info_v4 = unsafe { std::mem::zeroed() };
    let id = libc::pid_t::try_from(std::process::id()).ok()?;
    // SAFETY: the structure is the one that version 4 fills in.
    let status = unsafe { libc::proc_pid_rusage(id, libc::RUSAGE_INFO_V4, (&raw mut usage).cast()) };
    if status != 0 {
        return None;
    }
    let private = usage.ri_resident_size.min(usage.ri_phys_footprint);
    let peak = usage.ri_lifetime_max_phys_footprint.max(usage.ri_resident_size);
    Some(MemoryUse { private, mapped: usage.ri_resident_size - private, peak })
}

/// Does nothing: macOS keeps the peak of the process.
pub(super) fn reset_peak() {}

/// Returns the part of the machine's memory that the kernel calls available, which is free or can be reclaimed.
pub(super) fn available() -> Option<u64> {
    let memory: u64 = system_value(c"hw.memsize")?;
    let percent: u32 = system_value(c"kern.memorystatus_level")?;
    Some(memory / 100 * u64::from(percent.min(100)))
}

/// Reads an integer by its name; `None` if the system has none of this name and size.
fn system_value<T: Default + Copy>(name: &CStr) -> Option<T> {
    let mut value = T::default();
    let mut size = size_of::<T>();
    let into = (&raw mut value).cast::<c_void>();
    // SAFETY: the system writes at most `size` bytes, which are those of an integer.
    let status = unsafe { libc::sysctlbyname(name.as_ptr(), into, &raw mut size, std::ptr::null_mut(), 0) };
    (status == 0 && size == size_of::<T>()).then_some(value)
}
