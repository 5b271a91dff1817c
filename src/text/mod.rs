//! Prompts: tokenizers and text encoders.

mod encoder;
mod encoders;
pub mod tokenizer;

pub use encoder::{Taken, TextEncoder, require_embedded};
pub use encoders::{Embedding, TextEncoders};
