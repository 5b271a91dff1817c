//! A model directory: layouts, components, the roles of each graph's inputs and outputs.
//!
//! [`Bundle::open`] reads everything a directory says without loading a weight or needing a runtime: which graphs are
//! there, what they take and give, how they were exported, the scheduler's configuration, the tokenizers, and the
//! [`Facts`] that the engine needs, each with where it was read. The contracts ([`DenoiserContract`] and its kin) say
//! which input of a graph plays which role, found by name, then by shape, then by element type, never assumed.

mod autoencoder;
mod call_defaults;
mod component;
mod configuration;
mod facts;
mod family;
mod hub;
mod init;
mod json;
mod layout;
mod onnx;
mod operators;
mod render;
mod report;
mod roles;
mod search;
mod tasks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use autoencoder::{Autoencoder, LatentStatistics};
pub use call_defaults::CallDefaults;
pub use component::{Component, ComponentKind};
pub use facts::{Fact, Facts};
pub use family::{FamilyFact, Refusal};
pub use init::init_toml;
pub use json::read_object;
pub use layout::{DirectoryOverrides, Layout, SchedulerFile, open_conditioner, open_controlnet};
pub use onnx::{ExternalFile, GraphFile, LayerNorm, ModuleWeight, Operator, TokenTable, Upsamplings, Weights};
pub(crate) use onnx::{Reference, frame, map, placed_in, proto};
pub use operators::{Obstacle, obstacles, operators_without_cpu_kernel};
pub use report::{ComponentReport, FactReport, ProviderReport, Report, SchedulerReport, TensorReport, inspect};
pub use roles::{
    ConditionerContract, ControlNetContract, DenoiserContract, Positions, Residuals, Switch, TextEncoderContract,
    VaeDecoderContract, VaeEncoderContract, VaeEncoderKind, role_words,
};
pub use tasks::{TaskFit, task_fits};

use crate::error::{Error, Result};
use crate::family::{Family, PipelineClass, find, for_task};
use crate::rng::Stream;
use crate::tensor::DType;

/// A model directory, read and checked.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The directory, as it was named; of an entry of the Hugging Face cache, its snapshot.
    pub dir: PathBuf,
    /// How its files are laid out.
    pub layout: Layout,
    /// model_index.json; empty where there is none.
    pub index: Map<String, Value>,
    /// The components that have a graph.
    pub components: BTreeMap<ComponentKind, Component>,
    /// Another denoiser, which takes the residuals of control networks, where the directory has one beside the plain
    /// one.
    pub controlled_denoiser: Option<Component>,
    /// The scheduler's configuration, with the `prediction_type` of the [`DirectoryOverrides`] put in where they have one.
    pub scheduler: Option<SchedulerFile>,
    /// The scheduler that adds noise to the small image, where the model is an upscaler.
    pub low_res_scheduler: Option<SchedulerFile>,
    /// The tokenizers' directories, by their number counted from 1.
    pub tokenizers: BTreeMap<usize, PathBuf>,
    /// The other folders that hold a graph: those that `[[condition]]` tables name.
    pub conditioners: Vec<String>,
    /// What the engine needs to know, each with where it was read.
    pub facts: Facts,
    /// What the directory's own index names but the directory lacks, one sentence each.
    pub missing: Vec<String>,
}

impl Bundle {
    /// The `noise` that diffusers draws with this model loaded in the half precision that most of its denoiser's weights
    /// are stored in; `None` if they are stored in another.
    pub fn half_precision_noise(&self) -> Option<Fact<Stream>> {
        let denoiser = self.denoiser().ok()?;
        let (dtype, _) = denoiser.graph.weight_types.first()?;
        let stream = match dtype {
            DType::F16 => Stream::TorchCpuFloat16,
            DType::Bf16 => Stream::TorchCpuBfloat16,
            _ => return None,
        };
        let source = format!("diffusers' with torch_dtype=torch.{dtype}, as {}'s weights are", denoiser.kind);
        Some(Fact { value: stream, source })
    }

    /// Reads a model directory. An entry of the Hugging Face cache (`models--ORG--NAME`) stands for the snapshot that its
    /// `refs/main` names.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] where the directory holds no model, or where any of its graphs or configurations is damaged,
    /// incomplete or ambiguous; [`Error::Io`] where a file cannot be read.
    pub fn open(dir: &Path, overrides: &DirectoryOverrides) -> Result<Self> {
        let (bundle, faults) = layout::survey(dir, overrides)?;
        match faults.into_iter().next() {
            None => Ok(bundle),
            Some(fault) => Err(fault),
        }
    }

    /// The pipeline class that model_index.json names, such as `StableDiffusionPipeline`.
    pub fn class(&self) -> Option<&str> {
        family::class_of(&self.index)
    }

    /// The model's family.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] where the model is of no family that this version runs, or its evidence contradicts itself, naming
    /// what was found; where the denoiser would have to tell the family and cannot be read, what is wrong with that.
    pub fn family(&self) -> Result<Family> {
        match &self.facts.family {
            Ok(family) => Ok(family.value),
            Err(Some(refusal)) => Err(refusal.to_error()),
            Err(None) => {
                self.denoiser().and_then(DenoiserContract::resolve)?;
                Err(self.lacks(&[ComponentKind::Unet, ComponentKind::Transformer], "telling the model's family"))
            }
        }
    }

    /// The family that a name gives the model, that of its pipeline class or of `[model] family`; `None` if it is known by
    /// what the denoiser takes, which does not tell Flux from Flux Kontext.
    pub fn named_family(&self) -> Option<Family> {
        self.facts.family.as_ref().ok().filter(|family| family.is_named).map(|family| family.value)
    }

    /// The class with which diffusers runs this task on the model, with ControlNets if `has_control`; `None` if it has none.
    pub fn pipeline_class(&self, task: &str, has_control: bool) -> Option<&'static PipelineClass> {
        for_task(self.known_family()?, self.class(), task, has_control)
    }

    /// The family; `None` if the model is of none that this version runs.
    pub(crate) fn known_family(&self) -> Option<Family> {
        self.facts.family.as_ref().ok().map(|fact| fact.value)
    }

    /// The argument `force_zeros_for_empty_prompt` of the pipeline class: that of model_index.json, or else the default of
    /// the classes of Stable Diffusion XL, their refiner's too; `None` if neither tells.
    pub fn forces_zeros_for_empty_prompt(&self) -> Option<bool> {
        let stated = self.index.get("force_zeros_for_empty_prompt").and_then(Value::as_bool);
        let named = self.class().and_then(find);
        stated.or_else(|| named.filter(|(family, _)| family.row().zeros_for_no_prompt).map(|_| true))
    }

    /// True if the image that an instruction changes is scaled as the latents are: the argument `is_cosxl_edit` of diffusers'
    /// `StableDiffusionXLInstructPix2PixPipeline`, which model_index.json may have.
    pub fn scales_followed_image(&self) -> bool {
        let is_stated = self.index.get("is_cosxl_edit").and_then(Value::as_bool) == Some(true);
        is_stated && self.known_family().is_some_and(|family| family.row().scales_followed_image)
    }

    /// The component of this kind, where the directory has one.
    pub fn component(&self, kind: ComponentKind) -> Option<&Component> {
        self.components.get(&kind)
    }

    /// The component of this kind.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] where the directory has none, saying what `wanted_for` needs it.
    pub fn require(&self, kind: ComponentKind, wanted_for: &str) -> Result<&Component> {
        self.component(kind).ok_or_else(|| self.lacks(&[kind], wanted_for))
    }

    /// The graph that predicts.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] where the directory has neither `unet` nor `transformer`.
    pub fn denoiser(&self) -> Result<&Component> {
        self.first_of(&[ComponentKind::Unet, ComponentKind::Transformer])
            .ok_or_else(|| self.lacks(&[ComponentKind::Unet, ComponentKind::Transformer], "every task"))
    }

    /// The graph that predicts where control networks take part: the one that takes their residuals, where there are two.
    ///
    /// # Errors
    ///
    /// As [`Bundle::denoiser`].
    pub fn denoiser_under_control(&self) -> Result<&Component> {
        self.controlled_denoiser.as_ref().map_or_else(|| self.denoiser(), Ok)
    }

    /// The VAE's decoder; `None` for a pixel-space model.
    pub fn decoder(&self) -> Option<&Component> {
        self.first_of(&[ComponentKind::VaeDecoder, ComponentKind::VqDecoder])
    }

    /// The VAE's decoder; `None` for a pixel-space model.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] where the model has a VAE but the directory has no decoder for it.
    pub fn require_decoder(&self, wanted_for: &str) -> Result<Option<&Component>> {
        match (self.decoder(), self.facts.autoencoder) {
            (Some(decoder), _) => Ok(Some(decoder)),
            (None, Autoencoder::Pixels) => Ok(None),
            (None, Autoencoder::Kl) => Err(self.lacks(&[ComponentKind::VaeDecoder], wanted_for)),
            (None, Autoencoder::Vq) => Err(self.lacks(&[ComponentKind::VqDecoder], wanted_for)),
        }
    }

    /// The VAE's encoder, where the directory has one.
    pub fn encoder(&self) -> Option<&Component> {
        self.first_of(&[ComponentKind::VaeEncoder, ComponentKind::VqEncoder])
    }

    /// The VAE's encoder.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] where the directory has none, saying what `wanted_for` needs it.
    pub fn require_encoder(&self, wanted_for: &str) -> Result<&Component> {
        self.encoder().ok_or_else(|| self.lacks(&[ComponentKind::VaeEncoder, ComponentKind::VqEncoder], wanted_for))
    }

    /// The text encoders, first to third, those that are there.
    pub fn text_encoders(&self) -> impl Iterator<Item = &Component> {
        self.components.values().filter(|c| c.kind.text_encoder_number().is_some())
    }

    /// The directory of the tokenizer that belongs to a text encoder.
    pub fn tokenizer(&self, encoder: ComponentKind) -> Option<&Path> {
        self.tokenizers.get(&encoder.text_encoder_number()?).map(PathBuf::as_path)
    }

    fn first_of(&self, kinds: &[ComponentKind]) -> Option<&Component> {
        kinds.iter().find_map(|&k| self.component(k))
    }

    fn lacks(&self, kinds: &[ComponentKind], wanted_for: &str) -> Error {
        let names: Vec<_> = kinds.iter().map(|k| k.name()).collect();
        let present: Vec<_> = self.components.keys().map(|k| k.name()).collect();
        Error::model(
            &self.dir,
            format!("{wanted_for} needs {}, the directory has {}", names.join(" or "), present.join(", ")),
            format!("export that part too, or name its graph: [model.{}] graph = \"…\"", names[0]),
        )
    }
}
