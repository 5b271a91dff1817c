//! LoRA: low-rank changes of a model's weights, merged into them when a graph is opened.
//!
//! A file holds, for each module that it changes, two matrices: the module's weight W becomes
//! `W + scale · alpha / rank · up · down` (Hu et al. 2021, equation 3), in float32 and rounded once to the type that the
//! graph stores. The file's names are those of the PyTorch model; a graph's stored weights are found by the module that
//! reads them ([`bundle::Weights`](crate::bundle::Weights)), transposed where the exporter transposed them.
//!
//! As in diffusers, modules that the graphs don't have are left out with a warning, if there are others that they have.
//! Changes that would draw another image are refused: a file of which nothing fits a graph that it is for, a matrix of another
//! shape, another kind of change on a module that the graph has, a graph that has fused several modules' weights into
//! one.

mod alpha;
mod blocks;
mod file;
mod listing;
mod modules;
mod names;
mod unused;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rayon::prelude::*;
use sha2::Sha256;

use crate::bundle::{ComponentKind, GraphFile, ModuleWeight, Weights};
use crate::error::{Error, Result};
use crate::files;
use crate::tensor::Weight;
use crate::threads::parallel;
use file::{LoraFile, Module};
use listing::{few, modules_of};
use modules::Modules;
use names::{Foreign, Part, flat};
use unused::Unused;

/// A LoRA file and how much of it is added.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// The .safetensors file.
    pub path: PathBuf,
    /// What its change of the denoiser is multiplied by.
    pub denoiser_scale: f64,
    /// What its change of every text encoder is multiplied by.
    pub text_encoder_scale: f64,
}

impl Lora {
    /// Requires that the file fits these graphs, and returns warnings of what they have no place for.
    ///
    /// # Errors
    /// [`Error::Io`] where a file cannot be read; [`Error::Model`] naming what is wrong with the file, or the modules
    /// that do not fit; [`Error::Several`] where that is so of more than one graph.
    pub fn check(&self, graphs: &[(ComponentKind, &GraphFile)]) -> Result<Vec<String>> {
        let file = LoraFile::open(&self.path)?;
        let (mut wrong, mut unused) = (Vec::new(), Unused::new(&file));
        let mut fits = false;
        for part in parts(&file) {
            let Some((_, graph)) = graphs.iter().find(|(kind, _)| part_of(*kind) == Some(part)) else {
                unused.parts.extend(Some(part).filter(|part| !modules_of(&file, *part).is_empty()));
                continue;
            };
            let weights = Weights::open(graph)?;
            match fit(&file, part, graph, &Modules::new(&weights.of_modules)) {
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

    /// The sha256 of the file, in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read.
    pub fn digest(&self) -> Result<String> {
        let mut hash = Sha256::default();
        files::digest_into(&self.path, &mut hash)?;
        Ok(files::hexadecimal(hash))
    }

    fn scale(&self, part: Part) -> f64 {
        match part {
            Part::Denoiser => self.denoiser_scale,
            Part::TextEncoder(_) => self.text_encoder_scale,
        }
    }
}

/// The weights of a graph that LoRAs change, with all changes added. A LoRA of scale 0 changes none.
///
/// # Errors
/// As [`Lora::check`], for this graph alone; [`Error::Model`] too where a weight that is changed is not stored in
/// floating point.
pub fn merge(loras: &[Lora], kind: ComponentKind, graph: &GraphFile) -> Result<Vec<Weight>> {
    let Some(part) = part_of(kind) else { return Ok(Vec::new()) };
    let used: Vec<&Lora> = loras.iter().filter(|lora| lora.scale(part) != 0.0).collect();
    if used.is_empty() {
        return Ok(Vec::new());
    }
    let files = used.iter().map(|lora| LoraFile::open(&lora.path)).collect::<Result<Vec<_>>>()?;
    let weights = Weights::open(graph)?;
    let modules = Modules::new(&weights.of_modules);
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

/// What one LoRA adds to one weight.
struct Change<'f> {
    file: &'f LoraFile,
    module: &'f Module,
    scale: f32,
}

fn changed_by(
    weights: &Weights<'_>,
    graph: &GraphFile,
    weight: &ModuleWeight,
    changes: &[Change<'_>],
) -> Result<Weight> {
    let mut values = weights.read(weight)?;
    for change in changes {
        let delta = change.file.delta(change.module)?;
        // Walked over in the order in which the weight is stored.
        let delta = if weight.transposed { delta.reversed_axes() } else { delta };
        values.iter_mut().zip(&delta).for_each(|(value, delta)| *value += change.scale * delta);
    }
    weight.replaced_by(values).ok_or_else(|| {
        let problem = format!("weight {} is stored as {}, and cannot be changed", weight.name, weight.dtype);
        Error::model(&graph.path, problem, "use an export in float32 or float16")
    })
}

/// The part of a model that a component is, where LoRAs change it.
fn part_of(kind: ComponentKind) -> Option<Part> {
    match kind {
        ComponentKind::Unet | ComponentKind::Transformer => Some(Part::Denoiser),
        ComponentKind::TextEncoder => Some(Part::TextEncoder(1)),
        ComponentKind::TextEncoder2 => Some(Part::TextEncoder(2)),
        ComponentKind::TextEncoder3 => Some(Part::TextEncoder(3)),
        _ => None,
    }
}

fn parts(file: &LoraFile) -> BTreeSet<Part> {
    let foreign = file.foreign.iter().filter_map(|(_, foreign)| Some(foreign.module.as_ref()?.0));
    file.modules.keys().map(|(part, _)| *part).chain(foreign).collect()
}

/// The modules of a file that one graph has, with their weights, and the names of those that it does not have.
struct Fit<'f, 'w> {
    found: Vec<(&'f Module, &'w ModuleWeight)>,
    missing: Vec<&'f str>,
}

/// Finds the weight of every module that a file changes in a part of the model.
///
/// # Errors
/// [`Error::Model`] if the graph has none of them, has one in another shape, has one that the file changes in another
/// way than plain LoRA does, or was fused so that it is not known which it has.
fn fit<'f, 'w>(file: &'f LoraFile, part: Part, graph: &GraphFile, modules: &Modules<'w>) -> Result<Fit<'f, 'w>> {
    let (mut found, mut missing, mut misfits) = (Vec::new(), Vec::new(), Vec::new());
    let changed = || file.modules.iter().filter(|((of, _), _)| *of == part);
    for ((_, name), module) in changed() {
        let Some(weight) = modules.find(name) else {
            match modules.has(name) {
                true => misfits.push(format!("{} (of which it has several)", module.written)),
                false => missing.push(module.written.as_str()),
            }
            continue;
        };
        let (wanted, given) = (shape_of(weight), trimmed(module.shape()));
        if wanted == given {
            found.push((module, weight));
        } else {
            misfits.push(format!("{} (for a weight of {given:?}, the graph's is {wanted:?})", module.written));
        }
        if let Some((one, other)) = modules.sharing(weight) {
            let problem = format!("changes {}, whose weight {} serves {one} and {other}", module.written, weight.name);
            let help =
                format!("{} stores equal weights once; export the model again without that", graph.path.display());
            return Err(Error::model(file.path(), problem, help));
        }
    }
    let is_here =
        |foreign: &Foreign| matches!(&foreign.module, Some((of, name)) if *of == part && modules.has(&flat(name)));
    let foreign: Vec<_> = file.foreign.iter().filter(|(_, foreign)| is_here(foreign)).collect();
    if !foreign.is_empty() {
        return Err(file.refuse(&foreign));
    }
    let is_fused = || !Weights::fused(graph).is_empty();
    if misfits.is_empty() && (missing.is_empty() || (!found.is_empty() && !is_fused())) {
        return Ok(Fit { found, missing });
    }
    let (of, path) = (changed().count(), graph.path.display());
    let mut problems = Vec::new();
    if !missing.is_empty() {
        problems.push(format!("{} of {of} modules are not in {path}: {}", missing.len(), few(&missing)));
    }
    if !misfits.is_empty() {
        problems.push(format!("{} of {of} modules have other shapes in {path}: {}", misfits.len(), few(&misfits)));
    }
    Err(Error::model(file.path(), problems.join("; "), why(file, graph, modules, misfits.is_empty())))
}

/// What may be the matter where modules are missing or of other shapes.
fn why(file: &LoraFile, graph: &GraphFile, modules: &Modules<'_>, shapes_fit: bool) -> String {
    let fused = Weights::fused(graph);
    if shapes_fit && !fused.is_empty() {
        let fused: Vec<_> = fused.iter().map(|(name, count)| format!("{name} ×{count}")).collect();
        return format!(
            "this graph was fused or quantised after it was exported ({}), which packs or rounds the weights of \
             modules; use the graph as it was exported",
            fused.join(", ")
        );
    }
    if modules.is_empty() {
        return "this graph does not tell which module a weight belongs to; export the model again".to_owned();
    }
    another_family(file)
}

fn another_family(file: &LoraFile) -> String {
    let made_for = file.made_for.as_ref().map(|model| format!(" (its header says {model})")).unwrap_or_default();
    format!("the LoRA was made for another family of models{made_for}; use one that was made for this")
}

fn no_such_part(file: &LoraFile, part: Part) -> Error {
    let modules = modules_of(file, part);
    let problem = format!("changes {part} ({}), and this pipeline opens none", few(&modules));
    Error::model(file.path(), problem, another_family(file))
}

/// A weight's shape as PyTorch has it.
fn shape_of(weight: &ModuleWeight) -> Vec<usize> {
    let mut shape = weight.shape.clone();
    if weight.transposed {
        shape.reverse();
    }
    trimmed(shape)
}

/// A convolution of one pixel multiplies as a linear layer does, and files have both for either.
fn trimmed(mut shape: Vec<usize>) -> Vec<usize> {
    while shape.len() > 2 && shape.last() == Some(&1) {
        shape.pop();
    }
    shape
}
