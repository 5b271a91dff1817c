//! `ldm-ort inspect`.

use std::io::Write;

use super::args::InspectArgs;
use super::fits::fits;
use super::output;
use crate::bundle::{self, Bundle, Overrides};
use crate::error::Result;

/// Prints what a model directory holds.
///
/// # Errors
///
/// [`Error::Model`](crate::Error::Model) where the directory holds no model, [`Error::Io`](crate::Error::Io) where it
/// cannot be read or `out` cannot be written. A directory with faults is no error: the report tells them.
pub fn inspect(args: &InspectArgs, out: &mut dyn Write) -> Result<()> {
    let mut report = bundle::inspect(&args.model, &Overrides::default())?;
    if let Ok(bundle) = Bundle::open(&args.model, &Overrides::default()) {
        report.tasks = fits(&bundle);
    }
    if args.json { output::json(out, &report) } else { output::text(out, &report.to_string()) }
}
