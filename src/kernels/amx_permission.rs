//! Leave to use AMX.

use std::arch::asm;

/// Asks the system for the use of tiles, and returns true if it is permitted. Linux asks each process to say that it wants
/// the state that they need.
pub fn is_permitted() -> bool {
    let detected = std::arch::x86_64::__cpuid_count(7, 0).edx;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    detected & (AMX_BF16 | AMX_TILE) == AMX_BF16 | AMX_TILE && asks_for_tiles()
}

#[cfg(target_os = "linux")]
fn asks_for_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: this call reads and writes no memory of the process.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn asks_for_tiles() -> bool {
    false
}
