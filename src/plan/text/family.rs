//! What the denoisers of a family read of their text encoders.

use super::states::{penultimate, skipped};
use crate::bundle::{self, Bundle, Component, ComponentKind, DenoiserSignature, PixArt, TextEncoderSignature};
use crate::error::{Error, Result};
use crate::tensor::TensorInfo;
use crate::text::Taken;

/// How a denoiser reads its text encoders, told by what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// The latent diffusion paper's models, Stable Diffusion 1 and 2: the states after the last layer.
    Plain,
    /// Stable Diffusion XL and what came of it: the states before the last layer's, side by side, and the last encoder's
    /// projected vector.
    Xl,
    /// Stable Diffusion 3: the same of the CLIPs, whose projected vectors stand side by side too, and behind their tokens
    /// those of T5, or zeros in their place.
    Multimodal,
    /// Flux: the first encoder's pooled vector, and of T5 the states after the last layer.
    Flux,
    /// PixArt: the states of T5's after the last layer, with the mask under which they came to be.
    PixArt(PixArt),
}

impl Family {
    /// That of a model's family.
    ///
    /// # Errors
    /// [`Error::Model`] where the model has none.
    pub(super) fn of(bundle: &Bundle) -> Result<Self> {
        use bundle::Family as Model;
        Ok(match bundle.family()? {
            Model::Flux | Model::FluxKontext => Self::Flux,
            Model::PixArtAlpha => Self::PixArt(PixArt::Alpha),
            Model::PixArtSigma => Self::PixArt(PixArt::Sigma),
            Model::StableDiffusionXl => Self::Xl,
            Model::StableDiffusion3 => Self::Multimodal,
            Model::StableDiffusion
            | Model::StableDiffusionDepth
            | Model::Upscaler
            | Model::LatentConsistency
            | Model::LatentDiffusion
            | Model::PixelDiffusion => Self::Plain,
        })
    }

    /// The number of tokens that T5 reads in a model that no pipeline class is known for.
    pub(super) fn t5_length(self) -> Option<usize> {
        match self {
            Self::Plain | Self::Xl => None,
            Self::Multimodal => Some(256),
            Self::Flux => Some(512),
            Self::PixArt(pixart) => Some(pixart.tokens()),
        }
    }

    /// The group that an encoder's tokens belong to.
    pub(super) fn group(self, is_t5: bool) -> usize {
        usize::from(matches!(self, Self::Multimodal | Self::Flux) && is_t5)
    }

    /// What is taken of an encoder of which no layers are left out.
    pub(super) fn whole(self, component: &Component, signature: &TextEncoderSignature, of: Encoder) -> Result<Taken> {
        let (tokens, pooled) = match self {
            Self::Plain => (states(signature), None),
            Self::PixArt(_) => (Some(masked(component, signature, of)?.clone()), None),
            Self::Multimodal | Self::Flux if of.is_t5 => (states(signature), None),
            Self::Flux => (None, signature.pooled.clone()),
            // The projected text comes with the last encoder; what the first pools is not asked for.
            Self::Xl => {
                let pooled = signature.pooled.clone().filter(|_| of.is_last);
                (Some(penultimate(component, signature)?.clone()), pooled)
            }
            Self::Multimodal => {
                (Some(penultimate(component, signature)?.clone()), Some(projected(component, signature)?.clone()))
            }
        };
        Ok(Taken { tokens, norm: None, pooled })
    }

    /// What is taken of an encoder of which the last `skip` layers are left out.
    ///
    /// # Errors
    /// [`Error::Input`] where nothing is read of the layers, or there are not as many; [`Error::Model`] where the graph
    /// does not give their states.
    pub(super) fn skipping(
        self,
        component: &Component,
        signature: &TextEncoderSignature,
        skip: usize,
        whole: &Taken,
        wanted_for: &str,
    ) -> Result<Taken> {
        if whole.tokens.is_none() {
            return Err(Error::input(
                "clip_skip",
                format!("{skip} is given, and the model reads one vector of {} and no layer's states", component.kind),
                "leave the key out",
            ));
        }
        skipped(component, signature, skip, self != Self::Plain, whole, wanted_for)
    }

    /// The zeros that stand for T5's states, `[tokens, width]`, in a model without it.
    ///
    /// # Errors
    /// [`Error::Model`] where `model_index.json` names a T5 that is not there, or where nothing tells the width.
    pub(super) fn blank(
        self,
        bundle: &Bundle,
        denoiser: &DenoiserSignature,
        length: Option<usize>,
    ) -> Result<Option<[usize; 2]>> {
        let Some(length) = length.filter(|_| self == Self::Multimodal) else { return Ok(None) };
        let named = format!("{}/", ComponentKind::TextEncoder3);
        if let Some(missing) = bundle.missing.iter().find(|missing| missing.starts_with(&named)) {
            return Err(Error::model(
                &bundle.dir,
                format!("lacks {missing}"),
                "export it too, or to run without it set \"text_encoder_3\" and \"tokenizer_3\" to [null, null] in \
                 model_index.json",
            ));
        }
        let component = bundle.denoiser()?;
        let stated = component.config.get("joint_attention_dim").and_then(serde_json::Value::as_u64);
        let width = denoiser.context_width().or(stated.and_then(|width| usize::try_from(width).ok()));
        match width.filter(|width| (1..=65_536).contains(width)) {
            Some(width) => Ok(Some([length, width])),
            None => Err(Error::model(
                &component.graph.path,
                "there is no text_encoder_3, and nothing says how wide the zeros in its place are to be",
                "export text_encoder_3 too, or keep the transformer's config.json (joint_attention_dim)",
            )),
        }
    }
}

/// Which of a model's text encoders one is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoder {
    pub(super) is_t5: bool,
    pub(super) is_last: bool,
}

fn states(signature: &TextEncoderSignature) -> Option<TensorInfo> {
    signature.last_hidden_state.clone().or_else(|| signature.pooled.clone())
}

/// The states that T5 gives under a mask.
fn masked<'c>(component: &Component, signature: &'c TextEncoderSignature, of: Encoder) -> Result<&'c TensorInfo> {
    let at_fault = |problem: &str, help: &str| {
        let problem = format!("the denoiser is told which tokens are padding, and {} {problem}", component.kind);
        Err(Error::model(&component.graph.path, problem, help))
    };
    if !of.is_t5 || !of.is_last || component.kind != ComponentKind::TextEncoder {
        return at_fault("is not a lone T5, as PixArt's is", "other models with such a mask are not run");
    }
    if signature.attention_mask.is_none() {
        return at_fault(
            "is not: it has no input attention_mask",
            "export it with one, as scripts/export.py does for PixArt; without, other images would be drawn",
        );
    }
    match &signature.last_hidden_state {
        Some(states) => Ok(states),
        None => at_fault("gives no state for each of them", "export it with its last_hidden_state"),
    }
}

/// The pooled text behind its projection, which an encoder exported without it gives as well, unprojected.
fn projected<'c>(component: &Component, signature: &'c TextEncoderSignature) -> Result<&'c TensorInfo> {
    signature.pooled.as_ref().filter(|pooled| pooled.name != "pooler_output").ok_or_else(|| {
        Error::model(
            &component.graph.path,
            format!("the denoiser is told the projected text of {}, and this graph does not give it", component.kind),
            "export the text encoder with its projection (CLIPTextModelWithProjection, output text_embeds)",
        )
    })
}
