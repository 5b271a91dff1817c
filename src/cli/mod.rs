//! The command line.

pub mod args;
pub mod init;
pub mod inspect;
mod output;
pub mod runtime;
