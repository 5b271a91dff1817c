//! `ldm-ort init`.

use std::io::Write;

use super::args::InitArgs;
use super::output;
use crate::engine::pipeline_toml;
use crate::error::Result;

/// Prints a pipeline.toml for a model directory, to be written into the current directory.
///
/// # Errors
/// As [`pipeline_toml`]; [`Error::Io`](crate::Error::Io) if `out` cannot be written.
pub fn init(args: &InitArgs, out: &mut dyn Write) -> Result<()> {
    output::text(out, &pipeline_toml(&args.model)?)
}
