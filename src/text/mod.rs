//! Prompts: tokenizers and text encoders.

mod chunks;
mod emphasis;
mod encoder;
mod encoders;
mod encodings;
mod inversion;
mod prompt_embedding;
mod syntax;
pub mod tokenizer;

pub use chunks::{Chunk, Chunks, Instruction, Style};
pub use encoder::{Taken, TextEncoder, require_embedded};
pub use encoders::{TextEncoders, cut_off};
pub use encodings::{Encodings, Text};
pub use inversion::Inversion;
pub use prompt_embedding::PromptEmbedding;
pub use syntax::foreign_syntax;
