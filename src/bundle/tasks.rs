//! Which tasks a model directory can do.

use super::roles::DenoiserContract;
use super::{Autoencoder, Bundle, ComponentKind};

/// Whether a model can do a task.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TaskFit {
    /// The task's name in pipeline.toml, such as `text-to-image`.
    pub task: &'static str,
    /// Whether the directory has what it takes.
    pub possible: bool,
    /// Why not; empty where it can.
    pub reason: String,
}

/// Tells for each task whether this model can do it, the task it was made for first.
pub fn task_fits(bundle: &Bundle) -> Vec<TaskFit> {
    let model = match bundle.family().and_then(|_| bundle.denoiser()).and_then(DenoiserContract::resolve) {
        Ok(contract) => Model::new(bundle, &contract),
        Err(error) => {
            let reason = error.to_string().lines().next().unwrap_or_default().to_owned();
            return TASKS.iter().map(|t| TaskFit { task: t.0, possible: false, reason: reason.clone() }).collect();
        }
    };
    let mut tasks = TASKS;
    if model.is_packed && model.follows_packed_image == Some(true) {
        tasks.sort_by_key(|(task, _)| *task != "instruct");
    }
    tasks
        .iter()
        .map(|&(task, judge)| {
            let verdict = judge(&model);
            TaskFit { task, possible: verdict.is_ok(), reason: verdict.err().unwrap_or_default() }
        })
        .collect()
}

/// What of a model decides its tasks.
struct Model {
    in_channels: usize,
    latent_channels: usize,
    text: Result<(), String>,
    encoder: Result<(), String>,
    decoder: Result<(), String>,
    has_context: bool,
    has_classes: bool,
    embeds_classes: bool,
    /// The folders of the directory with graphs for other conditions.
    conditioners: Vec<String>,
    is_refiner: bool,
    in_pixels: bool,
    /// Whether samples are packed into tokens, as Flux's are.
    is_packed: bool,
    /// True if the model is trained to follow an image packed behind the sample; `None` if no name tells.
    follows_packed_image: Option<bool>,
}

type Judge = fn(&Model) -> Result<(), String>;

const TASKS: [(&str, Judge); 8] = [
    ("text-to-image", text_to_image),
    ("image-to-image", image_to_image),
    ("inpaint", inpaint),
    ("instruct", instruct),
    ("super-resolution", super_resolution),
    ("class-conditional", class_conditional),
    ("conditional", conditional),
    ("unconditional", unconditional),
];

impl Model {
    fn new(bundle: &Bundle, contract: &DenoiserContract) -> Self {
        let latent_channels = bundle.facts.latent_channels.value;
        let in_pixels = bundle.facts.autoencoder == Autoencoder::Pixels;
        let need = |there: bool, what: &str| if there { Ok(()) } else { Err(format!("the directory has no {what}")) };
        let has_tokenizer = bundle.text_encoders().any(|e| bundle.tokenizer(e.kind).is_some());
        let text = if contract.context.is_none() {
            Err("the denoiser takes no text".to_owned())
        } else {
            need(bundle.text_encoders().next().is_some(), "text encoder")
                .and_then(|()| need(has_tokenizer, "tokenizer"))
        };
        Self {
            in_channels: contract.in_channels.unwrap_or(latent_channels),
            latent_channels,
            text,
            encoder: need(bundle.encoder().is_some() || in_pixels, "VAE's encoder"),
            decoder: need(bundle.decoder().is_some() || in_pixels, "VAE's decoder"),
            has_context: contract.context.is_some(),
            has_classes: contract.class_labels.is_some(),
            embeds_classes: bundle.component(ComponentKind::ClassEmbedder).is_some(),
            conditioners: bundle.conditioners.clone(),
            is_refiner: contract.time_ids_width() == Some(5),
            in_pixels,
            is_packed: contract.positions.is_some(),
            follows_packed_image: bundle.named_family().map(|family| family.row().follows_packed_image),
        }
    }

    /// Checks that the denoiser takes this many channels beside the latents'.
    fn extra(&self, wanted: usize, what: &str) -> Result<(), String> {
        let expected = self.latent_channels.saturating_add(wanted);
        if self.in_channels == expected {
            return Ok(());
        }
        Err(format!("the denoiser takes {} channels, not {expected} ({what})", self.in_channels))
    }
}

fn text_to_image(m: &Model) -> Result<(), String> {
    m.extra(0, "latents alone")?;
    if m.embeds_classes {
        return Err("the denoiser wants classes".to_owned());
    }
    if m.is_refiner {
        return Err("the model is a refiner: it finishes images that another model began".to_owned());
    }
    m.text.clone().and(m.decoder.clone())
}

/// Models that are told the depth take one channel more, which a `[[condition]]` gives.
fn image_to_image(m: &Model) -> Result<(), String> {
    let what = "latents alone";
    m.extra(0, what).or_else(|problem| m.extra(1, what).map_err(|_| problem))?;
    m.text.clone().and(m.encoder.clone()).and(m.decoder.clone())
}

fn inpaint(m: &Model) -> Result<(), String> {
    let what = "latents, mask and masked latents";
    m.extra(0, what).or_else(|_| m.extra(m.latent_channels.saturating_add(1), what))?;
    let text = if m.has_context || m.in_channels == m.latent_channels { m.text.clone() } else { Ok(()) };
    text.and(m.encoder.clone()).and(m.decoder.clone())
}

fn instruct(m: &Model) -> Result<(), String> {
    if !m.is_packed {
        m.extra(m.latent_channels, "latents twice")?;
    } else if m.follows_packed_image == Some(false) {
        return Err("the model is not trained to follow an image".to_owned());
    }
    if m.in_pixels {
        return Err("the model has no VAE".to_owned());
    }
    m.text.clone().and(m.encoder.clone()).and(m.decoder.clone())
}

fn super_resolution(m: &Model) -> Result<(), String> {
    m.extra(3, "latents and the small image")?;
    if let Some(conditioner) = m.conditioners.first() {
        return Err(format!("the denoiser's further channels are those of {conditioner}/"));
    }
    if m.in_pixels {
        return Err("the model has no VAE".to_owned());
    }
    if m.has_context { m.text.clone().and(m.decoder.clone()) } else { m.decoder.clone() }
}

fn class_conditional(m: &Model) -> Result<(), String> {
    m.extra(0, "latents alone")?;
    match (m.has_context, m.embeds_classes, m.has_classes) {
        (true, true, _) | (false, _, true) => m.decoder.clone(),
        (true, false, _) => Err("the denoiser wants text".to_owned()),
        (false, _, false) => Err("the denoiser takes no class".to_owned()),
    }
}

fn conditional(m: &Model) -> Result<(), String> {
    if m.conditioners.is_empty() {
        return Err("the directory has no graph for another condition".to_owned());
    }
    m.decoder.clone()
}

fn unconditional(m: &Model) -> Result<(), String> {
    m.extra(0, "latents alone")?;
    if m.has_context || m.has_classes {
        return Err("the denoiser wants a condition".to_owned());
    }
    m.decoder.clone()
}
