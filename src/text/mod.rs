//! Prompts: tokenizers and text encoders.

mod chunks;
mod emphasis;
mod encoder;
mod encoders;
mod encodings;
mod inversion;
mod syntax;
pub mod tokenizer;

pub use chunks::{Chunk, Chunks, Instruction, Style};
pub use encoder::{Taken, TextEncoder, require_embedded};
pub use encoders::{PromptEmbedding, TextEncoders, cut_off};
pub use encodings::{Encodings, Text};
pub use inversion::Inversion;
pub use syntax::foreign_syntax;
