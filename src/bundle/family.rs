//! The family of a model, by evidence.
//!
//! The pipeline file's `[model] family` decides first, then the class in model_index.json, then the classes in the
//! components' configurations and what the denoiser takes. A class that no row knows is refused by name, and so is a model
//! whose evidence contradicts itself or names no family.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::component::{Component, ComponentKind};
use super::facts::FirstStage;
use super::json;
use super::pipeline_class::{self, Family};
use super::roles::DenoiserContract;
use crate::error::Error;

/// The generations of PixArt: transformers that attend to T5's tokens under a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixArt {
    /// PixArt-α (Chen et al. 2023, arXiv 2310.00426).
    Alpha,
    /// PixArt-Σ (Chen et al. 2024, arXiv 2403.04692).
    Sigma,
}

impl PixArt {
    /// The generation of a family; `None` for other families.
    pub fn of(family: Family) -> Option<Self> {
        match family {
            Family::PixArtAlpha => Some(Self::Alpha),
            Family::PixArtSigma => Some(Self::Sigma),
            _ => None,
        }
    }

    /// How many tokens T5 reads where nobody says: diffusers' default of `max_sequence_length`.
    pub fn tokens(self) -> usize {
        match self {
            Self::Alpha => 120,
            Self::Sigma => 300,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alpha => "PixArt-α",
            Self::Sigma => "PixArt-Σ",
        }
    }
}

/// The name, the scaling factor and the shift factor of a family's published VAE.
pub(super) fn constants(family: Family) -> (&'static str, f64, f64) {
    let (scale, shift) = match family {
        Family::StableDiffusionXl | Family::PixArtSigma => (0.13025, 0.0),
        Family::Upscaler => (0.08333, 0.0),
        Family::StableDiffusion3 => (1.5305, 0.0609),
        Family::Flux | Family::FluxKontext => (0.3611, 0.1159),
        _ => (0.18215, 0.0),
    };
    (family.title(), scale, shift)
}

/// The pipeline class that model_index.json names; of a list, as custom pipelines have one, its last name.
pub(super) fn class_of(index: &Map<String, Value>) -> Option<&str> {
    match index.get("_class_name")? {
        Value::Array(names) => names.last()?.as_str(),
        name => name.as_str(),
    }
}

/// The family of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct FamilyFact {
    /// The family.
    pub value: Family,
    /// The evidence, such as `model_index.json, which names FluxPipeline`.
    pub source: String,
    /// True if a name says so, that of the pipeline class or of `[model] family`. What a denoiser takes does not tell Flux
    /// from Flux Kontext.
    pub is_named: bool,
}

/// The reason why a model is of no family that this version runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    path: PathBuf,
    problem: String,
    help: String,
}

impl Refusal {
    pub(super) fn to_error(&self) -> Error {
        Error::model(&self.path, &self.problem, &self.help)
    }
}

/// The evidence of a model's family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence<'a> {
    pub dir: &'a Path,
    /// `[model] family`.
    pub stated: Option<Family>,
    pub index: &'a Map<String, Value>,
    pub components: &'a BTreeMap<ComponentKind, Component>,
    pub denoiser: Option<&'a Component>,
    pub contract: Option<&'a DenoiserContract>,
    pub first_stage: FirstStage,
    pub latent_channels: usize,
    /// Pixels an edge per latent value.
    pub spatial_factor: usize,
    /// True if there is a scheduler for the noise over a small image.
    pub has_low_res_scheduler: bool,
    /// True if a tokenizer is BERT's.
    pub reads_bert: bool,
}

/// The form of a denoiser's inputs, which whole families share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Stable Diffusion 1 and 2 and their relatives.
    Unet,
    /// A UNet that takes no tokens.
    UnetWithoutTokens,
    UnetWithSizes,
    Multimodal,
    Packed,
    Masked,
    MaskedWithResolution,
    /// A transformer that takes tokens alone, or a class.
    PlainTransformer,
    /// A form of no family, with what is known of it.
    Unknown(&'static str),
}

impl Form {
    fn of(contract: &DenoiserContract, kind: ComponentKind, latent_channels: usize, spatial_factor: usize) -> Self {
        let is_of_latents = contract.in_channels.is_none_or(|taken| taken == latent_channels);
        let is_transformer = kind == ComponentKind::Transformer;
        if contract.positions.is_some() {
            return match (contract.text_embeds.is_some(), is_of_latents) {
                (true, true) => Self::Packed,
                (true, false) => {
                    Self::Unknown("packed samples with further channels, as FLUX.1 Fill and Control take them")
                }
                (false, _) => Self::Unknown("packed samples and no pooled text, as FLUX.2 and Chroma take them"),
            };
        }
        if contract.context_mask.is_some() {
            if spatial_factor > 8 {
                return Self::Unknown(
                    "a mask over its tokens and a VAE with more than 8 pixels per latent, as Sana has it",
                );
            }
            let predicts_variance = contract.out_channels.is_none_or(|given| Some(given) != contract.in_channels);
            return match (contract.resolution.is_some(), predicts_variance) {
                (true, _) => Self::MaskedWithResolution,
                (false, true) => Self::Masked,
                (false, false) => {
                    Self::Unknown("a mask over its tokens and no variance in its prediction, as Sana has it")
                }
            };
        }
        match (contract.time_ids.is_some(), contract.text_embeds.is_some(), contract.context.is_some()) {
            (true, _, _) => Self::UnetWithSizes,
            (false, true, _) if is_transformer => Self::Multimodal,
            (false, true, _) => Self::Unknown("a pooled vector and no sizes, as no UNet of a known family takes it"),
            (false, false, _) if is_transformer => Self::PlainTransformer,
            (false, false, true) => Self::Unet,
            (false, false, false) => Self::UnetWithoutTokens,
        }
    }

    /// True if denoisers of this form belong to the family.
    fn is_of(self, family: Family) -> bool {
        match family {
            Family::StableDiffusion | Family::StableDiffusionDepth | Family::Upscaler | Family::LatentConsistency => {
                self == Self::Unet
            }
            Family::StableDiffusionXl => self == Self::UnetWithSizes,
            Family::StableDiffusion3 => self == Self::Multimodal,
            Family::Flux | Family::FluxKontext => self == Self::Packed,
            // Without its mask the transformer is refused where the mask is missed, and told apart by its name until then.
            Family::PixArtAlpha | Family::PixArtSigma => {
                matches!(self, Self::Masked | Self::MaskedWithResolution | Self::PlainTransformer)
            }
            Family::LatentDiffusion => matches!(self, Self::Unet | Self::UnetWithoutTokens),
            Family::PixelDiffusion => self == Self::UnetWithoutTokens,
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Unet => "a UNet that attends to tokens and takes no sizes, as those of Stable Diffusion 1 and 2",
            Self::UnetWithoutTokens => "a UNet that attends to no tokens",
            Self::UnetWithSizes => "a UNet that takes sizes (time_ids), as Stable Diffusion XL's",
            Self::Multimodal => "a transformer that takes pooled text and unpacked samples, as Stable Diffusion 3's",
            Self::Packed => "a transformer that takes packed samples with their positions, as Flux's",
            Self::Masked => "a transformer that takes a mask over its tokens, as PixArt-Σ's",
            Self::MaskedWithResolution => {
                "a transformer that takes a mask over its tokens and a resolution, as PixArt-α's"
            }
            Self::PlainTransformer => "a transformer that takes neither pooled text nor a mask over its tokens",
            Self::Unknown(what) => what,
        }
    }
}

/// The classes of denoisers in config.json, each with the families whose denoisers they are.
const DENOISER_CLASSES: [(&str, &[Family]); 7] = {
    use Family::*;
    [
        (
            "UNet2DConditionModel",
            &[StableDiffusion, StableDiffusionDepth, Upscaler, LatentConsistency, StableDiffusionXl, LatentDiffusion],
        ),
        ("UNet2DModel", &[LatentDiffusion, PixelDiffusion]),
        ("UNetModel", &[LatentDiffusion]),
        ("SD3Transformer2DModel", &[StableDiffusion3]),
        ("FluxTransformer2DModel", &[Flux, FluxKontext]),
        ("PixArtTransformer2DModel", &[PixArtAlpha, PixArtSigma]),
        ("Transformer2DModel", &[PixArtAlpha, PixArtSigma]),
    ]
};

/// The classes of VAEs in config.json that are run.
const VAE_CLASSES: [&str; 5] =
    ["AutoencoderKL", "AsymmetricAutoencoderKL", "AutoencoderTiny", "VQModel", "VQModelInterface"];

/// The `model_type`s of text encoders in config.json that are run without a pipeline class to vouch for them.
const TEXT_MODELS: [&str; 5] = ["clip", "clip_text_model", "t5", "bert", "ldmbert"];

impl Evidence<'_> {
    /// The family with where it is stated; no error of the denoiser's graph itself: then there is no contract.
    ///
    /// # Errors
    /// `Some` refusal that names what is not known or what contradicts what; `None` if the denoiser's contract, which would
    /// have to tell the family, could not be resolved.
    pub(super) fn decide(&self) -> Result<FamilyFact, Option<Refusal>> {
        if let Some(family) = self.stated {
            let stated = "the pipeline file ([model] family)";
            self.check_form(family, stated)?;
            return Ok(FamilyFact { value: family, source: stated.to_owned(), is_named: true });
        }
        let named = self.named()?;
        self.check_component_classes(named)?;
        if let Some((family, class)) = named {
            let source = format!("model_index.json, which names {class}");
            self.check_form(family, &source)?;
            return Ok(FamilyFact { value: self.refined(family), source, is_named: true });
        }
        let (Some(contract), Some(denoiser)) = (self.contract, self.denoiser) else { return Err(None) };
        let form = self.form(contract, denoiser.kind);
        let family = self.recognised(form, contract)?;
        let of_config = self.denoiser_class();
        let agrees = |(class, families): (&str, &[Family])| match families.contains(&family) {
            true => Ok(()),
            false => Err(self.contradiction(
                &format!("{}/config.json, which names {class}", denoiser.kind),
                families.first().map_or("", |family| family.title()),
                form,
            )),
        };
        of_config.map_or(Ok(()), agrees)?;
        let source = format!("what {} takes: {}", denoiser.kind, form.describe());
        Ok(FamilyFact { value: family, source, is_named: false })
    }

    fn form(&self, contract: &DenoiserContract, kind: ComponentKind) -> Form {
        Form::of(contract, kind, self.latent_channels, self.spatial_factor)
    }

    /// The family of the class in model_index.json.
    fn named(&self) -> Result<Option<(Family, &str)>, Refusal> {
        let path = self.dir.join("model_index.json");
        let Some(class) = class_of(self.index) else {
            return match self.index.get("_class_name") {
                None | Some(Value::Null) => Ok(None),
                Some(other) => Err(self.refuse(path, format!("_class_name is {other}, which names no pipeline class"))),
            };
        };
        match pipeline_class::family_of(class) {
            Some(family) => Ok(Some((family, class))),
            None => Err(self.refuse(path, format!("the pipeline class {class} is not one that this version runs"))),
        }
    }

    /// The family and its near relative that a class name alone does not tell apart.
    fn refined(&self, family: Family) -> Family {
        let takes_resolution = self.contract.is_some_and(|contract| contract.resolution.is_some());
        match family {
            // Exporters write the base class for the upscaler, too.
            Family::StableDiffusion if self.is_upscaler() => Family::Upscaler,
            Family::PixArtSigma if takes_resolution => Family::PixArtAlpha,
            family => family,
        }
    }

    /// True if the denoiser takes a small image of three channels behind the latents, and how much noise lies over it.
    fn is_upscaler(&self) -> bool {
        let taken = Some(self.latent_channels.saturating_add(3));
        self.has_low_res_scheduler
            || self.contract.is_some_and(|contract| contract.class_labels.is_some() && contract.in_channels == taken)
    }

    /// The class in the denoiser's config.json with its families, if both are known.
    fn denoiser_class(&self) -> Option<(&'static str, &'static [Family])> {
        let class = json::string(&self.denoiser?.config, "_class_name")?;
        DENOISER_CLASSES.into_iter().find(|(known, _)| *known == class)
    }

    /// Requires that the components' configurations name classes that are run, the denoiser's one that goes with the named
    /// pipeline class.
    fn check_component_classes(&self, named: Option<(Family, &str)>) -> Result<(), Refusal> {
        for component in self.components.values() {
            let class = json::string(&component.config, "_class_name");
            // Optimum's own wrappers tell nothing.
            let Some(class) = class.filter(|class| !class.starts_with("ORT") && !class.starts_with("OV")) else {
                continue;
            };
            let is_known = match component.kind {
                ComponentKind::Unet | ComponentKind::Transformer => {
                    DENOISER_CLASSES.iter().any(|(known, _)| *known == class)
                }
                ComponentKind::VaeEncoder | ComponentKind::VaeDecoder => VAE_CLASSES.contains(&class),
                _ => true,
            };
            if !is_known {
                let problem = format!("the {} is a {class}, which this version does not run", component.kind);
                return Err(self.refuse(config_path(component), problem));
            }
        }
        if let (Some((family, class)), Some((denoiser, families))) = (named, self.denoiser_class())
            && !families.contains(&family)
        {
            let kind = self.denoiser.map_or("", |component| component.kind.name());
            return Err(self.refuse(
                self.dir.join("model_index.json"),
                format!(
                    "names {class} ({}), and {kind}/config.json names {denoiser}, which is not of that family",
                    family.title()
                ),
            ));
        }
        Ok(())
    }

    /// Requires that the denoiser takes what denoisers of the family take.
    fn check_form(&self, family: Family, source: &str) -> Result<(), Refusal> {
        let (Some(contract), Some(denoiser)) = (self.contract, self.denoiser) else { return Ok(()) };
        let form = self.form(contract, denoiser.kind);
        if form.is_of(family) { Ok(()) } else { Err(self.contradiction(source, family.title(), form)) }
    }

    fn contradiction(&self, source: &str, family: &str, form: Form) -> Refusal {
        let path = self.denoiser.map_or_else(|| self.dir.to_path_buf(), |component| component.graph.path.clone());
        let problem = format!("expected a denoiser of {family} ({source}), found {}", form.describe());
        self.refuse(path, problem)
    }

    /// The family of a model that names none.
    fn recognised(&self, form: Form, contract: &DenoiserContract) -> Result<Family, Refusal> {
        self.check_text_encoders()?;
        let has_vae = self.first_stage != FirstStage::Pixels;
        let taken = |more: usize| contract.in_channels == Some(self.latent_channels.saturating_add(more));
        match form {
            Form::Packed => Ok(Family::Flux),
            Form::Multimodal => Ok(Family::StableDiffusion3),
            Form::MaskedWithResolution => Ok(Family::PixArtAlpha),
            Form::Masked => Ok(Family::PixArtSigma),
            Form::UnetWithSizes => Ok(Family::StableDiffusionXl),
            Form::Unet if !has_vae => {
                Err(self.nothing_known("a UNet that attends to tokens and no VAE, as DeepFloyd IF has it"))
            }
            Form::Unet if self.first_stage == FirstStage::Vq || self.reads_bert => Ok(Family::LatentDiffusion),
            Form::Unet if self.is_upscaler() => Ok(Family::Upscaler),
            Form::Unet if contract.timestep_cond.is_some() => Ok(Family::LatentConsistency),
            Form::Unet if taken(1) => Ok(Family::StableDiffusionDepth),
            Form::Unet => Ok(Family::StableDiffusion),
            Form::UnetWithoutTokens if has_vae => Ok(Family::LatentDiffusion),
            Form::UnetWithoutTokens => Ok(Family::PixelDiffusion),
            Form::PlainTransformer | Form::Unknown(_) => Err(self.nothing_known(form.describe())),
        }
    }

    /// Requires that text encoders that say what they are are of a kind that the known families have.
    fn check_text_encoders(&self) -> Result<(), Refusal> {
        for component in self.components.values().filter(|component| component.kind.text_encoder_number().is_some()) {
            if let Some(kind) = json::string(&component.config, "model_type").filter(|kind| !TEXT_MODELS.contains(kind))
            {
                let problem = format!("the {} is a {kind} model, as no known family has it", component.kind);
                return Err(self.refuse(config_path(component), problem));
            }
        }
        Ok(())
    }

    fn nothing_known(&self, found: &str) -> Refusal {
        let path = self.denoiser.map_or_else(|| self.dir.to_path_buf(), |component| component.graph.path.clone());
        self.refuse(path, format!("no known family has such a denoiser: {found}"))
    }

    fn refuse(&self, path: PathBuf, problem: String) -> Refusal {
        let names = Family::ALL.map(Family::name).join(", ");
        let help = format!(
            "choose a model of a known family, or if it is one, name that in the pipeline file: [model] family = \"…\" with one \
             of {names}"
        );
        Refusal { path, problem, help }
    }
}

fn config_path(component: &Component) -> PathBuf {
    component.config_path.clone().unwrap_or_else(|| component.graph.path.clone())
}
