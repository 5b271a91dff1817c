//! What a pipeline opens.

use std::path::PathBuf;
use std::sync::Arc;

use crate::bundle::{
    Bundle, Component, ComponentKind, DenoiserContract, GraphFile, TextEncoderContract, VaeDecoderContract,
    VaeEncoderContract,
};
use crate::error::{Error, Result};
use crate::latent::Scaling;
use crate::lora::Lora;
use crate::session::{ProviderChoice, SessionOptions};
use crate::spec::{self, Device, Spec};
use crate::task::Task;
use crate::text::{require_embedded, tokenizer::Tokenizer};

/// A graph that will be opened, and what its inputs and outputs are for.
#[derive(Debug, Clone)]
pub struct Part<C> {
    /// Which component it is.
    pub kind: ComponentKind,
    /// The graph.
    pub graph: GraphFile,
    /// The roles of its inputs and outputs.
    pub contract: C,
}

/// A text encoder and its tokenizer.
#[derive(Debug, Clone)]
pub struct TextPart {
    /// The graph.
    pub part: Part<TextEncoderContract>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
}

/// What a pipeline opens.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    /// The model directory.
    pub dir: PathBuf,
    /// The denoiser.
    pub denoiser: Part<DenoiserContract>,
    /// The text encoder, where the task has prompts.
    pub text: Option<TextPart>,
    /// The first stage's encoder, where the task starts from a picture.
    pub encoder: Option<Part<VaeEncoderContract>>,
    /// The first stage's decoder; absent for a model that works on pixels.
    pub decoder: Option<Part<VaeDecoderContract>>,
    /// The scaling of the latents.
    pub scaling: Scaling,
    /// f: pixels a side for one latent.
    pub spatial_factor: usize,
    /// c: channels of a sample.
    pub channels: usize,
    /// Providers and threads.
    pub device: Device,
    /// What is added to the graphs' weights, in this order.
    pub loras: Vec<Lora>,
}

impl ModelPlan {
    /// Resolves what `task` needs from a model directory.
    pub(super) fn new(spec: &Spec, bundle: &Bundle, task: &dyn Task) -> Result<Self> {
        let wanted_for = format!("[task.{}]", task.name());
        let denoiser = bundle.denoiser()?;
        let denoiser = part(denoiser, DenoiserContract::resolve(denoiser)?);
        let decoder = match bundle.require_decoder(&wanted_for)? {
            Some(component) => Some(part(component, VaeDecoderContract::resolve(component)?)),
            None => None,
        };
        let encoder = if task.needs_encoder() {
            let component = bundle.require_encoder(&wanted_for)?;
            Some(part(component, VaeEncoderContract::resolve(component, Some(bundle.facts.latent_channels.value))?))
        } else {
            None
        };
        let text = if task.needs_text() { Some(plan_text(bundle, &wanted_for)?) } else { None };
        let out_of_reach = unfilled(&denoiser.contract);
        if !out_of_reach.is_empty() {
            return Err(Error::model(
                &denoiser.graph.path,
                format!("{wanted_for} cannot fill {}", out_of_reach.join(", ")),
                "this version runs denoisers that take a sample, a timestep and the tokens of one text encoder",
            ));
        }
        let channels = bundle.facts.latent_channels.value;
        if let Some(taken) = denoiser.contract.in_channels.filter(|&taken| taken != channels) {
            return Err(Error::model(
                &denoiser.graph.path,
                format!(
                    "input {} takes {taken} channels, and the first stage's latents have {channels}: {wanted_for} has \
                     nothing to fill the other {} with",
                    denoiser.contract.sample.name,
                    taken.saturating_sub(channels)
                ),
                "such models (inpainting, instruction, upscaling, depth) need a task of their own, which this version lacks",
            ));
        }
        if let Some(given) = denoiser.contract.out_channels.filter(|&given| given != channels && given != 2 * channels)
        {
            return Err(Error::model(
                &denoiser.graph.path,
                format!(
                    "output {} gives {given} channels, and the first stage's latents have {channels}",
                    denoiser.contract.output.name
                ),
                "denoiser and first stage are not of one model, or [model] latent_channels is wrong",
            ));
        }
        if bundle.facts.latent_statistics.is_some() {
            return Err(Error::model(
                &bundle.dir,
                "its first stage scales each channel of the latents by itself (latents_mean, latents_std)",
                "this version scales all channels alike, and would draw wrong pictures",
            ));
        }
        check_context(&denoiser, text.as_ref(), &wanted_for)?;
        Ok(Self {
            dir: bundle.dir.clone(),
            denoiser,
            text,
            encoder,
            decoder,
            scaling: Scaling { factor: bundle.facts.scaling_factor.value, shift: bundle.facts.shift_factor.value },
            spatial_factor: bundle.facts.spatial_factor.value,
            channels,
            device: spec.device.clone(),
            loras: spec.loras.iter().map(lora).collect(),
        })
    }

    /// Requires that every prompt of `task` becomes ids that the text encoder knows, and tells of those that are too
    /// long for it.
    ///
    /// # Errors
    /// [`Error::Model`] naming the first id beyond the encoder's embedding.
    pub fn check_prompts(&self, task: &dyn Task) -> Result<Vec<String>> {
        let Some(text) = &self.text else { return Ok(Vec::new()) };
        let mut warnings = Vec::new();
        for prompt in task.prompts().iter().chain(task.negative_prompts()) {
            let encoding = text.tokenizer.encode(prompt)?;
            require_embedded(&encoding, &text.part.contract, &text.part.graph.path)?;
            warnings.extend(encoding.warning().filter(|warning| !warnings.contains(warning)));
        }
        Ok(warnings)
    }

    /// `[c, h/f, w/f]` of a sample for pictures of this size.
    pub fn sample_shape(&self, width: usize, height: usize) -> [usize; 3] {
        [self.channels, height / self.spatial_factor, width / self.spatial_factor]
    }

    /// How a component's session is opened.
    pub fn session_options(&self, kind: ComponentKind) -> SessionOptions {
        let choice = |name: &String| ProviderChoice {
            name: name.clone(),
            options: self.device.options.get(name).cloned().unwrap_or_default(),
        };
        SessionOptions {
            component: kind.name().to_owned(),
            providers: self.device.providers_of(kind).iter().map(choice).collect(),
            threads: self.device.threads,
            ..SessionOptions::default()
        }
    }

    /// The graphs that are opened.
    pub fn graphs(&self) -> Vec<(ComponentKind, &GraphFile)> {
        let mut graphs = Vec::new();
        if let Some(text) = &self.text {
            graphs.push((text.part.kind, &text.part.graph));
        }
        if let Some(part) = &self.encoder {
            graphs.push((part.kind, &part.graph));
        }
        graphs.push((self.denoiser.kind, &self.denoiser.graph));
        if let Some(part) = &self.decoder {
            graphs.push((part.kind, &part.graph));
        }
        graphs
    }
}

fn lora(spec: &spec::Lora) -> Lora {
    Lora {
        path: spec.path.clone(),
        denoiser_scale: spec.unet_scale.unwrap_or(spec.scale),
        text_encoder_scale: spec.text_encoder_scale.unwrap_or(spec.scale),
    }
}

fn part<C>(component: &Component, contract: C) -> Part<C> {
    Part { kind: component.kind, graph: component.graph.clone(), contract }
}

/// Requires that the denoiser attends to tokens exactly where the task has some, and to such as the encoder gives.
fn check_context(denoiser: &Part<DenoiserContract>, text: Option<&TextPart>, wanted_for: &str) -> Result<()> {
    let at_fault = |problem: String, help: &str| Err(Error::model(&denoiser.graph.path, problem, help));
    match (&denoiser.contract.context, text) {
        (Some(context), None) => at_fault(
            format!("{wanted_for} has no prompt, and input {} wants the tokens of one", context.name),
            "choose a task with a prompt, such as [task.text-to-image]",
        ),
        (None, Some(_)) => at_fault(
            format!("{wanted_for} has a prompt, and no input of this graph takes its tokens"),
            "choose [task.unconditional]",
        ),
        (Some(context), Some(text)) => {
            let (wanted, given) = (denoiser.contract.context_width(), text.part.contract.width());
            match wanted.zip(given).filter(|(wanted, given)| wanted != given) {
                Some((wanted, given)) => at_fault(
                    format!(
                        "input {} takes tokens of width {wanted}, and the text encoder gives {given}",
                        context.name
                    ),
                    "denoiser and text encoder are not of one model",
                ),
                None => Ok(()),
            }
        }
        (None, None) => Ok(()),
    }
}

/// The inputs of a denoiser that no task of this version fills.
pub fn unfilled(contract: &DenoiserContract) -> Vec<String> {
    let optional = [&contract.text_embeds, &contract.time_ids, &contract.timestep_cond, &contract.class_labels];
    let residuals = contract.residuals.down.iter().chain(&contract.residuals.mid);
    optional.into_iter().flatten().chain(residuals).map(ToString::to_string).collect()
}

fn plan_text(bundle: &Bundle, wanted_for: &str) -> Result<TextPart> {
    let component = bundle.component(ComponentKind::TextEncoder).ok_or_else(|| {
        Error::model(
            &bundle.dir,
            format!("{wanted_for} needs text_encoder, and the directory has none"),
            "choose [task.unconditional], or export the text encoder too",
        )
    })?;
    let tokenizer = bundle.tokenizer(component.kind).ok_or_else(|| {
        Error::model(
            bundle.dir.join("tokenizer"),
            format!("{wanted_for} needs a tokenizer: tokenizer.json, or vocab.json and merges.txt"),
            "copy the tokenizer/ folder of the checkpoint that was exported",
        )
    })?;
    let contract = TextEncoderContract::resolve(component)?;
    Ok(TextPart { part: part(component, contract), tokenizer: Arc::new(Tokenizer::open(tokenizer)?) })
}
