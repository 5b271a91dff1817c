//! A model directory, resolved for one task: the graphs that are opened, and the roles of their inputs and outputs.

use std::path::PathBuf;

use super::classes;
use super::conditions::ConditionPart;
use super::control::ControlPart;
use super::default_value::DefaultValue;
use super::packed;
use super::part::{Part, between_whole_times, part};
use super::preview::{self, PreviewPlan, PreviewSource};
use super::requirements::TaskRequirements;
use super::shallow::ShallowPlan;
use super::sources::{ModelDirectory, ModelSources};
use super::text::TextPlan;
use crate::bundle::{
    Bundle, Component, ComponentKind, ConditionerSignature, DenoiserSignature, GraphFile, Role, VaeDecoderSignature,
    VaeEncoderSignature,
};
use crate::error::Result;
use crate::family::Defaults;
use crate::lora::Lora;
use crate::spec::{self, Spec};
use crate::task::{Rounding, Task, TaskModel, unused_negative_prompt};
use crate::tensor::Weight;
use crate::vae::Scaling;

/// A model directory, resolved for one task. It is not changed once it is made.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    /// The model directory.
    pub dir: PathBuf,
    /// The facts about the model that the task needs, among them the roles of the denoiser's inputs.
    pub model: TaskModel,
    /// The configuration and tokenizer files that the model was read from: the name in the model directory, and the path.
    pub configuration: Vec<(String, PathBuf)>,
    /// The denoiser.
    pub denoiser: Part<()>,
    /// Its shallow layers, where a cache runs them alone.
    pub shallow: Option<ShallowPlan>,
    /// The text encoders, where the task has prompts.
    pub text: Option<TextPlan>,
    /// The graph that turns classes into tokens, where the task has classes and the denoiser attends to tokens.
    pub class_embedder: Option<Part<ConditionerSignature>>,
    /// The conditions other than prompts.
    pub conditions: Vec<ConditionPart>,
    /// The control networks.
    pub controls: Vec<ControlPart>,
    /// The VAE's encoder, where the task starts from an image.
    pub encoder: Option<Part<VaeEncoderSignature>>,
    /// The VAE's decoder, or the small one in its place; absent for a model that works on pixels.
    pub decoder: Option<Part<VaeDecoderSignature>>,
    /// The scaling of that decoder's latents.
    pub decoder_scaling: Scaling,
    /// The previews that are made on the way, where they are asked for.
    pub preview: Option<PreviewPlan>,
    /// f: pixels a side for one latent.
    pub spatial_factor: usize,
    /// c: channels of a sample.
    pub channels: usize,
    /// The VAEs in half precision that run in float32 ([`Bundle::needs_float32`]).
    ///
    /// [`Bundle::needs_float32`]: crate::bundle::Bundle::needs_float32
    pub upcast: Vec<ComponentKind>,
    /// The LoRAs added to the graphs' weights, in this order.
    pub loras: Vec<Lora>,
    /// The values of the keys that the pipeline file leaves open, with their sources.
    pub defaults: Vec<DefaultValue>,
    /// Remarks on the pipeline file with this model, a sentence each.
    pub(super) remarks: Vec<String>,
}

/// The VAEs that compute in half precision, and that diffusers runs in float32.
fn upcast(bundle: &Bundle) -> Vec<ComponentKind> {
    let vaes = [ComponentKind::VaeEncoder, ComponentKind::VaeDecoder];
    let upcasts = |component: &&Component| component.graph.multiplies_in_half() && bundle.needs_float32(component);
    vaes.into_iter().filter_map(|kind| bundle.component(kind)).filter(upcasts).map(|component| component.kind).collect()
}

impl ModelPlan {
    /// Resolves what `task` needs from a model directory.
    pub(super) fn new(
        spec: &Spec,
        (directory, sources): (&ModelDirectory, &ModelSources),
        task: &dyn Task,
        defaults: Defaults,
    ) -> Result<Self> {
        let bundle = &directory.bundle;
        let wanted_for = format!("[task.{}]", task.name());
        let component = if spec.controls.is_empty() { bundle.denoiser()? } else { bundle.denoiser_under_control()? };
        let mut signature = DenoiserSignature::resolve(component)?;
        let edits = between_whole_times(&component.graph, &mut signature.timestep);
        let scaling = scaling(spec, bundle, task);
        let (decoder, decoder_scaling) = preview::decoder(spec, bundle, scaling, &wanted_for)?.unzip();
        let encoder = encoder(bundle, task, &wanted_for)?;
        let conditions = ConditionPart::all(&spec.conditions, (bundle, sources), spec.run.input_limit())?;
        let requirements = TaskRequirements {
            task,
            bundle,
            component,
            signature: &signature,
            wanted_for: &wanted_for,
            conditions: &conditions,
        };
        let concatenated = requirements.check_channels()?;
        packed::check(task, component, &signature)?;
        let remarks = packed::remark(task, bundle, &signature).into_iter().collect();
        let class_embedder = class_embedder(bundle, task, &signature, &wanted_for)?;
        requirements.fills_inputs(class_embedder.is_some())?;
        let (embeddings, t5) = (&spec.textual_inversions, defaults.max_sequence_length);
        let text = |prompting| TextPlan::new((bundle, sources), &signature, prompting, embeddings, t5, &wanted_for);
        let text = task.prompting().map(text).transpose()?;
        let classes =
            |request| classes::resolve(task.name(), request, (bundle, sources), &signature, class_embedder.as_ref());
        let classes = task.classes().map(classes).transpose()?;
        let controls = ControlPart::all(spec, (bundle, sources), component, &signature)?;
        Ok(Self {
            dir: bundle.dir.clone(),
            configuration: directory.configuration.clone(),
            model: TaskModel {
                scaling,
                concatenated,
                scales_followed_image: bundle.scales_followed_image(),
                packed_images: packed::packed_images(task, bundle, &signature),
                zeros_for_no_prompt: text.as_ref().is_some_and(|text| text.zeros_for_no_prompt),
                classes,
                low_res: requirements.low_res()?,
                rounding: if signature.is_multimodal() { Rounding::Up } else { Rounding::Down },
                denoiser: signature,
                defaults,
            },
            denoiser: Part { edits, ..part(component, ()) },
            shallow: ShallowPlan::new(spec.cache.as_ref(), &component.graph, sources)?,
            text,
            class_embedder,
            conditions,
            controls,
            encoder,
            decoder,
            decoder_scaling: decoder_scaling.unwrap_or(scaling),
            preview: preview::previews(spec, bundle, scaling)?,
            spatial_factor: bundle.facts.spatial_factor.value,
            channels: bundle.facts.latent_channels.value,
            upcast: upcast(bundle),
            loras: spec.loras.iter().map(lora).collect(),
            defaults: Vec::new(),
            remarks,
        })
    }

    /// Requires that every prompt of `task` becomes ids that the text encoders know, and tells of those that are too
    /// long for them.
    ///
    /// # Errors
    /// [`Error::Model`](crate::error::Error::Model) naming the first id beyond an encoder's embedding.
    pub fn check_prompts(&self, task: &dyn Task) -> Result<Vec<String>> {
        match (&self.text, task.prompting()) {
            (Some(text), Some(prompting)) => {
                let unheeded = unused_negative_prompt(prompting, &self.model.denoiser);
                Ok(text.check_prompts(prompting, &self.model.denoiser)?.into_iter().chain(unheeded).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Returns warnings about the pipeline file on this model.
    pub fn warnings(&self) -> Vec<String> {
        let of_encoder = self.encoder.iter().filter_map(|part| part.signature.warning(part.kind));
        of_encoder.chain(self.remarks.iter().cloned()).collect()
    }

    /// `[c, h/f, w/f]` of a sample for images of this size.
    pub fn sample_shape(&self, width: usize, height: usize) -> [usize; 3] {
        [self.channels, height / self.spatial_factor, width / self.spatial_factor]
    }

    /// The graphs of the components that are opened, in the order in which an image needs them.
    pub fn graphs(&self) -> Vec<(ComponentKind, &GraphFile)> {
        fn of<C>(part: &Part<C>) -> (ComponentKind, &GraphFile) {
            (part.kind, &part.graph)
        }
        let text = self.text.iter().flat_map(|text| &text.encoders);
        let mut graphs: Vec<_> = text.map(|text| of(&text.part)).collect();
        graphs.extend(self.class_embedder.iter().map(of));
        graphs.extend(self.conditions.iter().filter_map(|condition| condition.part.as_ref().map(of)));
        graphs.extend(self.encoder.iter().map(of));
        graphs.extend(self.controls.iter().map(|control| of(&control.part)));
        graphs.push(of(&self.denoiser));
        graphs.extend(self.decoder.iter().map(of));
        graphs
    }

    /// The vectors of words of a user's own, for the text encoder that this is.
    ///
    /// # Errors
    /// As [`TokenTable::append_rows`](crate::bundle::TokenTable::append_rows).
    pub fn added_weight(&self, kind: ComponentKind, graph: &GraphFile) -> Result<Option<Weight>> {
        let text = self.text.iter().flat_map(|text| &text.encoders).find(|text| text.part.kind == kind);
        text.and_then(|text| text.added_tokens.as_ref()).map(|tokens| tokens.weight(graph)).transpose()
    }

    /// The number of tokens that the denoiser attends to; `None` if it is not the same for every prompt and condition.
    pub(super) fn tokens(&self) -> Option<usize> {
        let text = self.text.as_ref().filter(|_| !self.conditions.iter().any(ConditionPart::is_tokens))?;
        text.tokens().filter(|&tokens| tokens > 0)
    }

    /// True if a tiny autoencoder decodes the images instead of the VAE.
    pub fn decodes_tiny(&self) -> bool {
        self.decoder.as_ref().is_some_and(|part| part.kind == ComponentKind::TinyVaeDecoder)
    }

    /// The decoder that previews are made by, where there is one.
    pub fn preview_decoder(&self) -> Option<&Part<VaeDecoderSignature>> {
        match self.preview.as_ref().map(|preview| &preview.source) {
            Some(PreviewSource::Small(part, _)) => Some(part),
            _ => None,
        }
    }
}

/// The VAE's encoder, if the task starts from an image.
fn encoder(bundle: &Bundle, task: &dyn Task, wanted_for: &str) -> Result<Option<Part<VaeEncoderSignature>>> {
    if !task.needs_encoder() {
        return Ok(None);
    }
    let component = bundle.require_encoder(wanted_for)?;
    let signature = VaeEncoderSignature::resolve(component, Some(bundle.facts.latent_channels.value))?;
    Ok(Some(part(component, signature)))
}

/// The graph that turns classes into tokens, if the task has classes and the denoiser attends to tokens.
fn class_embedder(
    bundle: &Bundle,
    task: &dyn Task,
    denoiser: &DenoiserSignature,
    wanted_for: &str,
) -> Result<Option<Part<ConditionerSignature>>> {
    if task.classes().is_none() || !denoiser.takes(Role::Context) {
        return Ok(None);
    }
    let component = bundle.require(ComponentKind::ClassEmbedder, wanted_for)?;
    Ok(Some(part(component, ConditionerSignature::resolve(component)?)))
}

fn lora(spec: &spec::LoraSpec) -> Lora {
    Lora {
        path: spec.path.clone(),
        denoiser_scale: spec.unet_scale.unwrap_or(spec.scale),
        text_encoder_scale: spec.text_encoder_scale.unwrap_or(spec.scale),
    }
}

/// The scaling of the latents.
fn scaling(spec: &Spec, bundle: &Bundle, task: &dyn Task) -> Scaling {
    let facts = &bundle.facts;
    let factor = if task.has_unscaled_latents(facts.autoencoder) {
        spec.model.scaling_factor.unwrap_or(1.0)
    } else {
        facts.scaling_factor.value
    };
    Scaling { factor, shift: facts.shift_factor.value }
}
