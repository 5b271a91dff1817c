//! Operators of our own: matrix products, convolutions, normalizations and attention in float32 and
//! bfloat16, linear layers in int8 as well.
//!
//! Images are in the order `[batch, height, width, channels]`, so that a row of an image is a row of a matrix. All products
//! go through one innermost product (`tile`), which has a form for each instruction set; everything above it is plain Rust,
//! compiled for each of them. Sums are float32. A result does not depend on the number of threads.

#[cfg(target_arch = "x86_64")]
mod amx_permission;
mod attention;
mod convolution;
mod epilogue;
mod filtering;
mod functions;
mod head_norm;
mod instruction_set;
mod int8;
mod int8_product;
mod lane;
mod norm;
mod number;
mod operand;
mod operator;
mod pack;
mod product;
mod rotary_pairs;
mod row_norm;
mod scratch;
mod softmax;
mod threads;
mod tile;
mod tile_size;

pub use attention::{Attention, Heads, KeyMask};
pub use convolution::{ImageConvolution, merged, spread_weight};
pub use epilogue::Epilogue;
pub use filtering::{FilteredConvolution, Filtering};
pub use functions::Activation;
pub use head_norm::{HeadNorm, HeadRows, Rotary};
pub use instruction_set::InstructionSet;
pub use int8::pack_int8;
pub use int8_product::Int8Product;
pub use norm::GroupNorm;
pub use number::{Number, OperandValue};
pub use operand::OperandCopy;
pub use operator::{DOMAIN, OperandType, OwnOperator};
pub use pack::PanelShape;
pub use product::{OutRows, Product, ProductRows};
pub use rotary_pairs::RotaryPairs;
pub use row_norm::RowNorm;
pub use threads::{OneThread, Threads};
pub use tile::{Element, Multiplied};
pub use tile_size::COLUMNS;

#[cfg(test)]
mod tests;
