//! The family of a model, by evidence.
//!
//! The pipeline file's `[model] family` decides first, then the class in model_index.json, then the classes in the
//! components' configurations and what the denoiser takes. A class that no row knows is refused by name, and so is a model
//! whose evidence contradicts itself or names no family.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::autoencoder::Autoencoder;
use super::component::{Component, ComponentKind};
use super::json;
use super::roles::{DenoiserSignature, Role};
use crate::error::Error;
use crate::family::{self, Family, Form, Signature};

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
    /// Pixels an edge per latent value, if anything tells.
    pub spatial_factor: Option<usize>,
    /// True if there is a scheduler for the noise over a small image.
    pub has_low_res_scheduler: bool,
    /// True if a tokenizer is BERT's.
    pub reads_bert: bool,
}

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
            self.check_vae(family, &source)?;
            self.check_form(family, &source)?;
            return Ok(FamilyFact { value: family.refined(&self.signature()), source, is_named: true });
        }
        let (Some(form), Some(denoiser)) = (self.form(), self.denoiser) else { return Err(None) };
        let family = self.recognised()?;
        if let Some(class) = self.denoiser_class().filter(|class| !family.row().denoiser_classes.contains(class)) {
            let stated = format!("{}/config.json, which names {class}", denoiser.kind);
            let of = Family::all().find(|other| other.row().denoiser_classes.contains(&class));
            return Err(Some(self.contradiction(&stated, of.map_or("", Family::title), form)));
        }
        let source = format!("what {} takes: {}", denoiser.kind, form.describe());
        self.check_vae(family, &source)?;
        Ok(FamilyFact { value: family, source, is_named: false })
    }

    /// The form of the denoiser's inputs.
    fn form(&self) -> Option<Form> {
        let signature = self.signature?;
        let is_transformer = self.denoiser?.kind == ComponentKind::Transformer;
        Some(form_of(signature, is_transformer, self.latent_channels, self.spatial_factor))
    }

    fn signature(&self) -> Signature {
        let has = |kind| self.components.contains_key(&kind);
        let takes = |role: fn(&DenoiserSignature) -> bool| self.signature.is_some_and(role);
        Signature {
            form: self.form(),
            has_vae: self.autoencoder != Autoencoder::Pixels,
            has_codebook: self.autoencoder == Autoencoder::Vq,
            reads_bert: self.reads_bert,
            has_lone_first_encoder: has(ComponentKind::TextEncoder) && !has(ComponentKind::TextEncoder2),
            has_low_res_scheduler: self.has_low_res_scheduler,
            takes_class_labels: takes(|signature| signature.takes(Role::ClassLabels)),
            takes_guidance_embedding: takes(|signature| signature.takes(Role::TimestepCond)),
            takes_resolution: takes(|signature| signature.takes(Role::Resolution)),
            in_channels: self.signature.and_then(|signature| signature.in_channels),
            latent_channels: self.latent_channels,
            spatial_factor: self.spatial_factor,
        }
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
        match Family::of_class(class) {
            Some(family) => Ok(Some((family, class))),
            None => Err(self.refuse(path, format!("the pipeline class {class} is not one that this version runs"))),
        }
    }

    /// The class in the denoiser's config.json, if it is one of a known family.
    fn denoiser_class(&self) -> Option<&str> {
        json::string(&self.denoiser?.config, "_class_name").filter(|class| is_denoiser_class(class))
    }

    /// Requires that the components' configurations name classes that are run, the denoiser's one that goes with the named
    /// pipeline class.
    fn check_component_classes(&self, named: Option<(Family, &str)>) -> Result<(), Refusal> {
        for component in self.components.values() {
            let class = json::string(&component.config, "_class_name");
            // Wrappers of exporters tell nothing.
            let Some(class) = class.filter(|class| !family::has_exporter_prefix(class)) else {
                continue;
            };
            let is_known = match component.kind {
                ComponentKind::Unet | ComponentKind::Transformer => is_denoiser_class(class),
                ComponentKind::VaeEncoder | ComponentKind::VaeDecoder => {
                    Family::all().any(|family| family.row().vae_classes.contains(&class))
                }
                _ => true,
            };
            if !is_known {
                let problem = format!("the {} is a {class}, which this version does not run", component.kind);
                return Err(self.refuse(config_path(component), problem));
            }
        }
        if let (Some((family, class)), Some(denoiser)) = (named, self.denoiser_class())
            && !family.row().denoiser_classes.contains(&denoiser)
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
        match self.form().filter(|form| !family.row().forms.contains(form)) {
            None => Ok(()),
            Some(form) => Err(self.contradiction(source, family.title(), form)),
        }
    }

    /// Requires that the VAE is one that the family has.
    fn check_vae(&self, family: Family, source: &str) -> Result<(), Refusal> {
        let halves = [ComponentKind::VaeEncoder, ComponentKind::VaeDecoder];
        for half in halves.iter().filter_map(|kind| self.components.get(kind)) {
            let class = json::string(&half.config, "_class_name");
            let class = class.filter(|class| !family::has_exporter_prefix(class));
            if let Some(class) = class.filter(|class| !family.row().vae_classes.contains(class)) {
                let problem = format!("expected a VAE of {} ({source}), found a {class}", family.title());
                return Err(self.refuse(config_path(half), problem));
            }
        }
        Ok(())
    }

    fn contradiction(&self, source: &str, family: &str, form: Form) -> Refusal {
        let path = self.denoiser.map_or_else(|| self.dir.to_path_buf(), |component| component.graph.path.clone());
        let problem = format!("expected a denoiser of {family} ({source}), found {}", form.describe());
        self.refuse(path, problem)
    }

    /// The family of a model that names none.
    fn recognised(&self) -> Result<Family, Refusal> {
        self.check_text_encoders(None)?;
        let signature = self.signature();
        let Some(family) = Family::recognised(&signature) else {
            return Err(self.nothing_known(signature.describe()));
        };
        self.check_text_encoders(Some(family))?;
        Ok(family)
    }

    /// Requires that text encoders that say what they are are of a kind that this family has, or else any.
    fn check_text_encoders(&self, family: Option<Family>) -> Result<(), Refusal> {
        let is_possible = |other: Family| family.is_none_or(|family| family == other);
        let is_known =
            |kind: &str| Family::all().any(|family| is_possible(family) && family.row().text_models.contains(&kind));
        for component in self.components.values().filter(|component| component.kind.text_encoder_number().is_some()) {
            if let Some(kind) = json::string(&component.config, "model_type").filter(|kind| !is_known(kind)) {
                let by = family.map_or("no known family has it".to_owned(), |family| {
                    format!("no model of {} has it", family.title())
                });
                let problem = format!("the {} is a {kind} model, as {by}", component.kind);
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
        let names = Family::names().join(", ");
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

/// True for the class of a denoiser that a known family has.
fn is_denoiser_class(class: &str) -> bool {
    Family::all().any(|family| family.row().denoiser_classes.contains(&class))
}

/// The form of a denoiser of these inputs.
fn form_of(
    signature: &DenoiserSignature,
    is_transformer: bool,
    latent_channels: usize,
    spatial_factor: Option<usize>,
) -> Form {
    let is_of_latents = signature.in_channels.is_none_or(|taken| taken == latent_channels);
    if signature.is_packed() {
        return match (signature.takes(Role::TextEmbeds), is_of_latents) {
            (true, true) => Form::Packed,
            (true, false) => {
                Form::Unknown("packed samples with further channels, as FLUX.1 Fill and Control take them")
            }
            (false, _) => Form::Unknown("packed samples and no pooled text, as FLUX.2 and Chroma take them"),
        };
    }
    if signature.takes(Role::ContextMask) {
        let predicts_variance = signature.out_channels.is_none_or(|given| Some(given) != signature.in_channels);
        let is_deep = spatial_factor.is_some_and(|factor| factor > 8);
        return match (signature.takes(Role::Resolution), predicts_variance) {
            _ if signature.takes(Role::Guidance) => {
                Form::Unknown("a mask over its tokens and a guidance scale, as Sana-Sprint has it")
            }
            (false, false) => Form::MaskedWithoutVariance,
            _ if is_deep => Form::Unknown(
                "a mask over its tokens, a variance in its prediction and a VAE with more than 8 pixels per latent",
            ),
            (true, _) => Form::MaskedWithResolution,
            (false, true) => Form::Masked,
        };
    }
    match (signature.takes(Role::TimeIds), signature.takes(Role::TextEmbeds), signature.takes(Role::Context)) {
        (true, _, _) => Form::UnetWithSizes,
        (false, true, _) if is_transformer => Form::Multimodal,
        (false, true, _) => Form::Unknown("a pooled vector and no sizes, as no UNet of a known family takes it"),
        (false, false, _) if is_transformer => Form::PlainTransformer,
        (false, false, true) => Form::Unet,
        (false, false, false) => Form::UnetWithoutTokens,
    }
}
