//! Prompts: tokenizers and text encoders.

mod encoder;
pub mod tokenizer;

pub use encoder::{Embedding, TextEncoder, require_embedded};
