//! Prompts: tokenizers and text encoders.

mod chunks;
mod emphasis;
mod encoder;
mod encoders;
mod prompt_cache;
mod prompt_embedding;
mod syntax;
mod textual_inversion;
pub mod tokenizer;

pub use chunks::{Chunk, Chunks, Instruction, PromptStyle};
pub use encoder::{EncoderOutputs, TextEncoder, require_embedded};
pub use encoders::{TextEncoders, truncation_warnings};
pub use prompt_cache::{PromptCache, PromptText};
pub use prompt_embedding::PromptEmbedding;
pub use syntax::foreign_syntax;
pub use textual_inversion::TextualInversion;
