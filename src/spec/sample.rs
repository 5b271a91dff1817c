//! A pipeline file to start from.

use std::fmt::Write;

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
    let facts = &bundle.facts;
    let takes_residuals =
        bundle.denoiser().and_then(DenoiserSignature::resolve).is_ok_and(|signature| !signature.residuals.is_empty());
    let call = bundle.call_defaults(&entry.call(), takes_residuals);
    let style = Style::of(bundle, &call);
    let mut out = String::new();
    // Writing to a string does not fail.
    let mut line = |text: &str| {
        let _ = writeln!(out, "{text}");
    };

    line("[model]");
    line(&format!("path = {}    # relative to this file", quoted(model_path)));
    line(&format!(
        "# scaling_factor = {:?}    # read from the directory: {}",
        facts.scaling_factor.value, facts.scaling_factor.source
    ));
    if let Ok(denoiser) = bundle.denoiser() {
        line(&format!("# [model.{}]", denoiser.kind));
        line(&format!("# graph = \"{}/model.onnx\"    # another graph, relative to this file", denoiser.kind));
    }
    line("");
    match possible.as_slice() {
        [] => line("# This directory lacks something for every task; `ldm-ort inspect` says what."),
        names => line(&format!("# This model can do: {}.", names.join(", "))),
    }
    line(&format!("[task.{}]", entry.name));
    let sample = SampleKeys::new(bundle, style.values, style.guidance);
    (entry.sample)(&sample).iter().for_each(|key| line(key));
    // A denoiser for control networks beside the plain one is there for whoever wants it; by itself it wants one.
    let comment = if takes_residuals { "" } else { "# " };
    if takes_residuals || bundle.controlled_denoiser.is_some() {
        line("");
        if !takes_residuals {
            line("# With a control network the model's other denoiser is run, which takes one's residuals.");
        }
        line(&format!("{comment}[[control]]"));
        line(&format!("{comment}image = \"edges.png\"    # what the control network follows; relative to this file"));
        if bundle.component(ComponentKind::ControlNet).is_none() {
            line(&format!("{comment}path = \"controlnet\"    # its directory"));
        }
        let scale = bundle.call_defaults(&entry.call(), true).values.control_scale.unwrap_or(1.0);
        line(&format!("{comment}scale = {scale:?}"));
    }
    line("");
    let class = bundle.scheduler.as_ref().and_then(|s| s.class.as_deref());
    match class {
        Some(class) => line(&format!("# Without a scheduler's table the model's own is used: {class}.")),
        None => line("# The directory names no scheduler, so one has to be chosen (`ldm-ort list schedulers`)."),
    }
    let table = match class {
        // Rectified flows run on schedulers of their own.
        Some(class) if class.starts_with("FlowMatch") => ["# [scheduler.flow-match-euler]", "# shift = 3.0"],
        Some(_) => ["# [scheduler.dpm-multistep]", "# use_karras_sigmas = true"],
        None => ["[scheduler.ddim]", "# eta = 0.0"],
    };
    line(&format!("{}    # see `ldm-ort list schedulers`", table[0]));
    line(table[1]);
    line("");
    line("[run]");
    line(&format!("steps = {}    # {}", style.steps, style.source));
    line("seed = 42          # image i of a run is drawn from seed + i");
    line("images = 1         # for each prompt");
    if let Some(Fact { value, source }) = bundle.half_precision_noise() {
        line(&format!("# noise = \"{}\"    # {source}; without it, float32 noise", value.name()));
    }
    let size = bundle.default_size(entry.name, takes_residuals);
    let (width, height) = size.value;
    if entry.defaults.size == DefaultSize::Model {
        line(&format!("width = {width}       # multiples of {}; default: {}", facts.size_multiple(), size.source));
        line(&format!("height = {height}"));
    } else {
        match call.values.size {
            DefaultSize::Model | DefaultSize::Binned | DefaultSize::Square512 => {
                line(&format!("# width = {width}       # default: {}; the input image is resized to it", size.source));
                line(&format!("# height = {height}"));
            }
            _ => line("# Without a width and a height, the size is that of the input image."),
        }
    }
    line("");
    line("[device]");
    line("provider = \"cpu\"    # or a list in order of preference, such as [\"tensorrt\", \"cuda\"]");
    line("");
    line("[output]");
    line("dir = \"outputs\"");
    out
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
