//! Instruction sets that the operators have an own form for.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::amx_permission;
#[cfg(target_arch = "x86_64")]
use super::lane::Zmm;
use super::lane::{Array, Lane};
use super::operator::OperandType;

/// The one that is chosen instead of the best.
static CHOSEN: OnceLock<InstructionSet> = OnceLock::new();

/// An instruction set, the slower before the faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstructionSet {
    /// Plain Rust, on every processor; the reference for the others.
    Portable,
    /// AVX2 and FMA. Float32 only.
    Avx2,
    /// AVX-512 F, BW, DQ and VL. Float32 only.
    Avx512,
    /// As `Avx512`, with `vpdpbusd` for int8.
    Avx512Vnni,
    /// As `Avx512Vnni`, with `vdpbf16ps` for bfloat16.
    Avx512Bf16,
    /// As `Avx512Bf16`, with AMX tiles (`tdpbf16ps`) for bfloat16.
    Amx,
}

impl InstructionSet {
    /// All, in their order.
    pub const ALL: [Self; 6] =
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Vnni, Self::Avx512Bf16, Self::Amx];

    /// Returns the best instruction set of this processor and system.
    pub fn best() -> Self {
        static BEST: OnceLock<InstructionSet> = OnceLock::new();
        *BEST.get_or_init(|| Self::ALL.into_iter().rev().find(|set| set.is_detected()).unwrap_or(Self::Portable))
    }

    /// Returns the one that operators of graphs use: the chosen one, else the best.
    pub fn used() -> Self {
        Self::chosen().unwrap_or_else(Self::best)
    }

    /// Returns the one that was chosen.
    pub fn chosen() -> Option<Self> {
        CHOSEN.get().copied()
    }

    /// Chooses one by its name, for all graphs of this process from here on.
    ///
    /// # Errors
    /// A sentence, if this CPU has none of that name, or another one was chosen before.
    pub fn choose(name: &str) -> Result<(), String> {
        let available: Vec<_> = Self::ALL.into_iter().filter(|set| set.is_available()).collect();
        let Some(set) = available.iter().find(|set| set.name() == name) else {
            let names: Vec<_> = available.iter().map(|set| set.name()).collect();
            return Err(format!("expected an instruction set of this CPU ({}), found {name:?}", names.join(", ")));
        };
        match CHOSEN.get_or_init(|| *set) {
            other if other == set => Ok(()),
            other => Err(format!("{} was chosen before in this process", other.name())),
        }
    }

    /// Returns true if graphs are to have operators of our own for these operands: in float32 from AVX2 on, in bf16 where
    /// the hardware multiplies it, and in plain Rust only if that is chosen.
    pub fn has_operators(self, operands: OperandType) -> bool {
        match (self, operands) {
            (Self::Portable, _) => Self::chosen() == Some(self),
            (_, OperandType::Float32) => true,
            (_, OperandType::Bf16) => self.has_bf16(),
        }
    }

    /// The same for linear layers in int8.
    pub fn has_int8_operators(self) -> bool {
        if self == Self::Portable { Self::chosen() == Some(self) } else { self.has_int8() }
    }

    /// Returns true if this process can use it.
    pub fn is_available(self) -> bool {
        self <= Self::best()
    }

    /// Returns true if it multiplies bfloat16 in hardware.
    pub fn has_bf16(self) -> bool {
        self >= Self::Avx512Bf16
    }

    /// Returns true if it multiplies int8 in hardware.
    pub fn has_int8(self) -> bool {
        self >= Self::Avx512Vnni
    }

    /// Returns true if it multiplies bfloat16 faster than float32.
    ///
    /// Intel's processors take twice as long for `vdpbf16ps` as for the float32 products of as many numbers: on one whose
    /// AMX was masked, a step of Stable Diffusion 1.5 took 7.4 s in bf16 and 4.4 s in float32.
    pub fn is_faster_in_bf16(self) -> bool {
        self == Self::Amx || (self == Self::Avx512Bf16 && !is_intel())
    }

    /// Its name in records and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512_vnni",
            Self::Avx512Bf16 => "avx512_bf16",
            Self::Amx => "amx_bf16",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn is_detected(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Self::Avx512 => {
                Self::Avx2.is_detected()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            Self::Avx512Vnni => Self::Avx512.is_detected() && is_x86_feature_detected!("avx512vnni"),
            Self::Avx512Bf16 => Self::Avx512Vnni.is_detected() && is_x86_feature_detected!("avx512bf16"),
            Self::Amx => Self::Avx512Bf16.is_detected() && amx_permission::is_permitted(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_detected(self) -> bool {
        self == Self::Portable
    }
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    #[allow(unused_unsafe, reason = "the function became safe in later versions of the standard library")]
    // SAFETY: every x86-64 processor has the instruction.
    let vendor = unsafe { std::arch::x86_64::__cpuid(0) };
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

/// Work whose loops the compiler vectorizes for an instruction set.
///
/// A trait and no closure, since a closure cannot be marked to be always inlined: compiled on its own it would have the
/// instructions of the least processor.
pub trait Work {
    /// Does it, with lanes of the instruction set. Mark it `#[inline(always)]`, and all that it calls in loops.
    fn run<L: Lane>(self);
}

/// Does `work` compiled for an instruction set.
///
/// # Panics
/// If the processor does not have it.
pub fn vectorized(set: InstructionSet, work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn wide(work: impl Work) {
            work.run::<Zmm<false>>();
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        fn wide_bf16(work: impl Work) {
            work.run::<Zmm<true>>();
        }
        #[target_feature(enable = "avx2,fma")]
        fn narrow(work: impl Work) {
            work.run::<Array>();
        }
        assert!(set.is_available());
        match set {
            InstructionSet::Portable => work.run::<Array>(),
            // SAFETY: the instructions are available.
            InstructionSet::Avx2 => unsafe { narrow(work) },
            // SAFETY: as above.
            InstructionSet::Avx512 | InstructionSet::Avx512Vnni => unsafe { wide(work) },
            // SAFETY: as above.
            InstructionSet::Avx512Bf16 | InstructionSet::Amx => unsafe { wide_bf16(work) },
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = set;
        work.run::<Array>();
    }
}
