//! The numbers that the engine needs and that directories state in different places, or not at all.

mod sizes;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::autoencoder::{Autoencoder, LatentStatistics};
use super::component::{Component, ComponentKind};
use super::directory_overrides::DirectoryOverrides;
use super::family::{self, FamilyFact, Refusal};
use super::scheduler_file::SchedulerFile;
use super::{json, roles};
use crate::family::Family;

/// A value and where it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact<T> {
    /// The value.
    pub value: T,
    /// The file it was read from, such as `vae_decoder/config.json`, or the reason why it is assumed.
    pub source: String,
}

impl<T> Fact<T> {
    pub(crate) fn new(value: T, source: impl Into<String>) -> Self {
        Self { value, source: source.into() }
    }
}

/// The facts about a model that the engine needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The model's family, or the reason why it has none that is run; no reason if the denoiser could not be read.
    pub family: Result<FamilyFact, Option<Refusal>>,
    /// The kind of VAE.
    pub autoencoder: Autoencoder,
    /// Channels of a latent; of an image where there is no VAE.
    pub latent_channels: Fact<usize>,
    /// The factor by which latents are multiplied after encoding and divided before decoding.
    pub scaling_factor: Fact<f64>,
    /// The offset subtracted from latents before scaling and added back before decoding.
    pub shift_factor: Fact<f64>,
    /// Statistics that replace the plain scaling: a latent is decoded from `z * std / scaling_factor + mean`.
    pub latent_statistics: Option<Fact<LatentStatistics>>,
    /// Pixels an edge per latent value (the `f` of the paper): a power of two, 1 where there is no VAE.
    pub spatial_factor: Fact<usize>,
    /// The number that a latent's height and width must be multiples of for the denoiser's graph to run.
    pub latent_multiple: Fact<usize>,
    /// The size, width and height in pixels, that the model was trained at.
    pub default_size: Fact<(usize, usize)>,
    /// True if neither the pipeline file nor the graphs decide the default size.
    pub is_size_open: bool,
    /// The size, width and height in pixels, that the denoiser's graph is fixed to, where it is.
    pub fixed_size: Option<Fact<(usize, usize)>>,
    /// The denoiser's prediction type, in diffusers' words, if any file states it.
    pub prediction_type: Option<Fact<String>>,
}

impl Facts {
    /// Returns the number of pixels that an image's width and height must be multiples of.
    pub fn size_multiple(&self) -> usize {
        self.spatial_factor.value.saturating_mul(self.latent_multiple.value)
    }

    /// Returns the number of patches that a transformer divides an image of this size, in pixels, into.
    pub fn patches(&self, width: usize, height: usize) -> usize {
        let side = self.size_multiple().max(1);
        (width / side).saturating_mul(height / side)
    }

    /// Collects the facts from what was found in a directory.
    pub(super) fn gather(
        components: &BTreeMap<ComponentKind, Component>,
        [scheduler, low_res_scheduler]: [Option<&SchedulerFile>; 2],
        index: &Map<String, Value>,
        place: Place<'_>,
        overrides: &DirectoryOverrides,
    ) -> Self {
        let evidence = Evidence::new(components, [scheduler, low_res_scheduler], index);
        let found_factor = evidence.spatial_factor();
        let usual = |factor: usize| Fact::new(factor, "assumed, as in nearly all VAEs");
        let latent_channels = match overrides.latent_channels {
            Some(n) => Fact::new(n, PIPELINE),
            None => evidence.latent_channels(),
        };
        let factor = found_factor.as_ref().map(|fact| fact.value);
        let decided = evidence.family(place, index, (latent_channels.value, factor), overrides.family);
        let family = decided.as_ref().ok().map(|fact| fact.value);
        let spatial_factor =
            found_factor.unwrap_or_else(|| usual(family.map_or(8, |family| family.row().vae.spatial_factor)));
        let fixed_size = evidence.fixed_size(spatial_factor.value);
        let is_size_open = overrides.sample_size.is_none() && fixed_size.is_none();
        let default_size = match (overrides.sample_size, &fixed_size) {
            (Some(n), _) => {
                Fact::new((n.saturating_mul(spatial_factor.value), n.saturating_mul(spatial_factor.value)), PIPELINE)
            }
            (None, Some(fixed)) => fixed.clone(),
            (None, None) => evidence.default_size(spatial_factor.value, family),
        };
        Self {
            family: decided,
            autoencoder: evidence.autoencoder,
            scaling_factor: evidence.scaling_factor(overrides, family),
            shift_factor: evidence.shift_factor(overrides, family),
            latent_statistics: evidence.latent_statistics(),
            latent_multiple: evidence.latent_multiple(family),
            prediction_type: evidence.prediction_type(overrides),
            latent_channels,
            spatial_factor,
            default_size,
            is_size_open,
            fixed_size,
        }
    }
}

/// The model directory, and what its tokenizers tell.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub dir: &'a Path,
    /// True if a tokenizer is BERT's.
    pub reads_bert: bool,
}

const PIPELINE: &str = "the pipeline file";

/// The files that the facts are drawn from.
struct Evidence<'a> {
    components: &'a BTreeMap<ComponentKind, Component>,
    scheduler: Option<&'a SchedulerFile>,
    has_low_res_scheduler: bool,
    autoencoder: Autoencoder,
    denoiser: Option<&'a Component>,
    encoder: Option<&'a Component>,
    decoder: Option<&'a Component>,
}

impl<'a> Evidence<'a> {
    fn new(
        components: &'a BTreeMap<ComponentKind, Component>,
        [scheduler, low_res_scheduler]: [Option<&'a SchedulerFile>; 2],
        index: &'a Map<String, Value>,
    ) -> Self {
        use ComponentKind::{Transformer, Unet, VaeDecoder, VaeEncoder, VqDecoder, VqEncoder};
        let first = |kinds: [ComponentKind; 2]| kinds.iter().find_map(|k| components.get(k));
        let is_named = |name: &str| index.get(name).and_then(|entry| entry.get(1)).is_some_and(Value::is_string);
        let has = |kinds: [ComponentKind; 2]| kinds.iter().any(|k| components.contains_key(k));
        let is_vq = |c: &Component| json::string(&c.config, "_class_name") == Some("VQModel");
        let autoencoder = if has([VqDecoder, VqEncoder]) || is_named("vqvae") || components.values().any(is_vq) {
            Autoencoder::Vq
        } else if has([VaeDecoder, VaeEncoder]) || is_named("vae") {
            Autoencoder::Kl
        } else {
            Autoencoder::Pixels
        };
        Self {
            components,
            scheduler,
            has_low_res_scheduler: low_res_scheduler.is_some() || is_named("low_res_scheduler"),
            autoencoder,
            denoiser: first([Unet, Transformer]),
            encoder: first([VaeEncoder, VqEncoder]),
            decoder: first([VaeDecoder, VqDecoder]),
        }
    }

    /// Returns the value that `read` finds in the VAE's configuration, with the file it was found in.
    fn stage_config<T>(&self, read: impl Fn(&Map<String, Value>) -> Option<T>) -> Option<Fact<T>> {
        [self.decoder, self.encoder].into_iter().flatten().find_map(|c| from_config(c, &read))
    }

    fn signature(&self) -> Option<roles::DenoiserSignature> {
        roles::DenoiserSignature::resolve(self.denoiser?).ok()
    }

    fn family(
        &self,
        place: Place<'_>,
        index: &Map<String, Value>,
        (latent_channels, spatial_factor): (usize, Option<usize>),
        stated: Option<Family>,
    ) -> Result<FamilyFact, Option<Refusal>> {
        let signature = self.signature();
        let evidence = family::Evidence {
            dir: place.dir,
            stated,
            index,
            components: self.components,
            denoiser: self.denoiser,
            signature: signature.as_ref(),
            autoencoder: self.autoencoder,
            latent_channels,
            spatial_factor,
            has_low_res_scheduler: self.has_low_res_scheduler,
            reads_bert: place.reads_bert,
        };
        evidence.decide()
    }

    fn latent_channels(&self) -> Fact<usize> {
        if let Some(fact) = self.stage_config(|c| json::count(c, "latent_channels")) {
            return fact;
        }
        if let Some((decoder, input)) = self.decoder.and_then(|d| Some((d, roles::image_input(&d.graph)?))) {
            if let Some(n) = input.shape.get(1).and_then(|d| d.fixed()) {
                return Fact::new(n, format!("the shape of {}'s {}", decoder.kind, input.name));
            }
            if let Some(&n) = decoder.graph.convolved_channels.get(&input.name) {
                return Fact::new(n, format!("the first convolution of {}", decoder.kind));
            }
        }
        if let Some(denoiser) = self.denoiser {
            if let Some(n) = roles::image_output(&denoiser.graph).and_then(|o| o.shape.get(1)?.fixed()) {
                return Fact::new(n, format!("the shape of {}'s output", denoiser.kind));
            }
            if let Some(n) = self.signature().filter(|c| c.is_packed()).and_then(|c| c.out_channels) {
                return Fact::new(n, format!("the shape of {}'s packed output", denoiser.kind));
            }
            if let Some(fact) = from_config(denoiser, &|c| json::count(c, "out_channels")) {
                return fact;
            }
        }
        match self.autoencoder {
            Autoencoder::Kl => Fact::new(4, "assumed, as nothing says otherwise"),
            Autoencoder::Vq | Autoencoder::Pixels => Fact::new(3, "assumed, as nothing says otherwise"),
        }
    }

    fn scaling_factor(&self, overrides: &DirectoryOverrides, family: Option<Family>) -> Fact<f64> {
        if let Some(value) = overrides.scaling_factor {
            return Fact::new(value, PIPELINE);
        }
        if let Some((class, value)) = family.and_then(Family::vae_scaling_factor) {
            return Fact::new(value, format!("{class} sets it"));
        }
        if let Some(fact) = self.stage_config(|c| json::number(c, "scaling_factor")) {
            return fact;
        }
        match self.autoencoder {
            Autoencoder::Kl => match family.map(Family::row) {
                Some(row) => {
                    Fact::new(row.vae.scaling_factor, format!("that of {}, as no config.json gives one", row.title))
                }
                None => Fact::new(1.0, "no config.json gives one, and the family is not known"),
            },
            Autoencoder::Vq => Fact::new(1.0, "a VQ autoencoder without one has 1"),
            Autoencoder::Pixels => Fact::new(1.0, "pixels are not scaled"),
        }
    }

    fn shift_factor(&self, overrides: &DirectoryOverrides, family: Option<Family>) -> Fact<f64> {
        if let Some(value) = overrides.shift_factor {
            return Fact::new(value, PIPELINE);
        }
        if let Some(fact) = self.stage_config(|c| json::number(c, "shift_factor")) {
            return fact;
        }
        let (name, shift) = family.map_or(("", 0.0), |family| (family.title(), family.row().vae.shift_factor));
        let has_config = [self.decoder, self.encoder].into_iter().flatten().any(|c| !c.config.is_empty());
        if self.autoencoder == Autoencoder::Kl && !has_config && shift != 0.0 {
            Fact::new(shift, format!("that of {name}, as there is no config.json"))
        } else {
            Fact::new(0.0, "none is given")
        }
    }

    fn latent_statistics(&self) -> Option<Fact<LatentStatistics>> {
        let numbers = |c: &Map<String, Value>, key: &str| -> Option<Vec<f64>> {
            c.get(key)?.as_array()?.iter().map(Value::as_f64).collect()
        };
        self.stage_config(|c| {
            Some(LatentStatistics { mean: numbers(c, "latents_mean")?, std: numbers(c, "latents_std")? })
        })
    }

    fn prediction_type(&self, overrides: &DirectoryOverrides) -> Option<Fact<String>> {
        if let Some(kind) = &overrides.prediction_type {
            return Some(Fact::new(kind.clone(), PIPELINE));
        }
        let kind = json::string(&self.scheduler?.config, "prediction_type")?;
        Some(Fact::new(kind.to_owned(), "the scheduler's configuration"))
    }
}

pub(super) fn from_config<T>(
    component: &Component,
    read: &impl Fn(&Map<String, Value>) -> Option<T>,
) -> Option<Fact<T>> {
    let value = read(&component.config)?;
    let file = component.config_path.as_deref().map(short_path).unwrap_or_default();
    Some(Fact::new(value, file))
}

/// The last two parts of a path, such as `unet/config.json`.
fn short_path(path: &Path) -> String {
    let parts: Vec<_> = path.iter().rev().take(2).map(|p| p.to_string_lossy()).collect();
    parts.iter().rev().map(AsRef::as_ref).collect::<Vec<&str>>().join("/")
}
