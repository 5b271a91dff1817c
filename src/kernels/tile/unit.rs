//! The innermost product with the instructions of a thread.

use half::bf16;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::block::{Accumulator, Block};
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::vectors;
use crate::kernels::instruction_set::InstructionSet;
use crate::kernels::number::{Number, OperandValue};

/// A type of numbers that there are products for.
pub trait Element: Multiplied + Number {}

impl<E: Multiplied + Number> Element for E {}

/// A type of operands that there are products of.
pub trait Multiplied: OperandValue {
    /// Computes the product of a block and each of its panels with the instructions of `unit`, added to the panel's sums if
    /// it `accumulates`.
    fn multiply(unit: &mut TileUnit, block: &Block<'_, Self>, accumulates: bool, sums: &mut [&mut Accumulator]);

    /// Returns the best instruction set of those up to `set` that has a form of its own for this type.
    fn supported(set: InstructionSet) -> InstructionSet;

    /// Returns what the depth of a product is a multiple of with `set`: tiles of AMX are of one depth.
    fn step(_: InstructionSet) -> usize {
        Self::GROUP
    }
}

impl Multiplied for f32 {
    fn multiply(unit: &mut TileUnit, block: &Block<'_, Self>, accumulates: bool, sums: &mut [&mut Accumulator]) {
        unit.multiply_f32(block, accumulates, sums);
    }

    fn supported(set: InstructionSet) -> InstructionSet {
        set.min(InstructionSet::Avx512)
    }
}

impl Multiplied for bf16 {
    fn multiply(unit: &mut TileUnit, block: &Block<'_, Self>, accumulates: bool, sums: &mut [&mut Accumulator]) {
        unit.multiply_bf16(block, accumulates, sums);
    }

    fn supported(set: InstructionSet) -> InstructionSet {
        if set.has_bf16() { set } else { InstructionSet::Portable }
    }

    fn step(set: InstructionSet) -> usize {
        if Self::supported(set) == InstructionSet::Amx { Self::STEP } else { Self::GROUP }
    }
}

/// Rows and panels in int8, with the scales of their strips.
impl Multiplied for u8 {
    fn multiply(unit: &mut TileUnit, block: &Block<'_, Self>, accumulates: bool, sums: &mut [&mut Accumulator]) {
        unit.multiply_int8(block, accumulates, sums);
    }

    fn supported(set: InstructionSet) -> InstructionSet {
        if set.has_int8() { InstructionSet::Avx512Vnni } else { InstructionSet::Portable }
    }
}

/// A thread's use of an instruction set. AMX keeps a configuration in the processor as long as it lives.
#[derive(Debug)]
pub struct TileUnit {
    set: InstructionSet,
    /// The rows that AMX is configured for.
    #[cfg(target_arch = "x86_64")]
    configured: Option<[usize; 2]>,
}

impl TileUnit {
    /// Prepares the use of `set`, or of the best instruction set for `E` below it.
    ///
    /// # Panics
    /// If the processor does not have it.
    pub fn new<E: Multiplied>(set: InstructionSet) -> Self {
        assert!(set.is_available());
        Self {
            set: E::supported(set),
            #[cfg(target_arch = "x86_64")]
            configured: None,
        }
    }

    /// True if two panels of `len` values take less time together than one by one with `set`: there are instructions for
    /// that, and the panels stay in the second cache meanwhile.
    pub fn has_pairs<E: Multiplied>(set: InstructionSet, len: usize) -> bool {
        const PAIR_BYTES: usize = 384 << 10;
        (InstructionSet::Avx512..InstructionSet::Amx).contains(&E::supported(set))
            && 2 * len * size_of::<E>() <= PAIR_BYTES
    }

    fn multiply_f32(&mut self, block: &Block<'_, f32>, accumulates: bool, sums: &mut [&mut Accumulator]) {
        block.check(sums.len(), f32::step(self.set));
        match self.set {
            // SAFETY: `new` checked that the processor has the instructions, `check` that the operands are long enough.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => unsafe { vectors::multiply_avx512(block, accumulates, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => unsafe { vectors::multiply_avx2(block, accumulates, sums) },
            _ => portable::multiply(block, accumulates, sums),
        }
    }

    fn multiply_int8(&mut self, block: &Block<'_, u8>, accumulates: bool, sums: &mut [&mut Accumulator]) {
        block.check(sums.len(), u8::step(self.set));
        match self.set {
            // SAFETY: `new` checked that the processor has the instructions, `check` that the operands are long enough.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Vnni => unsafe { vectors::multiply_avx512_vnni(block, accumulates, sums) },
            _ => portable::multiply_int8(block, accumulates, sums),
        }
    }

    fn multiply_bf16(&mut self, block: &Block<'_, bf16>, accumulates: bool, sums: &mut [&mut Accumulator]) {
        block.check(sums.len(), bf16::step(self.set));
        #[cfg(target_arch = "x86_64")]
        if self.set == InstructionSet::Amx {
            let rows = block.readable_rows();
            if self.configured != Some(rows) {
                // SAFETY: `new` checked that the processor has the instructions.
                unsafe { amx::configure(rows) };
                self.configured = Some(rows);
            }
            for (panel, sums) in block.panels.iter().zip(sums) {
                // SAFETY: as above, the tiles are configured for the rows that can be read, and `check` found the operands
                // long enough.
                unsafe { amx::multiply(block, panel, accumulates, sums) };
            }
            return;
        }
        match self.set {
            // SAFETY: `new` checked that the processor has the instructions, `check` that the operands are long enough.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 => unsafe { vectors::multiply_avx512_bf16(block, accumulates, sums) },
            _ => portable::multiply(block, accumulates, sums),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for TileUnit {
    fn drop(&mut self) {
        if self.configured.is_some() {
            // SAFETY: only a processor with AMX was configured.
            unsafe { amx::release() };
        }
    }
}
