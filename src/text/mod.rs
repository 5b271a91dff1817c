//! Prompts: tokenizers and text encoders.
