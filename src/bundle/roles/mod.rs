//! Which input of a graph plays which role.
//!
//! Exporters agree on few names, and on fewer ranks and element types. A role is looked for by the names it goes by,
//! then by what is left with the right rank; whatever nobody can fill is an error that shows a table, since a graph
//! that runs with an input guessed wrong makes images that are wrong in ways hard to see.

mod conditioner;
mod control;
mod denoiser;
mod text;
mod vae;

pub use conditioner::ConditionerContract;
pub use control::ControlNetContract;
pub use denoiser::{DenoiserContract, Positions, Residuals};
pub use text::TextEncoderContract;
pub use vae::{VaeDecoderContract, VaeEncoderContract, VaeEncoderKind};

use super::component::{Component, ComponentKind};
use super::onnx::GraphFile;
use crate::error::{Error, Result};
use crate::tensor::{DType, TensorInfo};

/// A boolean input left over from tracing, and what it is fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// The input.
    pub input: TensorInfo,
    /// Its value.
    pub value: bool,
}

/// The words under which a pipeline file gives roles to the inputs of a component's graph, in `[model.NAME] inputs`.
pub fn role_words(kind: ComponentKind) -> &'static [&'static str] {
    use ComponentKind as Kind;
    match kind {
        Kind::Unet => &["sample", "timestep", "context", "text_embeds", "time_ids", "timestep_cond", "class_labels"],
        Kind::Transformer => &[
            "sample",
            "timestep",
            "context",
            "context_mask",
            "text_embeds",
            "resolution",
            "aspect_ratio",
            "guidance",
            "img_ids",
            "txt_ids",
        ],
        Kind::TextEncoder | Kind::TextEncoder2 | Kind::TextEncoder3 => &["input_ids", "attention_mask"],
        Kind::VaeEncoder | Kind::VqEncoder => &["sample"],
        Kind::VaeDecoder | Kind::VqDecoder | Kind::TinyVaeDecoder => &["latent"],
        Kind::ControlNet => {
            &["sample", "timestep", "context", "control", "conditioning_scale", "text_embeds", "time_ids"]
        }
        Kind::ClassEmbedder | Kind::Conditioner | Kind::SafetyChecker => &[],
    }
}

/// The inputs of a graph that have no role yet.
struct Unassigned<'a> {
    component: &'a Component,
    left: Vec<&'a TensorInfo>,
    /// The inputs to which the pipeline file gives a role, by its word.
    mapped: Vec<(&'a str, &'a TensorInfo)>,
    /// The roles looked for, with what they asked for, for the table.
    tried: Vec<String>,
}

impl<'a> Unassigned<'a> {
    fn new(component: &'a Component) -> Self {
        let role = |input: &TensorInfo| component.roles.get(&input.name).map(String::as_str);
        let (mapped, left) = component.graph.inputs.iter().partition::<Vec<_>, _>(|input| role(input).is_some());
        let mapped = mapped.into_iter().filter_map(|input| Some((role(input)?, input))).collect();
        Self { component, left, mapped, tried: Vec::new() }
    }

    /// Takes the input that was given a role by one of these words, or has one of these names and this form.
    fn named(&mut self, names: &[&str], fits: impl Fn(&TensorInfo) -> bool) -> Option<TensorInfo> {
        self.tried.push(names.first().copied().unwrap_or_default().to_owned());
        if let Some(at) = self.mapped.iter().position(|(word, _)| names.contains(word)) {
            let (_, input) = self.mapped.get(at).filter(|(_, input)| fits(input))?;
            let input = (*input).clone();
            self.mapped.remove(at);
            return Some(input);
        }
        for name in names {
            if let Some(at) = self.left.iter().position(|i| i.name == *name && fits(i)) {
                return Some(self.left.remove(at).clone());
            }
        }
        None
    }

    /// Takes the input of this form, if exactly one is left.
    fn only(&mut self, fits: impl Fn(&TensorInfo) -> bool) -> Option<TensorInfo> {
        let mut at = self.left.iter().enumerate().filter(|(_, i)| fits(i)).map(|(at, _)| at);
        let (first, second) = (at.next()?, at.next());
        second.is_none().then(|| self.left.remove(first).clone())
    }

    /// Takes all inputs that `pick` gives a place.
    fn all<K: Ord>(&mut self, pick: impl Fn(&TensorInfo) -> Option<K>) -> Vec<(K, TensorInfo)> {
        let mut taken: Vec<(K, TensorInfo)> =
            self.left.iter().filter_map(|i| pick(i).map(|k| (k, (*i).clone()))).collect();
        self.left.retain(|i| pick(i).is_none());
        taken.sort_by(|a, b| a.0.cmp(&b.0));
        taken
    }

    /// Takes the boolean inputs that tracing leaves behind.
    fn switches(&mut self) -> Vec<Switch> {
        const KNOWN: [(&str, bool); 6] = [
            ("return_dict", false),
            ("output_hidden_states", true),
            ("output_attentions", false),
            ("use_cache", false),
            ("training", false),
            ("sample_posterior", false),
        ];
        let value = |i: &TensorInfo| {
            KNOWN.iter().find(|(name, _)| i.dtype == DType::Bool && i.name == *name).map(|&(_, value)| value)
        };
        self.all(value).into_iter().map(|(value, input)| Switch { input, value }).collect()
    }

    /// Fails with the role that nothing fills.
    fn lacks(&self, role: &str, form: &str) -> Error {
        if let Err(error) = self.heeded() {
            return error;
        }
        let known = self.component.graph.inputs.iter().find_map(|i| explain(&i.name));
        Error::model(
            &self.component.graph.path,
            format!(
                "{} has no input for its {role} ({form}); its inputs are{}",
                self.component.kind,
                table(&self.component.graph.inputs)
            ),
            known.unwrap_or("this graph is of a kind that is not run; export the model with scripts/export.py"),
        )
    }

    /// Fails where the pipeline file gives a role to an input that the graph lacks or that has not the role's form.
    fn heeded(&self) -> Result<()> {
        let Component { kind, graph, roles, .. } = self.component;
        let key = |name: &str| format!("model.{kind}.inputs.{name}");
        if let Some((name, role)) = roles.iter().find(|(name, _)| graph.input(name).is_none()) {
            return Err(Error::input(
                key(name),
                format!(
                    "is to be the {role}, and {} has no such input; its inputs are{}",
                    graph.path.display(),
                    table(&graph.inputs)
                ),
                "write an input's name as `ldm-ort inspect` shows it",
            ));
        }
        match self.mapped.first() {
            None => Ok(()),
            Some((role, input)) => Err(Error::input(
                key(&input.name),
                format!("the input{} has not the form of the {role}", table(&[(*input).clone()])),
                "give the role to another input; each role has one",
            )),
        }
    }

    /// Fails where an input is left that nobody can fill.
    fn finish(self) -> Result<()> {
        self.heeded()?;
        if self.left.is_empty() {
            return Ok(());
        }
        let left: Vec<TensorInfo> = self.left.iter().map(|i| (*i).clone()).collect();
        let known = left.iter().find_map(|i| explain(&i.name));
        Err(Error::model(
            &self.component.graph.path,
            format!(
                "{} has {} that nothing here can fill:{}\n  tried by name, by shape and by type: {}",
                self.component.kind,
                if left.len() == 1 { "an input".to_owned() } else { format!("{} inputs", left.len()) },
                table(&left),
                self.tried.join(", ")
            ),
            match (known, role_words(self.component.kind)) {
                (Some(known), _) => known.to_owned(),
                (None, []) => "export the model with scripts/export.py".to_owned(),
                (None, words) => format!(
                    "if one of them has a role under another name, say so: [model.{}] inputs = {{ \"{}\" = \"ROLE\" }}, \
                     ROLE one of {}; else export the model with scripts/export.py",
                    self.component.kind,
                    self.left.first().map_or("", |input| &input.name),
                    words.join(", "),
                ),
            },
        ))
    }
}

/// What a known input belongs to that is not run.
fn explain(name: &str) -> Option<&'static str> {
    match name {
        "img_ids" | "txt_ids" => Some(
            "position ids are run as Flux has them: img_ids and txt_ids, three numbers a token, beside a sample that is a \
             sequence of tokens",
        ),
        "encoder_attention_mask" => Some(
            "the mask over the text's tokens is filled in as PixArt takes it: a number or a bool for each token, [n, tokens]; \
             scripts/export.py exports it so",
        ),
        "controlnet_images" | "controlnet_conds" | "controlnet_scales" | "conditioning_scales" => {
            Some("this graph has its control network built in, which is not run; export the two apart")
        }
        "image_embeds" => Some("image prompts (IP-Adapter) are not run; export the model without them"),
        "input_embeddings" => Some("this text encoder wants the embedding table outside; export it with input_ids"),
        _ => None,
    }
}

/// Name, element type and shape of each tensor, one a line.
fn table(tensors: &[TensorInfo]) -> String {
    let width = tensors.iter().map(|t| t.name.chars().count()).max().unwrap_or(0);
    tensors
        .iter()
        .map(|t| {
            let shape: Vec<String> = t.shape.iter().map(ToString::to_string).collect();
            format!("\n    {:width$}  {}  [{}]", t.name, t.dtype, shape.join(", "))
        })
        .collect()
}

/// The one output of this rank; where there are several, the one with one of these names.
fn output(component: &Component, rank: usize, names: &[&str]) -> Result<TensorInfo> {
    let outputs = &component.graph.outputs;
    let fitting: Vec<&TensorInfo> = outputs.iter().filter(|o| o.shape.len() == rank).collect();
    let found = match (fitting.as_slice(), outputs.as_slice()) {
        ([only], _) => Some(*only),
        // An output without a stated shape reads as one without axes; where it is the only one, it is the one.
        ([], [only]) if only.shape.is_empty() => Some(only),
        (several, _) => names.iter().find_map(|name| several.iter().find(|o| o.name == *name).copied()),
    };
    found.cloned().ok_or_else(|| {
        Error::model(
            &component.graph.path,
            format!(
                "{} has {} outputs with {rank} axes where one is wanted; its outputs are{}",
                component.kind,
                fitting.len(),
                table(outputs)
            ),
            "this graph is of a kind that is not run; export the model with scripts/export.py",
        )
    })
}

fn is_number(t: &TensorInfo) -> bool {
    t.dtype.is_float() || t.dtype.is_integer()
}

fn is_float(t: &TensorInfo, rank: usize) -> bool {
    t.dtype.is_float() && t.shape.len() == rank
}

/// The first axis, where the graph fixes it for any of these. Requests are filled up to it.
///
/// # Errors
/// [`Error::Model`] for more rows than a request could sensibly be filled up to.
fn fixed_batch<'a>(component: &Component, tensors: impl IntoIterator<Item = &'a TensorInfo>) -> Result<Option<usize>> {
    const MOST: usize = 1024;
    let fixed = tensors.into_iter().find_map(|t| Some((t, t.shape.first()?.fixed()?)));
    match fixed {
        Some((info, rows)) if rows > MOST => Err(Error::model(
            &component.graph.path,
            format!("{info} is fixed to a batch of {rows}; expected {MOST} at most"),
            "export the model again, with a batch that is free or 1",
        )),
        _ => Ok(fixed.map(|(_, rows)| rows)),
    }
}

/// Whether a graph is a denoiser that control networks reach, whatever folder it lies in.
pub(super) fn takes_residuals(graph: &GraphFile) -> bool {
    graph.inputs.iter().any(|i| is_float(i, 4) && denoiser::down_block_number(&i.name).is_some())
}

/// The names under which the image-shaped input of a denoiser, an encoder or a decoder goes.
const IMAGE_INPUTS: [&str; 7] =
    ["sample", "latent_sample", "latent_model_input", "latent", "images", "pixel_values", "hidden_states"];

/// The image-shaped input of a graph, without asking what the others are.
pub(super) fn image_input(graph: &GraphFile) -> Option<&TensorInfo> {
    let fitting: Vec<&TensorInfo> = graph.inputs.iter().filter(|i| is_float(i, 4)).collect();
    let named = IMAGE_INPUTS.iter().find_map(|name| fitting.iter().find(|i| i.name == *name).copied());
    named.or(match fitting.as_slice() {
        [only] => Some(*only),
        _ => None,
    })
}

/// The image-shaped output of a graph, if there is one only.
pub(super) fn image_output(graph: &GraphFile) -> Option<&TensorInfo> {
    let mut fitting = graph.outputs.iter().filter(|o| o.shape.len() == 4);
    let first = fitting.next();
    first.filter(|_| fitting.next().is_none())
}
