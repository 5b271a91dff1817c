//! A pipeline file to start from.

use crate::bundle::{Bundle, CallDefaults, ComponentKind, DenoiserSignature, Fact, Role, TaskFit};
use crate::family::{DefaultSize, Defaults};
use crate::task::{SampleKeys, TASKS, TaskEntry, find};

/// Writes a complete, commented pipeline.toml for a model directory.
///
/// `model_path` goes into `[model] path` as it is given, so it should be relative to where the file will lie. The task is
/// the first possible one of `fits`.
pub fn init_toml(bundle: &Bundle, model_path: &str, fits: &[TaskFit]) -> String {
    let possible: Vec<&str> = fits.iter().filter(|t| t.possible).map(|t| t.task).collect();
    let entry: &TaskEntry = possible.first().and_then(|name| find(name)).unwrap_or(TASKS[0]);
    let takes_residuals =
        bundle.denoiser().and_then(DenoiserSignature::resolve).is_ok_and(|signature| !signature.residuals.is_empty());
    let call = bundle.call_defaults(&entry.call(), takes_residuals);
    let style = Style::of(bundle, &call);
    let mut sample = Sample { bundle, entry, takes_residuals, call, style, text: String::new() };
    sample.model(model_path);
    sample.task(&possible);
    sample.control();
    sample.scheduler();
    sample.run();
    for line in [
        "[device]",
        "provider = \"cpu\"    # or a list in order of preference, such as [\"tensorrt\", \"cuda\"]",
        "",
        "[output]",
        "dir = \"outputs\"",
    ] {
        sample.line(line);
    }
    sample.text
}

/// A pipeline file that is being written, table by table.
struct Sample<'a> {
    bundle: &'a Bundle,
    entry: &'a TaskEntry,
    takes_residuals: bool,
    call: CallDefaults,
    style: Style,
    text: String,
}

impl Sample<'_> {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    fn model(&mut self, path: &str) {
        let scaling_factor = &self.bundle.facts.scaling_factor;
        self.line("[model]");
        self.line(format!("path = {}    # relative to this file", quoted(path)));
        self.line(format!(
            "# scaling_factor = {:?}    # read from the directory: {}",
            scaling_factor.value, scaling_factor.source
        ));
        if let Ok(denoiser) = self.bundle.denoiser() {
            self.line(format!("# [model.{}]", denoiser.kind));
            self.line(format!("# graph = \"{}/model.onnx\"    # another graph, relative to this file", denoiser.kind));
        }
        self.line("");
    }

    /// Writes the task, with the names of the tasks that are possible.
    fn task(&mut self, possible: &[&str]) {
        match possible {
            [] => self.line("# This directory lacks something for every task; `ldm-ort inspect` says what."),
            names => self.line(format!("# This model can do: {}.", names.join(", "))),
        }
        self.line(format!("[task.{}]", self.entry.name));
        let keys = SampleKeys::new(self.bundle, self.style.values, self.style.guidance);
        (self.entry.sample)(&keys).iter().for_each(|key| self.line(key));
    }

    fn control(&mut self) {
        // A denoiser for control networks beside the plain one is there for whoever wants it; by itself it wants one.
        let comment = if self.takes_residuals { "" } else { "# " };
        if self.takes_residuals || self.bundle.controlled_denoiser.is_some() {
            self.line("");
            if !self.takes_residuals {
                self.line("# With a control network the model's other denoiser is run, which takes one's residuals.");
            }
            self.line(format!("{comment}[[control]]"));
            self.line(format!(
                "{comment}image = \"edges.png\"    # what the control network follows; relative to this file"
            ));
            if self.bundle.component(ComponentKind::ControlNet).is_none() {
                self.line(format!("{comment}path = \"controlnet\"    # its directory"));
            }
            let values = self.bundle.call_defaults(&self.entry.call(), true).values;
            self.line(format!("{comment}scale = {:?}", values.control_scale.unwrap_or(1.0)));
        }
        self.line("");
    }

    fn scheduler(&mut self) {
        let class = self.bundle.scheduler.as_ref().and_then(|s| s.class.as_deref());
        match class {
            Some(class) => self.line(format!("# Without a scheduler's table the model's own is used: {class}.")),
            None => {
                self.line("# The directory names no scheduler, so one has to be chosen (`ldm-ort list schedulers`).")
            }
        }
        let table = match class {
            // Rectified flows run on schedulers of their own.
            Some(class) if class.starts_with("FlowMatch") => ["# [scheduler.flow-match-euler]", "# shift = 3.0"],
            Some(_) => ["# [scheduler.dpm-multistep]", "# use_karras_sigmas = true"],
            None => ["[scheduler.ddim]", "# eta = 0.0"],
        };
        self.line(format!("{}    # see `ldm-ort list schedulers`", table[0]));
        self.line(table[1]);
        self.line("");
    }

    fn run(&mut self) {
        let bundle = self.bundle;
        self.line("[run]");
        self.line(format!("steps = {}    # {}", self.style.steps, self.style.source));
        self.line("seed = 42          # image i of a run is drawn from seed + i");
        self.line("images = 1         # for each prompt");
        if let Some(Fact { value, source }) = bundle.half_precision_noise() {
            self.line(format!("# noise = \"{}\"    # {source}; without it, float32 noise", value.name()));
        }
        let Fact { value: (width, height), source } = bundle.default_size(self.entry.name, self.takes_residuals);
        if self.entry.defaults.size == DefaultSize::Model {
            let multiple = bundle.facts.size_multiple();
            self.line(format!("width = {width}       # multiples of {multiple}; default: {source}"));
            self.line(format!("height = {height}"));
        } else {
            match self.call.values.size {
                DefaultSize::Model | DefaultSize::Binned | DefaultSize::Square512 => {
                    self.line(format!("# width = {width}       # default: {source}; the input image is resized to it"));
                    self.line(format!("# height = {height}"));
                }
                _ => self.line("# Without a width and a height, the size is that of the input image."),
            }
        }
        self.line("");
    }
}

/// The values that the pipeline file states.
#[derive(Debug, Clone)]
struct Style {
    steps: usize,
    guidance: f64,
    values: Defaults,
    source: String,
}

impl Style {
    const DISTILLED_STEPS: usize = 4;

    /// Those of the task's pipeline class; for distilled models, the settings that they are published with.
    fn of(bundle: &Bundle, call: &CallDefaults) -> Self {
        let values = call.values;
        match distilled(bundle).filter(|_| values.steps > Self::DISTILLED_STEPS) {
            Some(guidance) => Self {
                steps: Self::DISTILLED_STEPS,
                guidance,
                values,
                source: "as such distilled models are published".to_owned(),
            },
            None => Self { steps: values.steps, guidance: values.guidance_scale(), values, source: call.source() },
        }
    }
}

/// The guidance scale of a model distilled to a few steps, whose class has the defaults of models that are not.
fn distilled(bundle: &Bundle) -> Option<f64> {
    let class = bundle.scheduler.as_ref().and_then(|s| s.class.as_deref()).unwrap_or_default();
    let spacing = bundle.scheduler.as_ref().and_then(|s| s.config.get("timestep_spacing")?.as_str());
    let signature = bundle.denoiser().and_then(DenoiserSignature::resolve).ok()?;
    match () {
        () if signature.takes(Role::TimestepCond) || class == "LCMScheduler" => Some(8.5),
        // Schnell, and "turbo" models.
        () if signature.is_packed() && !signature.takes(Role::Guidance) => Some(0.0),
        () if class == "EulerAncestralDiscreteScheduler" && spacing == Some("trailing") => Some(0.0),
        () => None,
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
