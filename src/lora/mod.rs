//! LoRA: low-rank changes of a model's weights, merged when a graph is opened.
//!
//! A file contains two matrices per changed module: the module's weight W becomes `W + scale · alpha / rank · up ·
//! down` (Hu et al. 2021, equation 3), computed in float32 and rounded once to the graph's type. The file uses the
//! names of the PyTorch model; a graph's stored weights are found by the module that reads them
//! ([`bundle::ModuleWeights`](crate::bundle::ModuleWeights)), transposed if the exporter transposed them.
//!
//! As in diffusers, modules that the graphs lack are skipped with a warning, if the graphs have others. Changes that
//! would give a wrong image are errors: a file that has nothing for a graph it targets, a matrix of another shape,
//! another kind of change on a module that the graph has, a graph that has fused several modules' weights into one.

mod alpha;
mod blocks;
mod file;
mod module_lists;
mod modules;
mod names;
mod unused;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rayon::prelude::*;
use sha2::Sha256;

use crate::bundle::{ComponentKind, GraphFile, ModuleWeight, ModuleWeights};
use crate::error::{Error, Result};
use crate::files;
use crate::tensor::Weight;
use crate::threads::parallel;
use file::{LoraFile, Module};
use module_lists::{modules_of, summarize};
use modules::Modules;
use names::{ForeignTensor, LoraTarget, flatten_name};
use unused::UnusedParts;

/// A LoRA file and its scales.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// The .safetensors file.
    pub path: PathBuf,
    /// The scale of its change of the denoiser.
    pub denoiser_scale: f64,
    /// The scale of its change of every text encoder.
    pub text_encoder_scale: f64,
}

impl Lora {
    /// Checks that the file fits these graphs, and returns warnings about modules that they lack.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Model`] with the problem of the file, or the modules that do
    /// not fit; [`Error::Several`] if several graphs have problems.
    pub fn check(&self, graphs: &[(ComponentKind, &GraphFile)]) -> Result<Vec<String>> {
        let file = LoraFile::open(&self.path)?;
        let (mut wrong, mut unused) = (Vec::new(), UnusedParts::new(&file));
        let mut fits = false;
        for part in parts(&file) {
            let Some((_, graph)) = graphs.iter().find(|(kind, _)| part_of(*kind) == Some(part)) else {
                unused.parts.extend(Some(part).filter(|part| !modules_of(&file, *part).is_empty()));
                continue;
            };
            let weights = ModuleWeights::open(graph)?;
            match fit(&file, part, graph, &Modules::new(&weights.modules)) {
                Ok(fit) => {
                    fits |= !fit.found.is_empty();
                    unused.take(part, graph, fit.missing);
                }
                Err(error) => wrong.push(error),
            }
        }
        if !fits && wrong.is_empty() {
            wrong.extend(unused.parts.iter().map(|part| no_such_part(&file, *part)));
        }
        match wrong.len() {
            0 => Ok(unused.warnings(&self.path)),
            1 => Err(wrong.remove(0)),
            _ => Err(Error::Several(wrong)),
        }
    }

    /// Returns the file's sha256 in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub fn digest(&self) -> Result<String> {
        let mut hash = Sha256::default();
        files::digest_into(&self.path, &mut hash)?;
        Ok(files::hexadecimal(hash))
    }

    fn scale(&self, part: LoraTarget) -> f64 {
        match part {
            LoraTarget::Denoiser => self.denoiser_scale,
            LoraTarget::TextEncoder(_) => self.text_encoder_scale,
        }
    }
}

/// Returns a graph's weights that LoRAs change, with all changes added. A LoRA of scale 0 changes none.
///
/// # Errors
/// As [`Lora::check`], for this graph alone; [`Error::Model`] also if a changed weight is not floating-point.
pub fn merge(loras: &[Lora], kind: ComponentKind, graph: &GraphFile) -> Result<Vec<Weight>> {
    let Some(part) = part_of(kind) else { return Ok(Vec::new()) };
    let used: Vec<&Lora> = loras.iter().filter(|lora| lora.scale(part) != 0.0).collect();
    if used.is_empty() {
        return Ok(Vec::new());
    }
    let files = used.iter().map(|lora| LoraFile::open(&lora.path)).collect::<Result<Vec<_>>>()?;
    let weights = ModuleWeights::open(graph)?;
    let modules = Modules::new(&weights.modules);
    let mut changes: BTreeMap<&str, (&ModuleWeight, Vec<Change<'_>>)> = BTreeMap::new();
    for (lora, file) in used.into_iter().zip(&files) {
        for (module, weight) in fit(file, part, graph, &modules)?.found {
            let scale = lora.scale(part) as f32;
            changes.entry(&weight.name).or_insert((weight, Vec::new())).1.push(Change { file, module, scale });
        }
    }
    let changed = changes.into_values().collect::<Vec<_>>();
    parallel(|| {
        changed.into_par_iter().map(|(weight, changes)| changed_by(&weights, graph, weight, &changes)).collect()
    })
}

/// One LoRA's change of one weight.
struct Change<'f> {
    file: &'f LoraFile,
    module: &'f Module,
    scale: f32,
}

fn changed_by(
    weights: &ModuleWeights<'_>,
    graph: &GraphFile,
    weight: &ModuleWeight,
    changes: &[Change<'_>],
) -> Result<Weight> {
    let mut values = weights.read(weight)?;
    for change in changes {
        let delta = change.file.delta(change.module)?;
        // In the order in which the weight is stored.
        let delta = if weight.transposed { delta.reversed_axes() } else { delta };
        values.iter_mut().zip(&delta).for_each(|(value, delta)| *value += change.scale * delta);
    }
    weight.replacement(values).ok_or_else(|| {
        let problem = format!("weight {} is stored as {}, which LoRA cannot change", weight.name, weight.dtype);
        Error::model(&graph.path, problem, "use an export in float32 or float16")
    })
}

/// Returns the part of a model that LoRAs know a component as, if any.
fn part_of(kind: ComponentKind) -> Option<LoraTarget> {
    match kind {
        ComponentKind::Unet | ComponentKind::Transformer => Some(LoraTarget::Denoiser),
        ComponentKind::TextEncoder => Some(LoraTarget::TextEncoder(1)),
        ComponentKind::TextEncoder2 => Some(LoraTarget::TextEncoder(2)),
        ComponentKind::TextEncoder3 => Some(LoraTarget::TextEncoder(3)),
        _ => None,
    }
}

fn parts(file: &LoraFile) -> BTreeSet<LoraTarget> {
    let foreign = file.foreign.iter().filter_map(|(_, foreign)| Some(foreign.module.as_ref()?.0));
    file.modules.keys().map(|(part, _)| *part).chain(foreign).collect()
}

/// The modules of a file that one graph has, with their weights, and the names of those that it lacks.
struct FittedModules<'f, 'w> {
    found: Vec<(&'f Module, &'w ModuleWeight)>,
    missing: Vec<&'f str>,
}

/// Finds the weight of every module that a file changes in a part of the model.
///
/// # Errors
/// [`Error::Model`] if the graph has none of them, has one in another shape, has one with a change other than plain
/// LoRA, or was fused so that its modules are unknown.
fn fit<'f, 'w>(
    file: &'f LoraFile,
    part: LoraTarget,
    graph: &GraphFile,
    modules: &Modules<'w>,
) -> Result<FittedModules<'f, 'w>> {
    let (mut found, mut missing, mut misfits) = (Vec::new(), Vec::new(), Vec::new());
    let changed = || file.modules.iter().filter(|((of, _), _)| *of == part);
    for ((_, name), module) in changed() {
        let Some(weight) = modules.find(name) else {
            match modules.has(name) {
                true => misfits.push(format!("{} (found several times)", module.written)),
                false => missing.push(module.written.as_str()),
            }
            continue;
        };
        let (wanted, given) = (shape_of(weight), trim_kernel(module.shape()));
        if wanted == given {
            found.push((module, weight));
        } else {
            misfits.push(format!("{} (expected a weight {wanted:?}, found {given:?})", module.written));
        }
        if let Some((one, other)) = modules.sharing(weight) {
            let problem =
                format!("changes {}, whose weight {} is shared by {one} and {other}", module.written, weight.name);
            let help = format!(
                "{} stores equal weights only once; export the model again without deduplication",
                graph.path.display()
            );
            return Err(Error::model(file.path(), problem, help));
        }
    }
    let is_here = |foreign: &ForeignTensor| matches!(&foreign.module, Some((of, name)) if *of == part && modules.has(&flatten_name(name)));
    let foreign: Vec<_> = file.foreign.iter().filter(|(_, foreign)| is_here(foreign)).collect();
    if !foreign.is_empty() {
        return Err(file.refuse(&foreign));
    }
    let is_fused = || !ModuleWeights::fused(graph).is_empty();
    if misfits.is_empty() && (missing.is_empty() || (!found.is_empty() && !is_fused())) {
        return Ok(FittedModules { found, missing });
    }
    let (of, path) = (changed().count(), graph.path.display());
    let mut problems = Vec::new();
    if !missing.is_empty() {
        problems.push(format!("{} of {of} modules are not in {path}: {}", missing.len(), summarize(&missing)));
    }
    if !misfits.is_empty() {
        problems.push(format!(
            "{} of {of} modules have other shapes in {path}: {}",
            misfits.len(),
            summarize(&misfits)
        ));
    }
    Err(Error::model(file.path(), problems.join("; "), mismatch_hint(file, graph, modules, misfits.is_empty())))
}

/// Returns a hint for modules that are missing or have other shapes.
fn mismatch_hint(file: &LoraFile, graph: &GraphFile, modules: &Modules<'_>, shapes_fit: bool) -> String {
    let fused = ModuleWeights::fused(graph);
    if shapes_fit && !fused.is_empty() {
        let fused: Vec<_> = fused.iter().map(|(name, count)| format!("{name} ×{count}")).collect();
        return format!(
            "this graph was fused or quantized after its export ({}), which packs or rounds the weights of \
             modules; use the graph as it was exported",
            fused.join(", ")
        );
    }
    if modules.is_empty() {
        return "the modules of this graph's weights are unknown; export the model again".to_owned();
    }
    another_family(file)
}

fn another_family(file: &LoraFile) -> String {
    let base_model = file.base_model.as_ref().map(|model| format!(" (its header says {model})")).unwrap_or_default();
    format!("the LoRA is for another model family{base_model}; use one for this family")
}

fn no_such_part(file: &LoraFile, part: LoraTarget) -> Error {
    let modules = modules_of(file, part);
    let problem = format!("changes {part} ({}), which this pipeline does not load", summarize(&modules));
    Error::model(file.path(), problem, another_family(file))
}

/// Returns a weight's shape in PyTorch's layout.
fn shape_of(weight: &ModuleWeight) -> Vec<usize> {
    let mut shape = weight.shape.clone();
    if weight.transposed {
        shape.reverse();
    }
    trim_kernel(shape)
}

/// Removes the kernel of a 1×1 convolution: it is equivalent to a linear layer, and files have both forms for either.
fn trim_kernel(mut shape: Vec<usize>) -> Vec<usize> {
    while shape.len() > 2 && shape.last() == Some(&1) {
        shape.pop();
    }
    shape
}
