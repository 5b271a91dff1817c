//! The denoising loop, guidance, and the conditions a model takes.
