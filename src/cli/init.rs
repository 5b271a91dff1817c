//! `ldm-ort init`.

use std::io::Write;

use super::args::InitArgs;
use super::output;
use crate::bundle::{Bundle, DirectoryOverrides};
use crate::error::{Error, Result};
use crate::spec::init_toml;
use crate::task::task_fits;

/// Prints a pipeline.toml for a model directory, to be written into the current directory.
///
/// # Errors
///
/// [`Error::Model`] where the directory is not one that can be run,
/// [`Error::Io`] where it cannot be read or `out` cannot be written.
pub fn init(args: &InitArgs, out: &mut dyn Write) -> Result<()> {
    let bundle = Bundle::open(&args.model, &DirectoryOverrides::default())?;
    bundle.family()?;
    let fits = task_fits(&bundle);
    if !fits.iter().any(|fit| fit.possible) {
        let reasons: Vec<_> = fits.iter().map(|fit| format!("\n    {}: {}", fit.task, fit.reason)).collect();
        return Err(Error::model(
            &args.model,
            format!("there is no task that could be run with it:{}", reasons.concat()),
            "`ldm-ort inspect` tells more",
        ));
    }
    output::text(out, &init_toml(&bundle, &args.model.to_string_lossy(), &fits))
}
