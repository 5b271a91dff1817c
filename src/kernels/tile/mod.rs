//! The innermost product: up to 32 rows of the left operand by a panel, or two, of 32 columns of the right one.

#[cfg(target_arch = "x86_64")]
mod amx;
mod block;
mod portable;
#[cfg(target_arch = "x86_64")]
mod registers;
mod unit;
#[cfg(target_arch = "x86_64")]
mod vectors;

pub use block::{Accumulator, Block, FetchedRows};
pub use unit::{Element, Multiplied, TileUnit};
