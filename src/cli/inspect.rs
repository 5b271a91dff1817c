//! `ldm-ort inspect`.

use std::io::Write;
use std::path::Path;

use super::args::InspectArgs;
use super::output;
use super::standard_input::load_spec;
use crate::bundle::{self, DirectoryOverrides, Report};
use crate::error::{Error, Result};
use crate::spec::{self, Spec};
use crate::task::task_fits;

/// Prints what a model directory holds, or the models of a pipeline file with what that says over their directories.
///
/// # Errors
///
/// [`Error::Spec`] where a pipeline file is wrong, [`Error::Model`] where the directory holds no model, [`Error::Io`]
/// where it cannot be read or `out` cannot be written. A directory with faults is no error: the report tells them.
pub fn inspect(args: &InspectArgs, out: &mut dyn Write) -> Result<()> {
    let is_pipeline = args.model.as_os_str() == "-"
        || args.model.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
    if !is_pipeline {
        let report = report(&args.model, &DirectoryOverrides::default())?;
        return if args.json { output::json(out, &report) } else { output::text(out, &report.to_string()) };
    }
    let spec = load_spec(&args.model, spec::Overrides::default())?;
    output::warn(spec.old_names.warnings());
    let of = |spec: &Spec| report(&spec.model.path, &spec.model.overrides());
    let base = of(&spec)?;
    let stages = spec.stages.iter().enumerate();
    let stages = stages.map(|(at, stage)| of(&stage.spec).map_err(|error| error.in_stage(&format!("stage[{at}]"))));
    let stages = stages.collect::<Result<Vec<_>>>()?;
    if args.json {
        let mut json = serde_json::to_value(&base).map_err(|error| Error::io("stdout", "writing", error.into()))?;
        if !stages.is_empty() {
            json["stages"] = stages.iter().filter_map(|report| serde_json::to_value(report).ok()).collect();
        }
        return output::json(out, &json);
    }
    output::text(out, &base.to_string())?;
    for (at, report) in stages.iter().enumerate() {
        output::text(out, &format!("\nstage[{at}]: {report}"))?;
    }
    Ok(())
}

fn report(dir: &Path, overrides: &DirectoryOverrides) -> Result<Report> {
    bundle::inspect(dir, overrides, task_fits)
}
