//! The outputs of text encoders that the denoisers of a family read.

use super::states::{penultimate, skipped};
use crate::bundle::{Bundle, Component, ComponentKind, DenoiserSignature, TextEncoderSignature};
use crate::error::{Error, Result};
use crate::family::{TextForm, TextReading, TokenizerKind};
use crate::task::PromptReading;
use crate::tensor::TensorInfo;
use crate::text::EncoderOutputs;

/// The reading of a family's text encoders.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    title: &'static str,
    form: TextForm,
    /// The number of tokens that an encoder without a length of its own reads, if no pipeline class says so.
    pub(super) tokens: Option<usize>,
    /// The lines before every prompt but a negative one.
    instruction: &'static [&'static str],
}

impl Reading {
    /// That of a model's family.
    ///
    /// # Errors
    /// [`Error::Model`] where the model has none.
    pub(super) fn of(bundle: &Bundle) -> Result<Self> {
        let row = bundle.family()?.row();
        let TextReading { form, tokens, instruction } = row.text;
        Ok(Self { title: row.title, form, tokens, instruction })
    }

    /// The text before every prompt but a negative one: that of the pipeline file, or the family's.
    pub(super) fn instruction(self, reading: &PromptReading) -> Option<String> {
        let own = || self.instruction.join("\n");
        let text = reading.complex_human_instruction.clone().unwrap_or_else(own);
        Some(text).filter(|text| !self.instruction.is_empty() && !text.is_empty())
    }

    /// Requires that the pipeline file has no instruction for a family that reads none.
    pub(super) fn check_instruction(self, reading: &PromptReading) -> Result<()> {
        match reading.complex_human_instruction.as_ref().filter(|_| self.instruction.is_empty()) {
            None => Ok(()),
            Some(_) => Err(Error::input(
                "complex_human_instruction",
                format!("is given, and models of {} read none", self.title),
                "leave the key out",
            )),
        }
    }

    /// True if padding is told apart from the prompt's tokens.
    pub(super) fn is_masked(self) -> bool {
        self.form.is_masked()
    }

    /// The group that an encoder's tokens belong to.
    pub(super) fn group(self, kind: TokenizerKind) -> usize {
        let stands_apart = matches!(self.form, TextForm::Multimodal | TextForm::PooledAndT5);
        usize::from(stands_apart && !kind.is_pooled())
    }

    /// What is taken of an encoder of which no layers are left out.
    pub(super) fn whole(
        self,
        component: &Component,
        signature: &TextEncoderSignature,
        of: EncoderPlace,
    ) -> Result<EncoderOutputs> {
        let (tokens, pooled) = match self.form {
            TextForm::Last => (states(signature), None),
            TextForm::Masked(kind) => (Some(self.masked(component, signature, of, kind)?.clone()), None),
            TextForm::Multimodal | TextForm::PooledAndT5 if !of.kind.is_pooled() => (states(signature), None),
            TextForm::PooledAndT5 => (None, signature.pooled.clone()),
            // The projected text comes with the last encoder; what the first pools is not asked for.
            TextForm::Penultimate => {
                let pooled = signature.pooled.clone().filter(|_| of.is_last);
                (Some(penultimate(component, signature)?.clone()), pooled)
            }
            TextForm::Multimodal => {
                (Some(penultimate(component, signature)?.clone()), Some(projected(component, signature)?.clone()))
            }
        };
        Ok(EncoderOutputs { tokens, norm: None, pooled })
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
        whole: &EncoderOutputs,
        wanted_for: &str,
    ) -> Result<EncoderOutputs> {
        if whole.tokens.is_none() {
            return Err(Error::input(
                "clip_skip",
                format!("{skip} is given, and the model reads one vector of {} and no layer's states", component.kind),
                "leave the key out",
            ));
        }
        skipped(component, signature, skip, self.form != TextForm::Last, whole, wanted_for)
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
        let Some(length) = length.filter(|_| self.form == TextForm::Multimodal) else { return Ok(None) };
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

    /// The states that a lone encoder gives under a mask.
    fn masked<'c>(
        self,
        component: &Component,
        signature: &'c TextEncoderSignature,
        of: EncoderPlace,
        kind: TokenizerKind,
    ) -> Result<&'c TensorInfo> {
        let at_fault = |problem: &str, help: &str| {
            let problem = format!("the denoiser is told which tokens are padding, and {} {problem}", component.kind);
            Err(Error::model(&component.graph.path, problem, help))
        };
        if of.kind != kind || !of.is_last || component.kind != ComponentKind::TextEncoder {
            return at_fault(
                &format!("is not a lone {}, as that of {}", kind.name(), self.title),
                "other models with such a mask are not run",
            );
        }
        if signature.attention_mask.is_none() {
            return at_fault(
                "is not: it has no input attention_mask",
                "export it with one, as scripts/export.py does; without, other images would be drawn",
            );
        }
        match &signature.last_hidden_state {
            Some(states) => Ok(states),
            None => at_fault("gives no state for each of them", "export it with its last_hidden_state"),
        }
    }
}

/// Which of a model's text encoders one is.
#[derive(Debug, Clone, Copy)]
pub(super) struct EncoderPlace {
    pub(super) kind: TokenizerKind,
    pub(super) is_last: bool,
}

fn states(signature: &TextEncoderSignature) -> Option<TensorInfo> {
    signature.last_hidden_state.clone().or_else(|| signature.pooled.clone())
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
