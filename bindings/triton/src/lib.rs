//! The NVIDIA Triton backend of ldm-ort.
//!
//! Triton loads `libtriton_ldm_ort.so` and calls the functions of [`entry`]. The backend calls `libldm_ort` through its C
//! interface ([`interface`]) and the server through the functions that the server exports ([`server`]); neither is linked.
//! `docs/triton.md` is the guide.
//!
//! A call of Triton goes through [`config`] (at loading), [`request`] (tensors become JSON requests), [`join`] (rows that
//! share a run), [`execute`] and [`response`].

// Triton's server runs on Linux.
#![cfg(target_os = "linux")]

mod clock;
mod completion;
mod config;
mod entry;
mod execute;
mod fault;
mod interface;
mod join;
mod library;
mod names;
mod paths;
mod request;
mod response;
mod server;
mod state;
mod tensor;
mod watch;
