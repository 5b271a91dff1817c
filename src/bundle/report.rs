//! A report about a model directory, as text to read or to paste into an issue, and as data.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::component::{Component, ComponentKind};
use super::directory_overrides::DirectoryOverrides;
use super::layout::Layout;
use super::roles::{
    ConditionerSignature, ControlNetSignature, DenoiserSignature, TextEncoderSignature, VaeDecoderSignature,
    VaeEncoderSignature,
};
use super::scheduler_file::SchedulerFile;
use super::survey::survey;
use super::{Bundle, json, operators};
use crate::error::{Result, count_of};
use crate::family::Family;
use crate::tensor::TensorInfo;

/// All information about a model directory that is available without running it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The directory, as the user named it.
    pub directory: String,
    /// The layout of its files.
    pub layout: String,
    /// The pipeline class in its index.
    pub class: Option<String>,
    /// The probable exporter, and the evidence.
    pub exporter: String,
    /// The components.
    pub components: Vec<ComponentReport>,
    /// The scheduler's configuration.
    pub scheduler: Option<SchedulerReport>,
    /// The configuration of the scheduler that adds noise to an upscaler's small image.
    pub low_res_scheduler: Option<SchedulerReport>,
    /// The tokenizers' directories.
    pub tokenizers: Vec<String>,
    /// The facts that the engine reads from the directory.
    pub facts: Vec<FactReport>,
    /// Operators that some providers do not support.
    pub providers: Vec<ProviderReport>,
    /// The requirements of each task, and whether they are met.
    pub tasks: Vec<TaskFit>,
    /// The files that the index names and the directory lacks.
    pub missing: Vec<String>,
    /// The problems, each as the error that a run would end with.
    pub faults: Vec<String>,
}

/// One component of a [`Report`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComponentReport {
    /// Its name, such as `unet`.
    pub name: String,
    /// Its graph's file, relative to the model directory if it is inside.
    pub file: String,
    /// The class in its config.json, if any.
    pub class: Option<String>,
    /// The size of its weights in bytes.
    pub weight_bytes: u64,
    /// The size of its weights in bytes, by element type.
    pub weight_types: Vec<(String, u64)>,
    /// The external weight files, with their sizes in bytes.
    pub external: BTreeMap<String, u64>,
    /// The version of the file format.
    pub ir_version: i64,
    /// The versions of the operator sets; ONNX's own is called `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    /// The program that wrote the file.
    pub producer: String,
    /// The number of nodes by domain; ONNX's own is called `ai.onnx`.
    pub nodes: BTreeMap<String, usize>,
    /// The inputs.
    pub inputs: Vec<TensorReport>,
    /// The outputs.
    pub outputs: Vec<TensorReport>,
    /// Further notes.
    pub notes: Vec<String>,
}

/// One input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// Its role; empty for an unused output.
    pub role: String,
    /// Its element type.
    pub dtype: String,
    /// Its axes, lengths or names.
    pub shape: Vec<String>,
}

/// A scheduler's configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SchedulerReport {
    /// The file.
    pub file: String,
    /// diffusers' class.
    pub class: Option<String>,
    /// The keys and their values.
    pub config: serde_json::Map<String, serde_json::Value>,
}

/// A fact and its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FactReport {
    /// The fact's name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// The place where it was read, or the reason for the assumption.
    pub source: String,
}

/// An operator that some providers do not support.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProviderReport {
    /// The component whose graph contains it.
    pub component: String,
    /// The operator, with its domain.
    pub operator: String,
    /// The number of its occurrences.
    pub count: usize,
    /// The providers that support it.
    pub runs_on: Vec<&'static str>,
    /// The reason why others do not.
    pub reason: &'static str,
}

/// The verdict on a task: if a model can do it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TaskFit {
    /// The task's name in pipeline.toml, such as `text-to-image`.
    pub task: &'static str,
    /// True if the directory has what it takes.
    pub possible: bool,
    /// The reason why it cannot be used; empty if it can.
    pub reason: String,
}

/// Reads a model directory and reports on it, damaged parts included. `fits` judges which tasks it can do.
///
/// # Errors
///
/// [`crate::Error::Model`] where the directory holds no model at all, [`crate::Error::Io`] where it cannot be listed.
pub fn inspect(
    dir: &Path,
    overrides: &DirectoryOverrides,
    fits: impl FnOnce(&Bundle) -> Vec<TaskFit>,
) -> Result<Report> {
    let (bundle, faults) = survey(dir, overrides)?;
    let mut report = Report::new(&bundle, fits(&bundle));
    report.faults.extend(faults.iter().map(ToString::to_string));
    Ok(report)
}

impl Report {
    /// Reports on a directory that was read, with a verdict on each task.
    pub fn new(bundle: &Bundle, tasks: Vec<TaskFit>) -> Self {
        let mut faults = Vec::new();
        let graphs = bundle.components.values().chain(&bundle.controlled_denoiser);
        let components = graphs.map(|c| component(bundle, c, &mut faults)).collect();
        if let Err(Some(refusal)) = &bundle.facts.family {
            faults.push(refusal.to_error().to_string());
        }
        Self {
            directory: bundle.dir.display().to_string(),
            layout: bundle.layout.to_string(),
            class: bundle.class().map(str::to_owned),
            exporter: exporter(bundle),
            components,
            scheduler: bundle.scheduler.as_ref().map(|s| scheduler(bundle, s)),
            low_res_scheduler: bundle.low_res_scheduler.as_ref().map(|s| scheduler(bundle, s)),
            tokenizers: bundle.tokenizers.values().map(|p| relative(bundle, p)).collect(),
            facts: facts(bundle),
            providers: providers(bundle),
            tasks,
            missing: bundle.missing.clone(),
            faults,
        }
    }
}

fn relative(bundle: &Bundle, path: &Path) -> String {
    path.strip_prefix(&bundle.dir).unwrap_or(path).display().to_string()
}

fn scheduler(bundle: &Bundle, file: &SchedulerFile) -> SchedulerReport {
    let config = file.config.iter().filter(|(key, _)| !key.starts_with('_'));
    SchedulerReport {
        file: relative(bundle, &file.path),
        class: file.class.clone(),
        config: config.map(|(key, value)| (key.clone(), value.clone())).collect(),
    }
}

fn component(bundle: &Bundle, component: &Component, faults: &mut Vec<String>) -> ComponentReport {
    let graph = &component.graph;
    let mut notes = Vec::new();
    let roles = roles(bundle, component, &mut notes).unwrap_or_else(|error| {
        faults.push(error.to_string());
        BTreeMap::new()
    });
    let tensor = |t: &TensorInfo| TensorReport {
        name: t.name.clone(),
        role: roles.get(&t.name).cloned().unwrap_or_default(),
        dtype: t.dtype.to_string(),
        shape: t.shape.iter().map(ToString::to_string).collect(),
    };
    let domain = |name: &str| if name.is_empty() { "ai.onnx".to_owned() } else { name.to_owned() };
    let mut nodes = BTreeMap::new();
    for (operator, count) in &graph.operators {
        *nodes.entry(domain(&operator.domain)).or_insert(0) += count;
    }
    ComponentReport {
        name: component.kind.to_string(),
        file: relative(bundle, &graph.path),
        class: json::string(&component.config, "_class_name")
            .or_else(|| component.config.get("architectures")?.get(0)?.as_str())
            .map(str::to_owned),
        weight_bytes: graph.weight_bytes,
        weight_types: graph.weight_types.iter().map(|(dtype, bytes)| (dtype.to_string(), *bytes)).collect(),
        external: graph.external.iter().map(|e| (e.location.clone(), e.bytes)).collect(),
        ir_version: graph.ir_version,
        opsets: graph.opsets.iter().map(|(name, &version)| (domain(name), version)).collect(),
        producer: graph.producer.clone(),
        nodes,
        inputs: graph.inputs.iter().map(tensor).collect(),
        outputs: graph.outputs.iter().map(tensor).collect(),
        notes,
    }
}

/// The role of each of a component's inputs and outputs by name, and what else its signature tells.
fn roles(bundle: &Bundle, component: &Component, notes: &mut Vec<String>) -> Result<BTreeMap<String, String>> {
    use ComponentKind as Kind;
    let named = |roles: Vec<(&TensorInfo, String)>| roles.into_iter().map(|(t, role)| (t.name.clone(), role)).collect();
    Ok(match component.kind {
        Kind::Unet | Kind::Transformer => {
            let signature = DenoiserSignature::resolve(component)?;
            notes.extend(signature.batch.map(|n| format!("fixed batch size {n}")));
            notes.extend(signature.class_rows.map(|n| count_of(n, "class")));
            let row = bundle.known_family().map(Family::row).filter(|row| row.text.form.is_masked());
            let tokens = row.and_then(|row| Some((row.title, row.text.tokens?)));
            notes.extend(tokens.map(|(title, tokens)| format!("{title}, which reads {}", count_of(tokens, "token"))));
            if !signature.residuals.is_empty() {
                notes.push("a denoiser that takes ControlNet residuals".to_owned());
            }
            named(signature.roles())
        }
        Kind::TextEncoder | Kind::TextEncoder2 | Kind::TextEncoder3 => {
            let signature = TextEncoderSignature::resolve(component)?;
            notes.extend(signature.embedding_rows.map(|n| format!("{} in the embedding table", count_of(n, "row"))));
            notes.extend(signature.sequence_length.map(|n| format!("fixed length of {}", count_of(n, "token"))));
            named(signature.roles())
        }
        Kind::VaeDecoder | Kind::VqDecoder | Kind::TinyVaeDecoder => {
            let signature = VaeDecoderSignature::resolve(component)?;
            if component.kind == Kind::TinyVaeDecoder {
                notes.push("for --preview, and for images with [model] decoder = \"tiny\"".to_owned());
                notes.extend(component.old_name_warning());
            }
            notes.extend(signature.batch.map(|n| format!("fixed batch size {n}")));
            named(signature.roles())
        }
        Kind::VaeEncoder | Kind::VqEncoder => {
            let signature = VaeEncoderSignature::resolve(component, Some(bundle.facts.latent_channels.value))?;
            if signature.samples_inside {
                notes.push("samples internally, so image-to-image is not reproducible from the seed".to_owned());
            }
            named(signature.roles())
        }
        Kind::ClassEmbedder | Kind::Conditioner => {
            let signature = ConditionerSignature::resolve(component)?;
            notes.extend(signature.rows.map(|n| count_of(n, "class")));
            named(signature.roles())
        }
        Kind::ControlNet => named(ControlNetSignature::resolve(component)?.roles()),
        Kind::SafetyChecker => {
            notes.push("recognized, not run".to_owned());
            BTreeMap::new()
        }
    })
}

fn facts(bundle: &Bundle) -> Vec<FactReport> {
    let facts = &bundle.facts;
    let size = |(width, height): (usize, usize)| format!("{width} × {height}");
    let row = |name, value: String, source: &str| FactReport { name, value, source: source.to_owned() };
    let mut rows = vec![
        row("VAE", facts.autoencoder.to_string(), ""),
        row("latent channels", facts.latent_channels.value.to_string(), &facts.latent_channels.source),
        row("scaling factor", facts.scaling_factor.value.to_string(), &facts.scaling_factor.source),
        row("shift factor", facts.shift_factor.value.to_string(), &facts.shift_factor.source),
        row("pixels per latent", facts.spatial_factor.value.to_string(), &facts.spatial_factor.source),
        row("latent sizes in steps of", facts.latent_multiple.value.to_string(), &facts.latent_multiple.source),
        row("image sizes in steps of", facts.size_multiple().to_string(), "the two above, multiplied"),
        row("default size", size(facts.default_size.value), &facts.default_size.source),
    ];
    rows.extend(facts.fixed_size.as_ref().map(|f| row("only size", size(f.value), &f.source)));
    rows.extend(
        facts.latent_statistics.as_ref().map(|f| {
            row("latent statistics", format!("mean {:?}, deviation {:?}", f.value.mean, f.value.std), &f.source)
        }),
    );
    rows.extend(facts.prediction_type.as_ref().map(|f| row("prediction type", f.value.clone(), &f.source)));
    let noise = bundle.half_precision_noise();
    rows.extend(noise.map(|f| row("noise in half precision", f.value.name().to_owned(), &f.source)));
    rows.extend(facts.family.as_ref().ok().map(|f| row("family", f.value.name().to_owned(), &f.source)));
    rows
}

fn providers(bundle: &Bundle) -> Vec<ProviderReport> {
    let of = |component: &Component| {
        let name = component.kind.to_string();
        operators::obstacles(&component.graph).into_iter().map(move |o| ProviderReport {
            component: name.clone(),
            operator: o.operator.to_string(),
            count: o.count,
            runs_on: o.runs_on.to_vec(),
            reason: o.reason,
        })
    };
    bundle.components.values().chain(&bundle.controlled_denoiser).flat_map(of).collect()
}

/// Guesses the exporter of a directory: exporters leave no name, but their conventions changed with their versions.
fn exporter(bundle: &Bundle) -> String {
    let Some(denoiser) = bundle.denoiser().ok() else { return "not recognized: there is no denoiser".to_owned() };
    let graph = &denoiser.graph;
    let encoder_output = bundle.encoder().and_then(|e| e.graph.outputs.first()).map(|o| o.name.as_str());
    let timestep = graph.input("timestep");
    let scalar_float = timestep.is_some_and(|t| t.shape.is_empty() && t.dtype.is_float());
    let axis = graph.input("sample").and_then(|s| s.shape.first()).map(ToString::to_string).unwrap_or_default();
    let optimum = bundle.components.values().any(|c| c.config.contains_key("export_model_type"))
        || axis == "batch_size"
        || timestep.is_some_and(|t| t.shape.first().is_some_and(|d| d.to_string() == "steps"));
    let decoder = bundle.decoder().map(|d| &d.graph);
    let names_images =
        decoder.is_some_and(|d| d.input("latent").is_some() && d.outputs.iter().any(|o| o.name == "images"));
    let has_fused = graph.operators.keys().any(|o| o.domain == "com.microsoft");
    let who = if graph.producer.starts_with("ldm-ort") {
        "this project's scripts/export.py"
    } else if bundle.dir.join("pyke-diffusers.toml").is_file() {
        "pyke's exporter (pyke-diffusers.toml)"
    } else if names_images {
        "TensorRT's demo, or ONNX Runtime's CUDA demo after it (the decoder maps latent to images)"
    } else if axis.starts_with("unet_") {
        "Olive or OnnxStack (axes named unet_…)"
    } else if optimum && scalar_float {
        "Optimum 1.24 or later (scalar float timestep)"
    } else if optimum && encoder_output == Some("latent_parameters") {
        "Optimum 1.23 (the encoder outputs moments, the timestep is a list)"
    } else if optimum {
        "Optimum up to 1.22"
    } else if bundle.layout == Layout::Legacy {
        "diffusers' convert_stable_diffusion_checkpoint_to_onnx.py, or a compatible one"
    } else {
        "not recognized"
    };
    if has_fused { format!("{who}; optimized by ONNX Runtime afterwards") } else { who.to_owned() }
}
