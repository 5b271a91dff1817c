//! Reads model directories: layouts, components, the roles of each graph's inputs and outputs.
//!
//! [`Bundle::open`] reads everything a directory says without loading a weight or needing a runtime: which graphs are
//! there, what they take and give, how they were exported, the scheduler's configuration, the tokenizers, and the
//! [`Facts`] that the engine needs, each with where it was read. The signatures ([`DenoiserSignature`] and its kin) say
//! which input of a graph plays which role, found by name, then by shape, then by element type, never assumed.

mod autoencoder;
mod call_defaults;
mod component;
mod configuration;
mod directory_overrides;
mod facts;
mod family;
mod hub;
mod json;
mod layout;
mod onnx;
mod operators;
mod render;
mod report;
mod roles;
mod scheduler_file;
mod search;
mod survey;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use autoencoder::{Autoencoder, LatentStatistics};
pub use call_defaults::{CallDefaults, TaskCall};
pub use component::{Component, ComponentKind};
pub use directory_overrides::DirectoryOverrides;
pub use facts::{Fact, Facts};
pub use family::{FamilyFact, Refusal};
pub use json::read_object;
pub use layout::Layout;
pub use onnx::{ExternalFile, GraphFile, LayerNorm, ModuleWeight, ModuleWeights, Operator, TokenTable, Upsamplings};
pub(crate) use onnx::{ExternalReference, frame, map, proto, relocate};
pub use operators::{Obstacle, obstacles, operators_without_cpu_kernel};
pub use report::{
    ComponentReport, FactReport, ProviderReport, Report, SchedulerReport, TaskFit, TensorReport, inspect,
};
pub use roles::{
    ConditionerSignature, ControlNetSignature, DenoiserSignature, Residuals, Role, Switch, TextEncoderSignature,
    VaeDecoderSignature, VaeEncoderKind, VaeEncoderSignature, role_words,
};
pub(crate) use roles::{Filler, InputAxis};
pub use scheduler_file::SchedulerFile;
pub use survey::{open_conditioner, open_controlnet};

use crate::error::{Error, Result};
use crate::family::{Family, PipelineClass, find, for_task};
use crate::rng::Stream;
use crate::tensor::DType;

/// A model directory, read and checked.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The directory, as the user named it; for an entry of the Hugging Face cache, its snapshot.
    pub dir: PathBuf,
    /// The layout of its files.
    pub layout: Layout,
    /// model_index.json; empty if there is none.
    pub index: Map<String, Value>,
    /// The components that have a graph.
    pub components: BTreeMap<ComponentKind, Component>,
    /// A second denoiser that takes ControlNet residuals, if the directory has one next to the plain one.
    pub controlled_denoiser: Option<Component>,
    /// The scheduler's configuration, with the `prediction_type` of the [`DirectoryOverrides`] if any.
    pub scheduler: Option<SchedulerFile>,
    /// The scheduler that adds noise to the small image of an upscaler.
    pub low_res_scheduler: Option<SchedulerFile>,
    /// The tokenizers' directories, by their number counted from 1.
    pub tokenizers: BTreeMap<usize, PathBuf>,
    /// The other folders with a graph, for use in `[[condition]]` tables.
    pub conditioners: Vec<String>,
    /// The facts that the engine needs, each with its source.
    pub facts: Facts,
    /// The files that model_index.json names and the directory lacks, one sentence each.
    pub missing: Vec<String>,
}

impl Bundle {
    /// Returns the `noise` that diffusers draws if it loads this model in half precision and most of its denoiser's
    /// weights are stored so; `None` if they are stored in another type.
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

    /// Returns the pipeline class in model_index.json, such as `StableDiffusionPipeline`.
    pub fn class(&self) -> Option<&str> {
        family::class_of(&self.index)
    }

    /// Returns the model's family.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the model's family is not supported, or if its evidence is contradictory, with the evidence;
    /// if the denoiser is the only evidence and cannot be read, with its error.
    pub fn family(&self) -> Result<Family> {
        match &self.facts.family {
            Ok(family) => Ok(family.value),
            Err(Some(refusal)) => Err(refusal.to_error()),
            Err(None) => {
                self.denoiser().and_then(DenoiserSignature::resolve)?;
                Err(self.lacks(&[ComponentKind::Unet, ComponentKind::Transformer], "telling the model's family"))
            }
        }
    }

    /// Returns the family of the model's pipeline class or of `[model] family`; `None` if only the denoiser's inputs
    /// show it, which do not distinguish Flux from Flux Kontext.
    pub fn named_family(&self) -> Option<Family> {
        self.facts.family.as_ref().ok().filter(|family| family.is_named).map(|family| family.value)
    }

    /// Returns diffusers' class for this task and model, with ControlNets if `has_control`; `None` if there is none.
    pub fn pipeline_class(&self, task: &str, has_control: bool) -> Option<&'static PipelineClass> {
        for_task(self.known_family()?, self.class(), task, has_control)
    }

    /// The family; `None` if the model is of none that this version runs.
    pub(crate) fn known_family(&self) -> Option<Family> {
        self.facts.family.as_ref().ok().map(|fact| fact.value)
    }

    /// Returns the argument `force_zeros_for_empty_prompt` of the pipeline class: that of model_index.json, or else the
    /// default of the Stable Diffusion XL classes, including the refiner's; `None` if unknown.
    pub fn forces_zeros_for_empty_prompt(&self) -> Option<bool> {
        let stated = self.index.get("force_zeros_for_empty_prompt").and_then(Value::as_bool);
        let named = self.class().and_then(find);
        stated.or_else(|| named.filter(|(family, _)| family.row().zeros_for_no_prompt).map(|_| true))
    }

    /// Returns true if the image of an instruction task is scaled as the latents are: the argument `is_cosxl_edit` of
    /// diffusers' `StableDiffusionXLInstructPix2PixPipeline` in model_index.json.
    pub fn scales_followed_image(&self) -> bool {
        let is_stated = self.index.get("is_cosxl_edit").and_then(Value::as_bool) == Some(true);
        is_stated && self.known_family().is_some_and(|family| family.row().scales_followed_image)
    }

    /// Returns true for a VAE that diffusers runs in float32 if its weights are in half precision: its activations leave the
    /// range of half precision. The family's pipeline classes do so where the configuration has `force_upcast`, which is
    /// true by default.
    pub fn needs_float32(&self, component: &Component) -> bool {
        let is_vae = matches!(component.kind, ComponentKind::VaeEncoder | ComponentKind::VaeDecoder);
        let upcasts = self.known_family().is_some_and(|family| family.row().upcasts_vae);
        let told = component.config.get("force_upcast").and_then(Value::as_bool);
        is_vae
            && upcasts
            && told.unwrap_or_else(|| json::string(&component.config, "_class_name") == Some("AutoencoderKL"))
    }

    /// Returns the component of this kind, if any.
    pub fn component(&self, kind: ComponentKind) -> Option<&Component> {
        self.components.get(&kind)
    }

    /// Returns the component of this kind.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the directory has none; `wanted_for` says what needs it.
    pub fn require(&self, kind: ComponentKind, wanted_for: &str) -> Result<&Component> {
        self.component(kind).ok_or_else(|| self.lacks(&[kind], wanted_for))
    }

    /// Returns the denoiser.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the directory has neither `unet` nor `transformer`.
    pub fn denoiser(&self) -> Result<&Component> {
        self.first_of(&[ComponentKind::Unet, ComponentKind::Transformer])
            .ok_or_else(|| self.lacks(&[ComponentKind::Unet, ComponentKind::Transformer], "every task"))
    }

    /// Returns the denoiser to use with ControlNets: the one that takes their residuals, if there are two.
    ///
    /// # Errors
    ///
    /// As [`Bundle::denoiser`].
    pub fn denoiser_under_control(&self) -> Result<&Component> {
        self.controlled_denoiser.as_ref().map_or_else(|| self.denoiser(), Ok)
    }

    /// Returns the VAE decoder; `None` for a pixel-space model.
    pub fn decoder(&self) -> Option<&Component> {
        self.first_of(&[ComponentKind::VaeDecoder, ComponentKind::VqDecoder])
    }

    /// Returns the VAE decoder; `None` for a pixel-space model.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the model has a VAE but the directory has no decoder for it.
    pub fn require_decoder(&self, wanted_for: &str) -> Result<Option<&Component>> {
        match (self.decoder(), self.facts.autoencoder) {
            (Some(decoder), _) => Ok(Some(decoder)),
            (None, Autoencoder::Pixels) => Ok(None),
            (None, Autoencoder::Kl) => Err(self.lacks(&[ComponentKind::VaeDecoder], wanted_for)),
            (None, Autoencoder::Vq) => Err(self.lacks(&[ComponentKind::VqDecoder], wanted_for)),
        }
    }

    /// Returns the VAE encoder, if any.
    pub fn encoder(&self) -> Option<&Component> {
        self.first_of(&[ComponentKind::VaeEncoder, ComponentKind::VqEncoder])
    }

    /// Returns the VAE encoder.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the directory has none; `wanted_for` says what needs it.
    pub fn require_encoder(&self, wanted_for: &str) -> Result<&Component> {
        self.encoder().ok_or_else(|| self.lacks(&[ComponentKind::VaeEncoder, ComponentKind::VqEncoder], wanted_for))
    }

    /// Returns the text encoders that are present, first to third.
    pub fn text_encoders(&self) -> impl Iterator<Item = &Component> {
        self.components.values().filter(|c| c.kind.text_encoder_number().is_some())
    }

    /// Returns the directory of a text encoder's tokenizer.
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
            format!("export that part too, or set its graph: [model.{}] graph = \"…\"", names[0]),
        )
    }
}
