//! Prompts: tokenizers and text encoders.

pub mod tokenizer;
