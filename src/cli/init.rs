//! `ldm-ort init`.

use std::io::Write;

use super::args::InitArgs;
use super::output;
use crate::bundle::{Bundle, Overrides, init_toml};
use crate::error::Result;

/// Prints a pipeline.toml for a model directory, to be written into the current directory.
///
/// # Errors
///
/// [`Error::Model`](crate::Error::Model) where the directory is not one that can be run,
/// [`Error::Io`](crate::Error::Io) where it cannot be read or `out` cannot be written.
pub fn init(args: &InitArgs, out: &mut dyn Write) -> Result<()> {
    let bundle = Bundle::open(&args.model, &Overrides::default())?;
    output::text(out, &init_toml(&bundle, &args.model.to_string_lossy()))
}
