//! Memory on Windows: the process's working set and the system's commit limit.

use windows_sys::Win32::System::ProcessStatus::{
    K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS, PROCESS_MEMORY_COUNTERS_EX,
};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

use super::memory_use::MemoryUse;

/// Reads the memory use of this process.
pub(super) fn current() -> Option<MemoryUse> {
    let size = size_of::<PROCESS_MEMORY_COUNTERS_EX>() as u32;
    let mut counters = PROCESS_MEMORY_COUNTERS_EX { cb: size, ..Default::default() };
    // SAFETY: the longer structure begins with the fields of the shorter one, and `size` says that it is the longer one.
    let is_read = unsafe {
        K32GetProcessMemoryInfo(GetCurrentProcess(), (&raw mut counters).cast::<PROCESS_MEMORY_COUNTERS>(), size)
    };
    if is_read == 0 {
        return None;
    }
    let (resident, peak) = (counters.WorkingSetSize as u64, counters.PeakWorkingSetSize as u64);
    let private = resident.min(counters.PrivateUsage as u64);
    Some(MemoryUse { private, mapped: resident - private, peak })
}

/// Does nothing: Windows keeps the peak of the process.
pub(super) fn reset_peak() {}

/// Returns the free physical memory, or what is left of the commit limit if that is less.
pub(super) fn available() -> Option<u64> {
    let mut status = MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..Default::default() };
    // SAFETY: the structure has the length that it states.
    let is_read = unsafe { GlobalMemoryStatusEx(&raw mut status) };
    (is_read != 0).then(|| status.ullAvailPhys.min(status.ullAvailPageFile))
}
