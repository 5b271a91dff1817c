//! The small decoder, and what previews are made of.

use super::part::{Part, part};
use crate::bundle::{Autoencoder, Bundle, Component, ComponentKind, VaeDecoderSignature};
use crate::error::{Error, Result};
use crate::spec::{DecoderChoice, Spec};
use crate::tensor::Dim;
use crate::vae::{LinearColors, Scaling};

/// A decoder, and how its latents are scaled.
type Scaled = (Part<VaeDecoderSignature>, Scaling);

/// Previews that a pipeline makes.
#[derive(Debug, Clone)]
pub struct PreviewPlan {
    /// Every how many steps.
    pub every: usize,
    /// What of.
    pub source: PreviewSource,
}

/// What previews are made of.
#[derive(Debug, Clone)]
pub enum PreviewSource {
    /// A small decoder, with the scaling of its latents.
    Small(Part<VaeDecoderSignature>, Scaling),
    /// The published linear map of the model's family.
    Published(LinearColors),
    /// A linear map that is fitted to this decoder before the first step.
    Fitted(Part<VaeDecoderSignature>),
    /// The samples themselves, in a model that works on pixels.
    Pixels,
}

impl std::fmt::Display for PreviewSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Small(..) => f.write_str("by tiny_vae_decoder"),
            Self::Published(_) => f.write_str("by the linear map published for this VAE, one pixel a latent"),
            Self::Fitted(decoder) => {
                write!(f, "by a linear map fitted to {}, one pixel a latent", decoder.kind)
            }
            Self::Pixels => f.write_str("by nothing but the sample, since the model works on pixels"),
        }
    }
}

/// What makes images of the latents, as the pipeline file asks for it; `None` for a model that works on pixels.
pub(super) fn decoder(spec: &Spec, bundle: &Bundle, scaling: Scaling, wanted_for: &str) -> Result<Option<Scaled>> {
    if spec.model.decoder == DecoderChoice::Tiny {
        let component = bundle.require(ComponentKind::TinyVaeDecoder, "[model] decoder = \"tiny\"")?;
        return small(component, bundle).map(Some);
    }
    Ok(full(bundle, wanted_for)?.map(|part| (part, scaling)))
}

fn full(bundle: &Bundle, wanted_for: &str) -> Result<Option<Part<VaeDecoderSignature>>> {
    let Some(component) = bundle.require_decoder(wanted_for)? else { return Ok(None) };
    let signature = VaeDecoderSignature::resolve(component)?;
    let at_fault = |problem: String, help: &str| Err(Error::model(&component.graph.path, problem, help));
    let channels = bundle.facts.latent_channels.value;
    let taken = signature.latent.shape.get(1).and_then(Dim::fixed);
    let taken = taken.or(component.graph.convolved_channels.get(&signature.latent.name).copied());
    if let Some(taken) = taken.filter(|&taken| taken != channels) {
        return at_fault(
            format!(
                "input {} takes {taken} channels, and the model's latents have {channels} ({})",
                signature.latent.name, bundle.facts.latent_channels.source
            ),
            "the decoder is another model's, or the number of latent channels is wrong: [model] latent_channels",
        );
    }
    if let Some(given) = signature.output.shape.get(1).and_then(Dim::fixed).filter(|given| ![1, 3].contains(given)) {
        return at_fault(
            format!("output {} gives {given} channels, and an image has 3", signature.output.name),
            "check that the directory's vae_decoder is one",
        );
    }
    Ok(Some(part(component, signature)))
}

/// The previews that the pipeline file asks for, by what makes the best of them: a small decoder, or else a linear map,
/// the published one of the family or one that is fitted to the decoder.
pub(super) fn previews(spec: &Spec, bundle: &Bundle, scaling: Scaling) -> Result<Option<PreviewPlan>> {
    let Some(every) = spec.output.preview else {
        // A small decoder that was named is to be right, whether it is used this time or not.
        let is_named = spec.model.components.contains_key(&ComponentKind::TinyVaeDecoder);
        if let Some(component) = bundle.component(ComponentKind::TinyVaeDecoder).filter(|_| is_named) {
            small(component, bundle)?;
        }
        return Ok(None);
    };
    let facts = &bundle.facts;
    let published = || {
        let factor = facts.spatial_factor.value;
        LinearColors::published(facts.latent_channels.value, scaling, factor)
    };
    let source = match bundle.component(ComponentKind::TinyVaeDecoder) {
        Some(component) => {
            let (part, scaling) = small(component, bundle)?;
            PreviewSource::Small(part, scaling)
        }
        None if facts.autoencoder == Autoencoder::Pixels => PreviewSource::Pixels,
        None => match published().filter(|_| facts.autoencoder == Autoencoder::Kl) {
            Some(map) => PreviewSource::Published(map),
            None => match full(bundle, "output.preview")? {
                Some(decoder) => PreviewSource::Fitted(decoder),
                None => PreviewSource::Pixels,
            },
        },
    };
    Ok(Some(PreviewPlan { every, source }))
}

/// A small decoder, once it was found to fit the model's latents. It takes them as the diffusion leaves them, unless its
/// config.json has a scaling of its own: diffusers' AutoencoderTiny has a `scaling_factor` of 1.
fn small(component: &Component, bundle: &Bundle) -> Result<Scaled> {
    let signature = VaeDecoderSignature::resolve(component)?;
    let facts = &bundle.facts;
    let at_fault = |problem: String| {
        Error::model(
            &component.graph.path,
            problem,
            "take the small decoder that was made for this model's VAE (TAESD's: taesd for Stable Diffusion 1 and \
             2, taesdxl for XL, taesd3 for 3, taef1 for Flux)",
        )
    };
    if facts.autoencoder == Autoencoder::Pixels {
        return Err(at_fault("it decodes latents, and this model works on pixels".to_owned()));
    }
    let channels = facts.latent_channels.value;
    if let Some(taken) = signature.latent_channels.filter(|&taken| taken != channels) {
        return Err(at_fault(format!(
            "input {} takes {taken} channels, and the model's latents have {channels}",
            signature.latent.name
        )));
    }
    if let Some(given) = signature.output.shape.get(1).and_then(Dim::fixed).filter(|given| ![1, 3].contains(given)) {
        return Err(at_fault(format!("output {} gives {given} channels, and an image has 3", signature.output.name)));
    }
    let factor = facts.spatial_factor.value;
    if let Some(own) = factor_of(component, &signature).filter(|&own| own != factor) {
        return Err(at_fault(format!(
            "it makes images {own} times as large as the latents, and the model's are {factor} times as large"
        )));
    }
    let number = |key: &str| component.config.get(key).and_then(serde_json::Value::as_f64);
    let scaling = Scaling {
        factor: number("scaling_factor").filter(|&factor| factor > 0.0).unwrap_or(1.0),
        shift: number("shift_factor").unwrap_or(0.0),
    };
    Ok((part(component, signature), scaling))
}

/// Pixels a side for one latent, where the graph tells: by its shapes, or by how often it enlarges.
fn factor_of(component: &Component, signature: &VaeDecoderSignature) -> Option<usize> {
    let to = signature.output.shape.get(3).and_then(Dim::fixed);
    if let (Some(from), Some(to)) = (signature.width, to) {
        return to.checked_div(from);
    }
    let upsamplings = component.graph.upsamplings;
    let doublings = upsamplings.by_scale + upsamplings.by_size;
    (1..=6).contains(&doublings).then(|| 1 << doublings)
}
