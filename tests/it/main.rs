//! The tests of the crate and its command, one module a surface, in one process.
//!
//! `cargo test --test it pipeline::` runs one module. A test that sets what belongs to the whole process (environment
//! variables, the current folder, limits) runs the command as a child instead; one that counts its own allocations is in
//! `tests/allocation`.

mod aliases;
mod batch;
mod bundle;
mod cli;
mod common;
mod deepcache;
#[cfg(unix)]
mod docs;
mod engine;
mod errors;
mod examples;
mod graph_cache;
mod half_graphs;
mod input_images;
mod layouts;
mod lora;
mod memory;
mod pipeline;
mod plot;
#[cfg(not(target_env = "musl"))]
mod plugin;
mod precision;
mod quantize;
mod rewrite;
mod runtime;
mod schedulers;
mod spec;
mod text;
mod verification;
