//! Finds the parts of a model in its directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Bundle;
use super::component::{Component, ComponentKind};
use super::directory_overrides::DirectoryOverrides;
use super::facts::{self, Facts};
use super::hub;
use super::layout::Layout;
use super::onnx::INCOMPLETE;
use super::roles;
use super::scheduler_file::find_scheduler;
use super::search::{GraphPlace, component, exists, find_component, graph_in, list, read_if_there};
use crate::error::{Error, Result};
use crate::files::broken_link;

impl Bundle {
    /// Reads a model directory. For an entry of the Hugging Face cache (`models--ORG--NAME`), reads the snapshot that
    /// its `refs/main` names.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the directory contains no model, or if any of its graphs or configurations is damaged,
    /// incomplete or ambiguous; [`Error::Io`] if a file cannot be read.
    pub fn open(dir: &Path, overrides: &DirectoryOverrides) -> Result<Self> {
        let (bundle, faults) = survey(dir, overrides)?;
        match faults.into_iter().next() {
            None => Ok(bundle),
            Some(fault) => Err(fault),
        }
    }
}

/// Reads a directory and collects the errors of its parts, so that a report can show the rest.
pub(super) fn survey(dir: &Path, overrides: &DirectoryOverrides) -> Result<(Bundle, Vec<Error>)> {
    let dir = &hub::snapshot(dir)?;
    let entries = list(dir)?;
    let mut faults = broken_entries(dir, &entries);
    let index = record_fault(&mut faults, read_if_there(&dir.join("model_index.json"))).flatten().unwrap_or_default();
    let mut components = BTreeMap::new();
    let mut places = BTreeMap::new();
    let mut missing = Vec::new();
    for kind in ComponentKind::ALL {
        let found = match find_component(dir, kind, overrides) {
            // Nothing runs it, so the model is complete without it.
            Err(fault) if kind == ComponentKind::SafetyChecker => {
                missing.push(format!("{kind}, which is not used: {}", first_line(&fault)));
                None
            }
            found => record_fault(&mut faults, found).flatten(),
        };
        if let Some((component, place)) = found {
            places.insert(kind, place);
            components.insert(kind, component);
        }
    }
    if components.is_empty() && faults.is_empty() {
        return Err(no_model(dir, &entries));
    }
    if let Some(control) = components.get_mut(&ComponentKind::ControlNet) {
        control.take_roles(overrides.roles.get(&ComponentKind::ControlNet));
    }
    let controlled_denoiser = take_controlled_denoiser(&mut components, overrides);
    let mut scheduler = record_fault(&mut faults, find_scheduler(dir, "scheduler", &index)).flatten();
    let low_res_scheduler = record_fault(&mut faults, find_scheduler(dir, "low_res_scheduler", &index)).flatten();
    if let (Some(scheduler), Some(kind)) = (&mut scheduler, &overrides.prediction_type) {
        scheduler.config.insert("prediction_type".into(), Value::String(kind.clone()));
    }
    let layout = layout(&places, &components, &index);
    let tokenizers = find_tokenizers(dir);
    let reads_bert = tokenizers.values().any(|tokenizer| exists(&tokenizer.join("vocab.txt")));
    let schedulers = [scheduler.as_ref(), low_res_scheduler.as_ref()];
    let facts = Facts::gather(&components, schedulers, &index, facts::Place { dir, reads_bert }, overrides);
    let conditioners = find_conditioners(dir, &entries);
    let mut bundle = Bundle {
        dir: dir.to_path_buf(),
        layout,
        index,
        components,
        controlled_denoiser,
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

fn layout(
    places: &BTreeMap<ComponentKind, GraphPlace>,
    components: &BTreeMap<ComponentKind, Component>,
    index: &Map<String, Value>,
) -> Layout {
    if !places.is_empty() && places.values().all(|&place| place == GraphPlace::Flat) {
        Layout::Flat
    } else if components.values().any(|component| component.config_path.is_some()) {
        Layout::Configured
    } else if !index.is_empty() {
        Layout::Legacy
    } else {
        Layout::Bare
    }
}

/// Moves a UNet that takes ControlNet residuals from the ControlNet's folder to the denoiser: OnnxStack and onnx-web
/// use that layout. If there is no other denoiser, it becomes the denoiser.
fn take_controlled_denoiser(
    components: &mut BTreeMap<ComponentKind, Component>,
    overrides: &DirectoryOverrides,
) -> Option<Component> {
    if !roles::takes_residuals(&components.get(&ComponentKind::ControlNet)?.graph) {
        return None;
    }
    let mut denoiser = Component { kind: ComponentKind::Unet, ..components.remove(&ComponentKind::ControlNet)? };
    denoiser.take_roles(overrides.roles.get(&ComponentKind::Unet));
    if overrides.graphs.contains_key(&ComponentKind::Unet) {
        return None;
    }
    if !components.contains_key(&ComponentKind::Unet) && !components.contains_key(&ComponentKind::Transformer) {
        components.insert(ComponentKind::Unet, denoiser);
        return None;
    }
    Some(denoiser)
}

/// Returns errors for the folders and files of a model that are broken links, except those of a graph that nothing
/// runs.
fn broken_entries(dir: &Path, entries: &[String]) -> Vec<Error> {
    let is_read = |name: &&String| {
        let kinds = ComponentKind::ALL.into_iter().filter(|kind| *kind != ComponentKind::SafetyChecker);
        let mut folders = kinds.flat_map(|kind| kind.directories().iter().chain(kind.config_directories()));
        folders.any(|folder| name == folder) || ["scheduler", "low_res_scheduler"].contains(&name.as_str()) || {
            name.starts_with("tokenizer")
        }
    };
    let of_entry = |name: &String| {
        let path = dir.join(name);
        Some(Error::model(&path, broken_link(&path)?, INCOMPLETE))
    };
    entries.iter().filter(is_read).filter_map(of_entry).collect()
}

/// Returns the result of reading one part; records its error.
fn record_fault<T>(faults: &mut Vec<Error>, result: Result<T>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn first_line(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Reads a ControlNet: a directory that contains one (in `controlnet/` or directly), or its .onnx file. `roles` are
/// those of inputs by their names, of which the graph may lack some: one map serves several networks.
///
/// # Errors
///
/// As [`Bundle::open`].
pub fn open_controlnet(path: &Path, roles: &BTreeMap<String, String>) -> Result<Component> {
    let mut component = open_alone(path, ComponentKind::ControlNet)?;
    component.take_roles(Some(roles));
    Ok(component)
}

/// Reads a graph for a condition: a directory that contains it, or its .onnx file.
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
        return component(kind, path.to_path_buf(), &[dir.join("config.json")]);
    }
    let path = &hub::snapshot(path)?;
    let entries = list(path)?;
    if let Some((component, _)) = find_component(path, kind, &DirectoryOverrides::default())? {
        return Ok(component);
    }
    match graph_in(path, kind)? {
        Some(graph) => component(kind, graph, &[path.join("config.json")]),
        None => Err(no_model(path, &entries)),
    }
}

/// Returns the folders of graphs whose names are not those of components, except other ControlNets.
fn find_conditioners(dir: &Path, entries: &[String]) -> Vec<String> {
    let is_known = |name: &str| {
        let of_kind = |kind: ComponentKind| kind.directories().iter().any(|known| name.starts_with(known));
        ComponentKind::ALL.into_iter().any(of_kind)
    };
    entries.iter().filter(|name| !is_known(name) && exists(&dir.join(name).join("model.onnx"))).cloned().collect()
}

fn find_tokenizers(dir: &Path) -> BTreeMap<usize, PathBuf> {
    const FILES: [&str; 6] =
        ["tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "tokenizer_config.json"];
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

/// Returns the parts that model_index.json names and the directory lacks.
fn absent_parts(bundle: &Bundle) -> Vec<String> {
    let mut missing = Vec::new();
    for (name, entry) in &bundle.index {
        let is_named = entry.get(1).is_some_and(Value::is_string);
        let kinds: &[ComponentKind] = match name.as_str() {
            "vae" => &[ComponentKind::VaeDecoder],
            "vqvae" => &[ComponentKind::VqDecoder],
            "scheduler" if is_named && bundle.scheduler.is_none() => {
                missing.push("scheduler/scheduler_config.json, listed in model_index.json".to_owned());
                continue;
            }
            "tokenizer" | "tokenizer_2" | "tokenizer_3" => {
                let number = name.strip_prefix("tokenizer_").and_then(|n| n.parse().ok()).unwrap_or(1);
                if is_named && !bundle.tokenizers.contains_key(&number) {
                    missing.push(format!("{name}/, listed in model_index.json"));
                }
                continue;
            }
            other => match ComponentKind::from_name(other) {
                Some(ComponentKind::SafetyChecker) | None => continue,
                Some(kind) => &[kind],
            },
        };
        if is_named && !kinds.iter().any(|&k| bundle.component(k).is_some()) {
            missing.push(format!("{}/model.onnx, listed in model_index.json as {name}", kinds[0]));
        }
    }
    for encoder in bundle.text_encoders() {
        if bundle.tokenizer(encoder.kind).is_none() {
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

/// Returns the error for a directory without a model: the files looked for, the files found, and a hint.
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
    } else if dir.file_name().is_some_and(|name| name == "snapshots") {
        "this is the snapshots folder of a Hugging Face cache entry; use one of them, or the entry itself"
    } else if ends(&[".onnx"]) {
        "set the graphs in the pipeline file: [model.unet] graph = \"…\""
    } else {
        "use the directory of a model exported to ONNX"
    };
    Error::model(
        dir,
        format!(
            "contains no model: expected unet/model.onnx, transformer/model.onnx, unet.onnx or similar, found {there}"
        ),
        help,
    )
}
