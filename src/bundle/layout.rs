//! Finding the parts of a model in its directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::component::{Component, ComponentKind};
use super::facts::Facts;
use super::onnx::GraphFile;
use super::{Bundle, json};
use crate::error::{Error, Result};

/// How a model directory is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// One directory a component, each with a config.json: Optimum, and exporters that follow it.
    Configured,
    /// One directory a component, none with a config.json, and a model_index.json: diffusers' first ONNX exports.
    Legacy,
    /// One directory a component, with neither config.json nor model_index.json.
    Bare,
    /// All graphs side by side in the model's directory, such as `unet.onnx`.
    Flat,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Configured => "a directory with config.json for each component (Optimum's layout)",
            Self::Legacy => "a directory without config.json for each component (diffusers' legacy ONNX layout)",
            Self::Bare => "a directory for each component, without model_index.json",
            Self::Flat => "graphs side by side in one directory",
        })
    }
}

/// What a pipeline file says over what the model directory says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Graph files by component, as absolute paths or relative to the current directory.
    pub graphs: BTreeMap<ComponentKind, PathBuf>,
    /// What latents are multiplied by after encoding and divided by before decoding.
    pub scaling_factor: Option<f64>,
    /// What is subtracted from latents before scaling.
    pub shift_factor: Option<f64>,
    /// The first stage's number of latent channels.
    pub latent_channels: Option<usize>,
    /// What the denoiser predicts, in diffusers' words: `epsilon`, `v_prediction`, `sample`, ….
    pub prediction_type: Option<String>,
    /// The latent height and width that the model was trained at.
    pub sample_size: Option<usize>,
}

/// A scheduler's configuration file.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerFile {
    /// The file.
    pub path: PathBuf,
    /// diffusers' class, such as `PNDMScheduler`, from the file or else from model_index.json.
    pub class: Option<String>,
    /// The file's contents.
    pub config: Map<String, Value>,
}

/// Reads a directory and collects what is wrong with its parts, so that a report can show the rest.
pub(super) fn survey(dir: &Path, overrides: &Overrides) -> Result<(Bundle, Vec<Error>)> {
    let entries = list(dir)?;
    let mut faults = Vec::new();
    let index = kept(&mut faults, read_if_there(&dir.join("model_index.json"))).flatten().unwrap_or_default();
    let mut components = BTreeMap::new();
    let mut places = BTreeMap::new();
    let mut missing = Vec::new();
    for kind in ComponentKind::ALL {
        let found = match find_component(dir, kind, overrides) {
            // Nothing runs it, so that a model is whole without it.
            Err(fault) if kind == ComponentKind::SafetyChecker => {
                missing.push(format!("{kind}, which is not used: {}", first_line(&fault)));
                None
            }
            found => kept(&mut faults, found).flatten(),
        };
        if let Some((component, place)) = found {
            places.insert(kind, place);
            components.insert(kind, component);
        }
    }
    if components.is_empty() && faults.is_empty() {
        return Err(no_model(dir, &entries));
    }
    let mut scheduler = kept(&mut faults, find_scheduler(dir, "scheduler", &index)).flatten();
    let low_res_scheduler = kept(&mut faults, find_scheduler(dir, "low_res_scheduler", &index)).flatten();
    if let (Some(scheduler), Some(kind)) = (&mut scheduler, &overrides.prediction_type) {
        scheduler.config.insert("prediction_type".into(), Value::String(kind.clone()));
    }
    let flat = !places.is_empty() && places.values().all(|&p| p == Place::Flat);
    let layout = if flat {
        Layout::Flat
    } else if components.values().any(|c| c.config_path.is_some()) {
        Layout::Configured
    } else if !index.is_empty() {
        Layout::Legacy
    } else {
        Layout::Bare
    };
    let facts = Facts::gather(&components, [scheduler.as_ref(), low_res_scheduler.as_ref()], &index, overrides);
    let tokenizers = find_tokenizers(dir);
    let conditioners = find_conditioners(dir, &entries);
    let mut bundle = Bundle {
        dir: dir.to_path_buf(),
        layout,
        index,
        components,
        scheduler,
        low_res_scheduler,
        tokenizers,
        conditioners,
        facts,
        missing,
    };
    let absent = absent_parts(&bundle);
    bundle.missing.extend(absent);
    Ok((bundle, faults))
}

/// What came of reading one part; where nothing did, the fault is put with the others.
fn kept<T>(faults: &mut Vec<Error>, result: Result<T>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn first_line(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Reads a control network: a directory that holds one (with `controlnet/` in it or the graph itself), or its .onnx.
///
/// # Errors
///
/// As [`Bundle::open`].
pub fn open_controlnet(path: &Path) -> Result<Component> {
    open_alone(path, ComponentKind::ControlNet)
}

/// Reads a graph for conditions: a directory that holds it, or its .onnx.
///
/// # Errors
///
/// As [`Bundle::open`].
pub fn open_conditioner(path: &Path) -> Result<Component> {
    open_alone(path, ComponentKind::Conditioner)
}

fn open_alone(path: &Path, kind: ComponentKind) -> Result<Component> {
    if path.is_file() {
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return component(kind, path.to_path_buf(), dir, &[dir.join("config.json")]);
    }
    let entries = list(path)?;
    if let Some((component, _)) = find_component(path, kind, &Overrides::default())? {
        return Ok(component);
    }
    match graph_in(path, kind)? {
        Some(graph) => component(kind, graph, path, &[path.join("config.json")]),
        None => Err(no_model(path, &entries)),
    }
}

/// Where a component's graph was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Directory,
    Flat,
    Named,
}

fn find_component(dir: &Path, kind: ComponentKind, overrides: &Overrides) -> Result<Option<(Component, Place)>> {
    let mut configs = Vec::new();
    let mut found = None;
    if let Some(path) = overrides.graphs.get(&kind) {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        configs.push(parent.join("config.json"));
        configs.push(dir.join(kind.name()).join("config.json"));
        let inside = parent.canonicalize().ok().zip(dir.canonicalize().ok()).is_some_and(|(p, d)| p.starts_with(d));
        found = Some((path.clone(), if inside { dir } else { parent }, Place::Named));
    }
    for name in kind.directories() {
        if found.is_some() {
            break;
        }
        let place = dir.join(name);
        if place.is_dir()
            && let Some(graph) = graph_in(&place, kind)?
        {
            configs.push(place.join("config.json"));
            found = Some((graph, dir, Place::Directory));
        }
    }
    let flat = dir.join(format!("{}.onnx", kind.name()));
    if found.is_none() && exists(&flat) {
        found = Some((flat, dir, Place::Flat));
    }
    let Some((graph, root, place)) = found else { return Ok(None) };
    configs.extend(kind.config_directories().iter().map(|name| dir.join(name).join("config.json")));
    Ok(Some((component(kind, graph, root, &configs)?, place)))
}

fn component(kind: ComponentKind, graph: PathBuf, root: &Path, configs: &[PathBuf]) -> Result<Component> {
    let graph = GraphFile::open(&graph, root)?;
    for path in configs {
        if let Some(config) = read_if_there(path)? {
            return Ok(Component { kind, graph, config, config_path: Some(path.clone()) });
        }
    }
    Ok(Component { kind, graph, config: Map::new(), config_path: None })
}

/// The graph in a component's directory: `model.onnx`, or else the only .onnx file there.
fn graph_in(dir: &Path, kind: ComponentKind) -> Result<Option<PathBuf>> {
    let usual = dir.join("model.onnx");
    if exists(&usual) {
        return Ok(Some(usual));
    }
    let graphs: Vec<String> = list(dir)?.into_iter().filter(|n| n.to_lowercase().ends_with(".onnx")).collect();
    match graphs.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(dir.join(only))),
        several => Err(Error::model(
            dir,
            format!("holds {} graphs and none is called model.onnx: {}", several.len(), several.join(", ")),
            format!("say which one: [model.{kind}] graph = \"…/{}\"", several[0]),
        )),
    }
}

fn find_scheduler(dir: &Path, name: &str, index: &Map<String, Value>) -> Result<Option<SchedulerFile>> {
    for file in ["scheduler_config.json", "config.json"] {
        let path = dir.join(name).join(file);
        if let Some(config) = read_if_there(&path)? {
            let indexed = index.get(name).and_then(|entry| entry.get(1)).and_then(Value::as_str);
            let class = json::string(&config, "_class_name").or(indexed).map(str::to_owned);
            return Ok(Some(SchedulerFile { path, class, config }));
        }
    }
    Ok(None)
}

/// The folders of a graph that is no part of the model by its name, another control network's aside.
fn find_conditioners(dir: &Path, entries: &[String]) -> Vec<String> {
    let is_known = |name: &str| {
        let of_kind = |kind: ComponentKind| kind.directories().iter().any(|known| name.starts_with(known));
        ComponentKind::ALL.into_iter().any(of_kind)
    };
    entries.iter().filter(|name| !is_known(name) && exists(&dir.join(name).join("model.onnx"))).cloned().collect()
}

fn find_tokenizers(dir: &Path) -> BTreeMap<usize, PathBuf> {
    const FILES: [&str; 5] = ["tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer_config.json"];
    let is_tokenizer = |path: &Path| FILES.iter().any(|f| exists(&path.join(f)));
    let mut found: BTreeMap<usize, PathBuf> = [(1, "tokenizer"), (2, "tokenizer_2"), (3, "tokenizer_3")]
        .into_iter()
        .map(|(number, name)| (number, dir.join(name)))
        .filter(|(_, path)| is_tokenizer(path))
        .collect();
    if found.is_empty() && exists(&dir.join("tokenizer.json")) {
        found.insert(1, dir.to_path_buf());
    }
    found
}

/// What model_index.json names but the directory lacks.
fn absent_parts(bundle: &Bundle) -> Vec<String> {
    let mut missing = Vec::new();
    for (name, entry) in &bundle.index {
        let is_named = entry.get(1).is_some_and(Value::is_string);
        let kinds: &[ComponentKind] = match name.as_str() {
            "vae" => &[ComponentKind::VaeDecoder],
            "vqvae" => &[ComponentKind::VqDecoder],
            "scheduler" if is_named && bundle.scheduler.is_none() => {
                missing.push("scheduler/scheduler_config.json, which model_index.json names".to_owned());
                continue;
            }
            "tokenizer" | "tokenizer_2" | "tokenizer_3" => {
                let number = name.strip_prefix("tokenizer_").and_then(|n| n.parse().ok()).unwrap_or(1);
                if is_named && !bundle.tokenizers.contains_key(&number) {
                    missing.push(format!("{name}/, which model_index.json names"));
                }
                continue;
            }
            other => match ComponentKind::from_name(other) {
                Some(ComponentKind::SafetyChecker) | None => continue,
                Some(kind) => &[kind],
            },
        };
        if is_named && !kinds.iter().any(|&k| bundle.component(k).is_some()) {
            missing.push(format!("{}/model.onnx, which model_index.json names as {name}", kinds[0]));
        }
    }
    for encoder in bundle.text_encoders() {
        if bundle.tokenizer(encoder.kind).is_none() && encoder.kind != ComponentKind::TextEncoder3 {
            let number = encoder.kind.text_encoder_number().unwrap_or(1);
            let name = if number == 1 { "tokenizer".to_owned() } else { format!("tokenizer_{number}") };
            let sentence = format!("{name}/, which {} needs", encoder.kind);
            if !missing.iter().any(|m| m.starts_with(&format!("{name}/"))) {
                missing.push(sentence);
            }
        }
    }
    missing
}

/// Says why a directory is taken for no model: what was looked for, what is there, what that is.
fn no_model(dir: &Path, entries: &[String]) -> Error {
    const SHOWN: usize = 12;
    let mut there: Vec<&str> = entries.iter().take(SHOWN).map(String::as_str).collect();
    if entries.len() > SHOWN {
        there.push("…");
    }
    let there = if there.is_empty() { "nothing".to_owned() } else { there.join(", ") };
    let ends = |endings: &[&str]| {
        let in_parts = ["unet", "transformer", "vae", "text_encoder"].map(|p| list(&dir.join(p)).unwrap_or_default());
        entries.iter().chain(in_parts.iter().flatten()).any(|n| endings.iter().any(|e| n.ends_with(e)))
    };
    let help = if ends(&[".safetensors", ".bin", ".ckpt", ".pt"]) {
        "this is a PyTorch checkpoint; export it with scripts/export.py"
    } else if entries.iter().any(|n| n == "snapshots") {
        "this is an entry of the Hugging Face cache; give the directory below its snapshots/"
    } else if ends(&[".onnx"]) {
        "name the graphs in the pipeline file: [model.unet] graph = \"…\""
    } else {
        "give the directory of a model exported to ONNX"
    };
    Error::model(
        dir,
        format!(
            "holds no model: looked for unet/model.onnx, transformer/model.onnx, unet.onnx and their kin; found {there}"
        ),
        help,
    )
}

/// The names in a directory, sorted.
fn list(dir: &Path) -> Result<Vec<String>> {
    let metadata = std::fs::metadata(dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::model(dir, "no such directory", "path in [model] is relative to the pipeline file")
        }
        _ => Error::io(dir, "reading", e),
    })?;
    if !metadata.is_dir() {
        let name = dir.to_string_lossy().to_lowercase();
        let checkpoint = [".safetensors", ".ckpt", ".pt", ".bin"].iter().any(|e| name.ends_with(e));
        let help = if checkpoint {
            "this is a PyTorch checkpoint; export it with scripts/export.py"
        } else {
            "give the directory that holds unet/, scheduler/ and so on"
        };
        return Err(Error::model(dir, "is a file where a model directory is wanted", help));
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, "listing", e))? {
        let entry = entry.map_err(|e| Error::io(dir, "listing", e))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn read_if_there(path: &Path) -> Result<Option<Map<String, Value>>> {
    if exists(path) { json::read_object(path).map(Some) } else { Ok(None) }
}

/// Whether there is a file or a link of this name, be it a dangling one: that is a fault to tell, not an absence.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| !m.is_dir())
}
