//! Model families: one file and one row each.
//!
//! A row holds all that depends on the family: its evidence, the pipeline classes of diffusers with their defaults, the
//! numbers of its VAE, the reading of its text encoders, the size it was trained at, and its preview map. A family is
//! added by its file and its row in `ROWS`; code outside asks the row and names no family.

mod class;
mod flux;
mod flux_kontext;
mod latent_consistency;
mod latent_diffusion;
mod pixart_alpha;
mod pixart_sigma;
mod pixel_diffusion;
mod row;
mod sana;
mod stable_diffusion;
mod stable_diffusion_3;
mod stable_diffusion_depth;
mod stable_diffusion_upscaler;
mod stable_diffusion_xl;

use std::fmt;

pub use class::{ConfigValue, Correction, DefaultSize, Defaults, PipelineClass, Wrong};
pub(crate) use row::{FamilyRow, Form, Signature, TextForm, TextReading, TokenizerKind, Training};

/// All rows, in the order in which they are listed.
static ROWS: [&FamilyRow; 13] = [
    &stable_diffusion::ROW,
    &stable_diffusion_depth::ROW,
    &stable_diffusion_upscaler::ROW,
    &latent_consistency::ROW,
    &stable_diffusion_xl::ROW,
    &stable_diffusion_3::ROW,
    &flux::ROW,
    &flux_kontext::ROW,
    &pixart_alpha::ROW,
    &pixart_sigma::ROW,
    &sana::ROW,
    &latent_diffusion::ROW,
    &pixel_diffusion::ROW,
];

/// A family of models: those that share the form of the denoiser, the text encoders and the VAE.
#[derive(Clone, Copy)]
pub struct Family(&'static FamilyRow);

impl Family {
    /// All families.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| Self(row))
    }

    /// The names of all families.
    pub fn names() -> [&'static str; ROWS.len()] {
        ROWS.map(|row| row.name)
    }

    /// Finds a family by its name in pipeline.toml.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|family| family.name() == name)
    }

    /// The family of the models under a class name in model_index.json: that of a class of diffusers, also with the prefix
    /// of an exporter, or of this project's own exports.
    pub fn of_class(name: &str) -> Option<Self> {
        let is_own = |family: &Self| family.0.other_names.contains(&name);
        Self::all().find(is_own).or_else(|| find(name).map(|(family, _)| family))
    }

    /// Its name in pipeline.toml, such as `stable-diffusion`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Its published name, such as `Stable Diffusion XL`.
    pub fn title(self) -> &'static str {
        self.0.title
    }

    /// The pipeline classes of diffusers that run its models.
    pub fn classes(self) -> &'static [PipelineClass] {
        self.0.classes
    }

    /// The tasks of its pipeline classes, by their names in pipeline.toml, each once.
    pub fn tasks(self) -> Vec<&'static str> {
        let mut tasks = Vec::new();
        for class in self.0.classes {
            if !tasks.contains(&class.task) {
                tasks.push(class.task);
            }
        }
        tasks
    }

    pub(crate) fn row(self) -> &'static FamilyRow {
        self.0
    }

    /// The family and its near relative that a class name alone does not tell apart.
    pub(crate) fn refined(self, signature: &Signature) -> Self {
        let is_other = |other: &Self| {
            other.0.named_as.is_some_and(|named| named.name == self.name()) && (other.0.is_told_apart)(signature)
        };
        Self::all().find(is_other).unwrap_or(self)
    }

    /// The family of a model without a class.
    pub(crate) fn recognised(signature: &Signature) -> Option<Self> {
        Self::all().find(|family| (family.0.is_recognised)(signature))
    }

    /// The scaling factor that the constructor of its pipeline class puts into the VAE's configuration, with the class.
    pub(crate) fn vae_scaling_factor(self) -> Option<(&'static str, f64)> {
        self.0.classes.iter().find_map(|class| Some((class.name, class.vae_scaling_factor?)))
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Family {}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The prefixes that exporters put before diffusers' class names.
const PREFIXES: [&str; 3] = ["Onnx", "ORT", "OV"];

/// True for the name of a class that an exporter put in place of diffusers' own, such as `ORTUnet`.
pub(crate) fn has_exporter_prefix(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The row of a class with its family, by the name that model_index.json gives it: diffusers' own, the same with the prefix
/// of an exporter (`Onnx`, `ORT`, `OV`), or the early `StableDiffusionOnnxPipeline`.
pub fn find(name: &str) -> Option<(Family, &'static PipelineClass)> {
    let name = if name == "StableDiffusionOnnxPipeline" { "OnnxStableDiffusionPipeline" } else { name };
    let exact = |name: &str| {
        Family::all().find_map(|family| Some((family, family.0.classes.iter().find(|class| class.name == name)?)))
    };
    exact(name).or_else(|| PREFIXES.iter().find_map(|prefix| exact(name.strip_prefix(prefix)?)))
}

/// The class with which diffusers runs `task` on a model, with ControlNets if `has_control`, as its `AutoPipelineFor…` and
/// `from_pipe` find it: `StableDiffusionPipeline` becomes `StableDiffusionInpaintPipeline` for inpainting, and with a
/// ControlNet `StableDiffusionControlNetInpaintPipeline`.
///
/// `named` is the class in model_index.json, if any; it decides between classes of the same family and task, and keeps
/// models of the first ONNX pipelines with those. `None` if diffusers has no class for the task on this family.
pub fn for_task(family: Family, named: Option<&str>, task: &str, has_control: bool) -> Option<&'static PipelineClass> {
    let named = named.and_then(find);
    let fits = |class: &PipelineClass| class.task == task && class.has_control == has_control;
    if let Some((_, class)) = named.filter(|(of, class)| *of == family && fits(class)) {
        return Some(class);
    }
    let is_onnx = named.is_some_and(|(_, class)| class.is_onnx);
    let kin = family.0.kin.iter().filter_map(|name| Family::from_name(name));
    std::iter::once(family).chain(kin).find_map(|family| {
        let of_row = |onnx: bool| family.0.classes.iter().find(|class| fits(class) && class.is_onnx == onnx);
        is_onnx.then(|| of_row(true)).flatten().or_else(|| of_row(false))
    })
}

#[cfg(test)]
mod tests;
