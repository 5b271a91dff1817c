//! Every reader of files on mutated files: no panic, no hang, no absurd memory, and errors that name the file.
//!
//! Seeds are valid fixtures; a mutation flips, cuts or splices bytes, or changes values of JSON, TOML, ONNX, safetensors and
//! PNG under a syntax that stays right. An input follows from the seed of the run, the reader and its number:
//!
//! - `LDM_ORT_FUZZ_TIMES=20` runs that many times the inputs of a run, which takes a minute or less by itself;
//! - `LDM_ORT_FUZZ_SEED=7` makes others;
//! - `LDM_ORT_FUZZ_INPUT=123`, with the name of one test, runs that one input again.
//!
//! `cargo test --test allocation fuzz:: -- --nocapture` prints, for each reader, the share of inputs that get past the parser.

mod bytes;
mod directories;
mod findings;
mod harness;
mod mutation;
mod random;
mod readers;
mod shrinking;
mod values;
