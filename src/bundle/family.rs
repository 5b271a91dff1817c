//! The family of a model, by evidence.
//!
//! The pipeline file's `[model] family` decides first, then the class in model_index.json, then the classes in the
//! components' configurations and what the denoiser takes. A class that no row knows is refused by name, and so is a model
//! whose evidence contradicts itself or names no family.

mod form;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::autoencoder::Autoencoder;
use super::component::{Component, ComponentKind};
use super::json;
use super::pipeline_class::{self, Family};
use super::roles::{DenoiserSignature, Role};
use crate::error::Error;
use form::Form;

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
    pub signature: Option<&'a DenoiserSignature>,
    pub autoencoder: Autoencoder,
    pub latent_channels: usize,
    /// Pixels an edge per latent value.
    pub spatial_factor: usize,
    /// True if there is a scheduler for the noise over a small image.
    pub has_low_res_scheduler: bool,
    /// True if a tokenizer is BERT's.
    pub reads_bert: bool,
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
    /// The family with where it is stated; no error of the denoiser's graph itself: then there is no signature.
    ///
    /// # Errors
    /// `Some` refusal that names what is not known or what contradicts what; `None` if the denoiser's signature, which would
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
        let (Some(signature), Some(denoiser)) = (self.signature, self.denoiser) else { return Err(None) };
        let form = self.form(signature, denoiser.kind);
        let family = self.recognised(form, signature)?;
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

    fn form(&self, signature: &DenoiserSignature, kind: ComponentKind) -> Form {
        Form::of(signature, kind, self.latent_channels, self.spatial_factor)
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
        let takes_resolution = self.signature.is_some_and(|signature| signature.takes(Role::Resolution));
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
            || self
                .signature
                .is_some_and(|signature| signature.takes(Role::ClassLabels) && signature.in_channels == taken)
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
            // Wrappers of exporters tell nothing.
            let Some(class) = class.filter(|class| !pipeline_class::has_exporter_prefix(class)) else {
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
        let (Some(signature), Some(denoiser)) = (self.signature, self.denoiser) else { return Ok(()) };
        let form = self.form(signature, denoiser.kind);
        if form.is_of(family) { Ok(()) } else { Err(self.contradiction(source, family.title(), form)) }
    }

    fn contradiction(&self, source: &str, family: &str, form: Form) -> Refusal {
        let path = self.denoiser.map_or_else(|| self.dir.to_path_buf(), |component| component.graph.path.clone());
        let problem = format!("expected a denoiser of {family} ({source}), found {}", form.describe());
        self.refuse(path, problem)
    }

    /// The family of a model that names none.
    fn recognised(&self, form: Form, signature: &DenoiserSignature) -> Result<Family, Refusal> {
        self.check_text_encoders()?;
        let has_vae = self.autoencoder != Autoencoder::Pixels;
        let has = |kind| self.components.contains_key(&kind);
        let taken = |more: usize| signature.in_channels == Some(self.latent_channels.saturating_add(more));
        match form {
            Form::Packed => Ok(Family::Flux),
            Form::Multimodal => Ok(Family::StableDiffusion3),
            Form::MaskedWithResolution => Ok(Family::PixArtAlpha),
            Form::Masked => Ok(Family::PixArtSigma),
            Form::UnetWithSizes if has(ComponentKind::TextEncoder) && !has(ComponentKind::TextEncoder2) => {
                Err(self.nothing_known("a UNet that takes sizes, and a single text encoder, as Kolors has it"))
            }
            Form::UnetWithSizes => Ok(Family::StableDiffusionXl),
            Form::Unet if !has_vae => {
                Err(self.nothing_known("a UNet that attends to tokens and no VAE, as DeepFloyd IF has it"))
            }
            Form::Unet if self.autoencoder == Autoencoder::Vq || self.reads_bert => Ok(Family::LatentDiffusion),
            Form::Unet if self.is_upscaler() => Ok(Family::Upscaler),
            Form::Unet if signature.takes(Role::TimestepCond) => Ok(Family::LatentConsistency),
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
