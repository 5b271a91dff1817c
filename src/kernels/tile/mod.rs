//! The innermost product: up to 32 rows of the left operand by a panel, or two, of 32 columns of the right one.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod avx512_wide;
mod block;
mod portable;
#[cfg(target_arch = "x86_64")]
mod registers;
mod unit;

pub use block::{Accumulator, Block, FetchedRows};
pub use unit::{Element, TileUnit};
