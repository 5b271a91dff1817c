//! The C interface of ldm-ort: one exported function, [`ldm_get_api`], and the table of functions that it returns.
//!
//! `include/ldm_ort.h` is written from this crate's types and documentation by `tests/header.rs`.

mod call;
mod engine_calls;
mod event;
mod images;
mod pipeline_calls;
mod status;
mod table;

pub use table::{LdmApi, ldm_get_api};
