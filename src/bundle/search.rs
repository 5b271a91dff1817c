//! Searches a model directory for a component's graph.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::component::{Component, ComponentKind};
use super::directory_overrides::DirectoryOverrides;
use super::json;
use super::onnx::{GraphFile, INCOMPLETE};
use crate::error::{Error, Result};
use crate::files::broken_link;

/// The place in which a component's graph was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GraphPlace {
    Directory,
    Flat,
    Named,
}

/// The folders in which exporters put all components, the model directory itself first: transformers.js uses `onnx/`,
/// ONNX Runtime's CUDA demo `engine/`.
const ROOTS: [&str; 3] = ["", "onnx", "engine"];

/// The suffixes of Optimum for JavaScript for a graph's precision.
const PRECISIONS: [&str; 8] = ["_fp16", "_q4", "_q4f16", "_int8", "_uint8", "_quantized", "_bnb4", "_fp32"];

pub(super) fn find_component(
    dir: &Path,
    kind: ComponentKind,
    overrides: &DirectoryOverrides,
) -> Result<Option<(Component, GraphPlace)>> {
    let mut configs = Vec::new();
    let found = if let Some(path) = overrides.graphs.get(&kind) {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        configs.push(parent.join("config.json"));
        Some((path.clone(), GraphPlace::Named))
    } else {
        find_graph(dir, kind)?
    };
    let Some((graph, place)) = found else { return Ok(None) };
    // A graph's folder may be a subfolder of its component's, which then has the configuration.
    let folders = graph.ancestors().skip(1).take_while(|folder| folder.starts_with(dir) && *folder != dir);
    configs.extend(folders.map(|folder| folder.join("config.json")));
    configs.extend(kind.directories().iter().map(|name| dir.join(name).join("config.json")));
    configs.extend(kind.config_directories().iter().map(|name| dir.join(name).join("config.json")));
    let roles = overrides.roles.get(&kind).cloned().unwrap_or_default();
    Ok(Some((Component { roles, ..component(kind, graph, &configs)? }, place)))
}

/// Finds the graph of a component without an explicit path.
fn find_graph(dir: &Path, kind: ComponentKind) -> Result<Option<(PathBuf, GraphPlace)>> {
    for root in ROOTS.map(|name| dir.join(name)).into_iter().filter(|root| root.is_dir()) {
        for name in kind.directories() {
            for place in [root.join(name), root.join(name).join("onnx")] {
                if place.is_dir()
                    && let Some(graph) = graph_in(&place, kind)?
                {
                    return Ok(Some((graph, GraphPlace::Directory)));
                }
            }
        }
        let entries = list(&root)?;
        let mut dotted = Vec::new();
        for name in kind.directories() {
            // The demos of TensorRT and of ONNX Runtime append the kind of processing after a dot: `unet.opt`.
            for entry in entries.iter().filter(|e| e.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))) {
                let place = root.join(entry);
                if place.is_dir()
                    && let Some(graph) = graph_in(&place, kind)?
                {
                    dotted.push(graph);
                }
            }
        }
        if let Some(graph) = only(&root, kind, dotted)? {
            return Ok(Some((graph, GraphPlace::Directory)));
        }
        let plain = root.join(format!("{kind}.onnx"));
        let precise = PRECISIONS.iter().map(|precision| root.join(format!("{kind}{precision}.onnx")));
        let flat = if exists(&plain) { vec![plain] } else { precise.filter(|path| exists(path)).collect() };
        if let Some(graph) = only(&root, kind, flat)? {
            return Ok(Some((graph, GraphPlace::Flat)));
        }
    }
    Ok(None)
}

/// Returns the only graph, if there is one.
fn only(folder: &Path, kind: ComponentKind, mut graphs: Vec<PathBuf>) -> Result<Option<PathBuf>> {
    if graphs.len() < 2 {
        return Ok(graphs.pop());
    }
    let names: Vec<String> =
        graphs.iter().map(|path| path.strip_prefix(folder).unwrap_or(path).display().to_string()).collect();
    Err(Error::model(
        folder,
        format!("contains {} graphs for {kind}: {}", names.len(), names.join(", ")),
        format!("choose one: [model.{kind}] graph = \"…/{}\"", names[0]),
    ))
}

/// Reads a component's graph, and its config.json from the first of these places that has one.
pub(super) fn component(kind: ComponentKind, graph: PathBuf, configs: &[PathBuf]) -> Result<Component> {
    let graph = GraphFile::open(&graph)?;
    for path in configs {
        if let Some(config) = read_if_there(path)? {
            return Ok(Component { kind, graph, config, config_path: Some(path.clone()), roles: BTreeMap::new() });
        }
    }
    Ok(Component { kind, graph, config: Map::new(), config_path: None, roles: BTreeMap::new() })
}

/// Returns the graph in a component's directory: `model.onnx`, or else the only .onnx file.
pub(super) fn graph_in(dir: &Path, kind: ComponentKind) -> Result<Option<PathBuf>> {
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
            format!("contains {} graphs and none is named model.onnx: {}", several.len(), several.join(", ")),
            format!("choose one: [model.{kind}] graph = \"…/{}\"", several[0]),
        )),
    }
}

/// Returns the names in a directory, sorted.
pub(super) fn list(dir: &Path) -> Result<Vec<String>> {
    let metadata = std::fs::metadata(dir).map_err(|e| match (broken_link(dir), e.kind()) {
        (Some(reason), _) => Error::model(dir, reason, INCOMPLETE),
        (None, std::io::ErrorKind::NotFound) => {
            Error::model(dir, "no such directory", "check the path; path in [model] is relative to the pipeline file")
        }
        _ => Error::io(dir, "reading", e),
    })?;
    if !metadata.is_dir() {
        let name = dir.to_string_lossy().to_lowercase();
        let checkpoint = [".safetensors", ".ckpt", ".pt", ".bin"].iter().any(|e| name.ends_with(e));
        let help = if checkpoint {
            "this is a PyTorch checkpoint; export it with scripts/export.py"
        } else {
            "use the directory that contains unet/, scheduler/ and so on"
        };
        return Err(Error::model(dir, "is a file; expected a model directory", help));
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, "listing", e))? {
        let entry = entry.map_err(|e| Error::io(dir, "listing", e))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub(super) fn read_if_there(path: &Path) -> Result<Option<Map<String, Value>>> {
    if exists(path) { json::read_object(path).map(Some) } else { Ok(None) }
}

/// Returns true if there is a file or a link of this name; a broken link is an error, not an absence.
pub(super) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| !m.is_dir())
}
