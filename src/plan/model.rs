//! What a pipeline opens.

use std::path::PathBuf;

use super::classes;
use super::conditions::ConditionPart;
use super::control::ControlPart;
use super::defaults::DefaultValue;
use super::memory_budget::MemoryBudget;
use super::packed;
use super::preview::{self, PreviewPlan};
use super::requirements::TaskRequirements;
use super::shallow::ShallowPlan;
use super::sizes::Sizes;
use super::sources::{ModelDirectory, ModelSources};
use super::text::TextPlan;
use crate::bundle::{
    Bundle, Component, ComponentKind, ConditionerSignature, DenoiserSignature, GraphFile, Role, VaeDecoderSignature,
    VaeEncoderSignature,
};
use crate::error::Result;
use crate::family::Defaults;
use crate::graph_cache::{GraphCache, Rows};
use crate::lora::Lora;
use crate::spec::{self, DeviceSpec, Spec};
use crate::task::{Rounding, Task, TaskModel, unused_negative_prompt};
use crate::tensor::{ByteEdit, DType, TensorInfo};
use crate::vae::Scaling;

/// A graph that will be opened, and what its inputs and outputs are for.
#[derive(Debug, Clone)]
pub struct Part<C> {
    /// Which component it is.
    pub kind: ComponentKind,
    /// The graph.
    pub graph: GraphFile,
    /// The roles of its inputs and outputs.
    pub signature: C,
    /// What is read otherwise when the graph is opened.
    pub edits: Vec<ByteEdit>,
}

/// What a pipeline opens.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    /// The model directory.
    pub dir: PathBuf,
    /// What the task has to know of the model, the roles of the denoiser's inputs among it.
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
    /// What the image is to show other than in words.
    pub conditions: Vec<ConditionPart>,
    /// The control networks.
    pub controls: Vec<ControlPart>,
    /// The VAE's encoder, where the task starts from an image.
    pub encoder: Option<Part<VaeEncoderSignature>>,
    /// The VAE's decoder, or the small one in its place; absent for a model that works on pixels.
    pub decoder: Option<Part<VaeDecoderSignature>>,
    /// How the latents of that decoder are scaled.
    pub decoder_scaling: Scaling,
    /// The previews that are made on the way, where they are asked for.
    pub preview: Option<PreviewPlan>,
    /// f: pixels a side for one latent.
    pub spatial_factor: usize,
    /// c: channels of a sample.
    pub channels: usize,
    /// The sizes of the request that the graphs are opened for; `None` opens them for any.
    pub sizes: Option<Sizes>,
    /// Providers and threads.
    pub device: DeviceSpec,
    /// What was measured of the denoiser's rows on this machine, where anything was.
    pub measured: Option<Rows>,
    /// What is given up for memory, where that is kept within bounds.
    pub memory_budget: Option<MemoryBudget>,
    /// What is added to the graphs' weights, in this order.
    pub loras: Vec<Lora>,
    /// Where graphs are kept that were optimized for this machine; `None` opens them as they lie. Whoever runs the plan
    /// says so.
    pub prepared: Option<GraphCache>,
    /// The values of the keys that the pipeline file leaves open, with their sources.
    pub defaults: Vec<DefaultValue>,
    /// What is worth knowing of the pipeline file beside this model, a sentence each.
    pub(super) remarks: Vec<String>,
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
        let (decoder, decoder_scaling) = match preview::decoder(spec, bundle, scaling, &wanted_for)? {
            Some((part, scaling)) => (Some(part), scaling),
            None => (None, scaling),
        };
        let encoder = if task.needs_encoder() {
            let component = bundle.require_encoder(&wanted_for)?;
            Some(part(component, VaeEncoderSignature::resolve(component, Some(bundle.facts.latent_channels.value))?))
        } else {
            None
        };
        let conditions = ConditionPart::all(&spec.conditions, (bundle, sources), spec.run.input_limit())?;
        let requirements = TaskRequirements {
            task,
            bundle,
            component,
            signature: &signature,
            wanted_for: &wanted_for,
            conditions: &conditions,
        };
        let concatenated = requirements.concatenated()?;
        requirements.out_channels()?;
        requirements.plain_scaling()?;
        packed::check(task, component, &signature)?;
        let remarks = packed::remark(task, bundle, &signature).into_iter().collect();
        let class_embedder = match (task.classes(), signature.input(Role::Context)) {
            (Some(_), Some(_)) => {
                let component = bundle.require(ComponentKind::ClassEmbedder, &wanted_for)?;
                Some(part(component, ConditionerSignature::resolve(component)?))
            }
            _ => None,
        };
        requirements.fills_inputs(class_embedder.is_some())?;
        let text = match task.prompting() {
            Some(prompting) => {
                let t5 = defaults.max_sequence_length;
                Some(TextPlan::new(
                    (bundle, sources),
                    &signature,
                    prompting,
                    &spec.textual_inversions,
                    t5,
                    &wanted_for,
                )?)
            }
            None => None,
        };
        let classes = match task.classes() {
            Some(request) => {
                Some(classes::resolve(task.name(), request, (bundle, sources), &signature, class_embedder.as_ref())?)
            }
            None => None,
        };
        let of_control = spec.model.components.get(&ComponentKind::ControlNet);
        let roles = of_control.map(|component| component.inputs.clone()).unwrap_or_default();
        let controls = ControlPart::all(spec, &roles, (bundle, sources), component, &signature)?;
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
            decoder_scaling,
            preview: preview::previews(spec, bundle, scaling)?,
            spatial_factor: bundle.facts.spatial_factor.value,
            channels: bundle.facts.latent_channels.value,
            sizes: None,
            device: spec.device.clone(),
            loras: spec.loras.iter().map(lora).collect(),
            measured: None,
            memory_budget: None,
            prepared: None,
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

    /// What is worth knowing before a run.
    pub fn warnings(&self) -> Vec<String> {
        let of_encoder = self.encoder.iter().filter_map(|part| part.signature.warning(part.kind));
        let own = [self.memory_budget_warning(), self.threads_warning()].into_iter().flatten();
        of_encoder.chain(self.remarks.iter().cloned()).chain(own).collect()
    }

    /// `[c, h/f, w/f]` of a sample for images of this size.
    pub fn sample_shape(&self, width: usize, height: usize) -> [usize; 3] {
        [self.channels, height / self.spatial_factor, width / self.spatial_factor]
    }
}

fn lora(spec: &spec::LoraSpec) -> Lora {
    Lora {
        path: spec.path.clone(),
        denoiser_scale: spec.unet_scale.unwrap_or(spec.scale),
        text_encoder_scale: spec.text_encoder_scale.unwrap_or(spec.scale),
    }
}

pub(super) fn part<C>(component: &Component, signature: C) -> Part<C> {
    Part { kind: component.kind, graph: component.graph.clone(), signature, edits: Vec::new() }
}

/// Makes the input for the timestep take times between whole ones, where the graph lets it.
pub(super) fn between_whole_times(graph: &GraphFile, timestep: &mut TensorInfo) -> Vec<ByteEdit> {
    let edit = graph.float_inputs.get(&timestep.name);
    if edit.is_some() {
        timestep.dtype = DType::F32;
    }
    edit.copied().into_iter().collect()
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
