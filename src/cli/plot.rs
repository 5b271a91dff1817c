//! `ldm-ort plot`.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args::PlotArgs;
use super::output;
use super::standard_input::load_spec;
use crate::bundle::Bundle;
use crate::error::{Error, Result, count_of};
use crate::files;
use crate::plan::SchedulerChoice;
use crate::plot::{self, Curve};
use crate::scheduler::{self, AliasValue, CustomSchedule};

/// Draws the schedule of a pipeline, and those that other schedulers would make over the same model. Needs no runtime
/// and opens no graph.
///
/// `out` gets the image's path, or with `--json` the path and the numbers.
///
/// # Errors
/// Whatever is wrong with the pipeline file, the model directory or a scheduler's name; [`Error::Io`] where the image
/// cannot be written.
pub fn plot(args: &PlotArgs, out: &mut dyn Write) -> Result<()> {
    let path = place(args)?;
    let spec = load_spec(&args.pipeline, args.overrides.to_overrides())?;
    output::warn(spec.old_names.warnings());
    let bundle = Bundle::open(&spec.model.path, &spec.model.overrides())?;
    let (task, has_control) = (spec.task.name(), !spec.controls.is_empty());
    let defaults = bundle.call_defaults(&spec.task.call(), has_control).values;
    let own = SchedulerChoice::new(&spec, &bundle, defaults.eta)?;
    let (steps, custom) = spec.run.schedule(own.entry, defaults.steps);
    let mut others = Vec::new();
    for name in &args.scheduler {
        let choice = own.another(name).ok_or_else(|| unknown(name))?;
        others.push(DrawResult { choice, custom: None });
    }
    let mut all = vec![DrawResult { choice: own, custom }];
    for drawn in others {
        if !all.iter().any(|other| other.is_same(&drawn)) {
            all.push(drawn);
        }
    }
    let (width, height) = bundle.default_size(task, has_control).value;
    let patches = bundle.facts.patches(spec.run.width.unwrap_or(width), spec.run.height.unwrap_or(height));
    let curves = all.iter().map(|drawn| drawn.curve(steps, patches)).collect::<Result<Vec<Curve>>>()?;
    let model = spec
        .model
        .path
        .file_name()
        .map_or_else(|| spec.model.path.display().to_string(), |name| name.to_string_lossy().into_owned());
    let image = plot::svg(&format!("{model}, {}", count_of(steps, "step")), &curves)?;
    files::write_whole(&path, |file| file.write_all(image.as_bytes()))?;
    if args.json {
        let object =
            json!({"path": path.to_string_lossy(), "schedulers": curves.iter().map(numbers).collect::<Value>()});
        return output::text(out, &format!("{object}\n"));
    }
    output::text(out, &format!("{}\n", path.display()))
}

/// Returns the path of the SVG file.
fn place(args: &PlotArgs) -> Result<PathBuf> {
    let Some(path) = &args.output else {
        // Standard input has no name of its own.
        let is_file = args.pipeline.as_os_str() != "-";
        return Ok(if is_file { args.pipeline.with_extension("svg") } else { "pipeline.svg".into() });
    };
    let is_svg = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("svg"));
    if !is_svg && !files::is_stream(path) {
        return Err(Error::input(
            "--output",
            format!("{} does not end in .svg, and schedules are drawn as SVG only", path.display()),
            format!("name {}; browsers show it, and rsvg-convert or Inkscape make a PNG of it", svg_name(path)),
        ));
    }
    output::require_place("--output", path, "svg", "schedules are drawn as SVG only")?;
    Ok(path.clone())
}

fn svg_name(path: &Path) -> String {
    path.with_extension("svg").display().to_string()
}

/// One scheduler of the image.
struct DrawResult {
    choice: SchedulerChoice,
    /// The schedule itself, where the pipeline gives it outright.
    custom: Option<CustomSchedule>,
}

impl DrawResult {
    /// The keys that its name stands for beside the class.
    fn implied(&self) -> Vec<(&'static str, AliasValue)> {
        scheduler::find_alias(&self.choice.name).map(|(_, implied)| implied).unwrap_or_default()
    }

    /// True if two have one schedule, as `heun` and `HeunDiscreteScheduler` have.
    fn is_same(&self, other: &Self) -> bool {
        let parts = |drawn: &Self| (drawn.choice.entry.name, drawn.implied());
        parts(self) == parts(other) && self.choice.table == other.choice.table && self.custom == other.custom
    }

    /// The name in the legend: ours, and what goes beyond it.
    fn name(&self) -> String {
        let mut beyond = Vec::new();
        if !self.implied().is_empty() {
            beyond.push(self.choice.name.as_str());
        }
        if !self.choice.table.is_empty() || self.custom.is_some() {
            beyond.push("with the pipeline's keys");
        }
        let name = self.choice.entry.name;
        if beyond.is_empty() { name.to_owned() } else { format!("{name} ({})", beyond.join(", ")) }
    }

    /// The schedule for an image that is read as so many patches, as far as it depends on that.
    fn curve(&self, steps: usize, patches: usize) -> Result<Curve> {
        let mut request = scheduler::ScheduleRequest::new(steps, 1);
        request.mu = self.choice.mu(patches);
        request.custom = self.custom.clone().or_else(|| self.choice.of_family(steps));
        Ok(Curve::from_scheduler(self.name(), self.choice.build(&request)?.as_ref(), steps))
    }
}

fn unknown(name: &str) -> Error {
    let near = scheduler::suggest(name);
    let help = if near.is_empty() {
        format!("choose {}", scheduler::table().iter().map(|entry| entry.name).collect::<Vec<_>>().join(", "))
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    Error::input("--scheduler", format!("no scheduler is called {name:?}"), help)
}

fn numbers(curve: &Curve) -> Value {
    json!({
        "name": curve.name,
        "positions": curve.positions,
        "timesteps": curve.timesteps,
        "sigmas": curve.sigmas,
        "snr": curve.snr,
    })
}
