//! Which text encoders a denoiser reads, and what of each.

use std::sync::Arc;

use super::model::{Part, part};
use crate::bundle::{
    Bundle, Component, ComponentKind, DenoiserContract, GraphFile, LayerNorm, TextEncoderContract, TokenTable,
};
use crate::error::{Error, Result};
use crate::spec::{Embedding, LongPrompts, PromptReading, Prompting, Weights};
use crate::tensor::{Dim, TensorInfo, Weight};
use crate::text::{Chunks, Inversion, Style, Taken, require_embedded, tokenizer::Tokenizer};
use ndarray::{Array2, Axis};

/// A text encoder and its tokenizer.
#[derive(Debug, Clone)]
pub struct TextPart {
    /// The graph.
    pub part: Part<TextEncoderContract>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Which of its outputs are taken.
    pub taken: Taken,
    /// Which are taken of a negative prompt, where those are others.
    pub negative: Option<Taken>,
    /// How it reads prompts.
    pub style: Style,
    /// The vectors of words of a user's own that its graph is opened with, where there are some.
    pub learnt: Option<Learnt>,
    /// Which group of tokens its own belong to; see [`crate::text::TextEncoders`].
    pub group: usize,
}

/// Vectors behind those that a graph stores for its tokens.
#[derive(Debug, Clone)]
pub struct Learnt {
    table: TokenTable,
    /// `[n, width]`
    vectors: Array2<f32>,
}

impl Learnt {
    /// What the graph is opened with.
    ///
    /// # Errors
    /// As [`TokenTable::grown`].
    pub fn weight(&self, graph: &GraphFile) -> Result<Weight> {
        self.table.grown(graph, &self.vectors)
    }

    /// Lets `tokenizer` and `contract` know the words of `inversions`.
    fn new(
        inversions: &[Inversion],
        component: &Component,
        encoders: usize,
        contract: &mut TextEncoderContract,
        mut tokenizer: Tokenizer,
    ) -> Result<(Option<Self>, Tokenizer)> {
        if inversions.is_empty() {
            return Ok((None, tokenizer));
        }
        let Some(table) = TokenTable::of(&component.graph, &contract.input_ids.name)? else {
            return Err(Error::model(
                &component.graph.path,
                format!(
                    "does not tell where {} keeps the vectors of its tokens, and [[embedding]] adds some",
                    component.kind
                ),
                "use an export in float32 or float16, without fused operators",
            ));
        };
        let mut vectors = Array2::zeros((0, table.width));
        for inversion in inversions {
            let number = component.kind.text_encoder_number().unwrap_or(1);
            let own = inversion.of_encoder(number, encoders)?;
            let first = table.rows + vectors.nrows();
            if vectors.append(Axis(0), own.view()).is_err() {
                return Err(Error::model(
                    &inversion.path,
                    format!(
                        "its vectors are {} wide, and those of {} are {}",
                        own.ncols(),
                        component.kind,
                        table.width
                    ),
                    "it was made for another family of models; use one that was made for this",
                ));
            }
            let ids = (first..first + own.nrows()).map(|id| id as i64).collect();
            tokenizer = tokenizer.with_word(&inversion.token, ids)?;
        }
        contract.embedding_rows = Some(table.rows + vectors.nrows());
        Ok((Some(Self { table, vectors }), tokenizer))
    }
}

/// How prompts become what the denoiser is told.
#[derive(Debug, Clone)]
pub struct TextPlan {
    /// The text encoders, in the model's order.
    pub encoders: Vec<TextPart>,
    /// Whether a negative prompt that nobody gave is zeros rather than the encoded empty text: diffusers'
    /// `force_zeros_for_empty_prompt`.
    pub zeros_for_no_prompt: bool,
    /// Words of a user's own.
    pub inversions: Vec<Inversion>,
}

impl TextPlan {
    pub(super) fn new(
        bundle: &Bundle,
        denoiser: &DenoiserContract,
        prompting: &Prompting,
        embeddings: &[Embedding],
        wanted_for: &str,
    ) -> Result<Self> {
        let components: Vec<&Component> = bundle.text_encoders().collect();
        if components.is_empty() {
            return Err(Error::model(
                &bundle.dir,
                format!("{wanted_for} needs {}, and the directory has none", ComponentKind::TextEncoder),
                "choose [task.unconditional], or export the text encoder too",
            ));
        }
        // Stable Diffusion XL and what came of it is told sizes, a pooled vector and the states before the last layer's.
        let is_xl = denoiser.time_ids.is_some();
        let inversions =
            embeddings.iter().map(|embedding| Inversion::open(&embedding.path, embedding.token.as_deref()));
        let inversions = inversions.collect::<Result<Vec<_>>>()?;
        let style = Style {
            weighs: prompting.reading.weights == Weights::A1111,
            goes_on: prompting.reading.long_prompts == LongPrompts::Chunk,
        };
        let mut encoders = Vec::with_capacity(components.len());
        for &component in &components {
            let mut contract = TextEncoderContract::resolve(component)?;
            let tokenizer = Tokenizer::open(tokenizer_dir(bundle, component, wanted_for)?)?;
            let (learnt, tokenizer) = Learnt::new(&inversions, component, components.len(), &mut contract, tokenizer)?;
            let tokens = if is_xl { Some(penultimate(component, &contract)?.clone()) } else { tokens(&contract) };
            readable(component, tokens.as_ref(), &prompting.reading, wanted_for)?;
            // The projected text comes with the last encoder; what the first pools is not asked for.
            let pooled = contract.pooled.clone().filter(|_| is_xl && is_last(bundle, component));
            let whole = Taken { tokens, norm: None, pooled };
            let skipping = match prompting.reading.clip_skip {
                Some(skip) => Some(skipped(component, &contract, skip, is_xl, &whole, wanted_for)?),
                None => None,
            };
            encoders.push(TextPart {
                tokenizer: Arc::new(tokenizer),
                learnt,
                negative: skipping.as_ref().map(|_| whole.clone()),
                taken: skipping.unwrap_or(whole),
                style,
                part: part(component, contract),
                group: 0,
            });
        }
        let plan = Self { zeros_for_no_prompt: zeros_for_no_prompt(bundle, denoiser, &encoders), encoders, inversions };
        plan.check(denoiser, bundle)?;
        Ok(plan)
    }

    /// Requires that the encoders fit each other and give what the denoiser takes.
    fn check(&self, denoiser: &DenoiserContract, bundle: &Bundle) -> Result<()> {
        let lengths: Vec<usize> = self.encoders.iter().map(|text| text.tokenizer.max_length()).collect();
        if lengths.iter().any(|&length| length != lengths[0]) {
            return Err(Error::model(
                &bundle.dir,
                format!("its tokenizers give {lengths:?} tokens, and the denoiser wants as many of each"),
                "set the same model_max_length in each tokenizer_config.json",
            ));
        }
        let path = &bundle.denoiser()?.graph.path;
        if let Some(info) = denoiser.text_embeds.as_ref().filter(|_| self.width_of(|taken| &taken.pooled) == Some(0)) {
            return Err(Error::model(
                path,
                format!("input {} wants the text as one vector, and no text encoder gives one", info.name),
                "export the second text encoder with its projection (output text_embeds)",
            ));
        }
        for (wanted, given, what) in [
            (denoiser.context.as_ref().map(|info| (info, 2)), self.width_of(|taken| &taken.tokens), "tokens"),
            (denoiser.text_embeds.as_ref().map(|info| (info, 1)), self.width_of(|taken| &taken.pooled), "a vector"),
        ] {
            let Some((info, axis)) = wanted else { continue };
            let (Some(wanted), Some(given)) = (info.shape.get(axis).and_then(Dim::fixed), given) else { continue };
            if wanted != given {
                return Err(Error::model(
                    path,
                    format!("input {} takes {what} of width {wanted}, and the text encoders give {given}", info.name),
                    match bundle.missing.first() {
                        Some(missing) => format!("the directory lacks {missing}"),
                        None => "denoiser and text encoders are not of one model".to_owned(),
                    },
                ));
            }
        }
        Ok(())
    }

    /// The widths of one output of all encoders added up, where all of them are known.
    fn width_of(&self, output: fn(&Taken) -> &Option<TensorInfo>) -> Option<usize> {
        self.encoders.iter().filter_map(|text| output(&text.taken).as_ref()).map(last_axis).sum()
    }

    /// Requires that every prompt becomes ids that the text encoders know, and tells of those that are too
    /// long for them.
    pub(super) fn check_prompts(&self, prompting: &Prompting, denoiser: &DenoiserContract) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let fixed = denoiser.context.as_ref().and_then(|info| Some((info, info.shape.get(1)?.fixed()?)));
        for prompt in prompting.prompts.iter().chain(&prompting.negative_prompts) {
            for text in &self.encoders {
                let read = Chunks::new(prompt, &text.tokenizer, text.style)?;
                require_embedded(&read, &text.part.contract, &text.part.graph.path)?;
                warnings.extend(read.warning.filter(|warning| !warnings.contains(warning)));
                if let (Some((info, length)), 2..) = (fixed, read.chunks.len()) {
                    return Err(Error::input(
                        "long_prompts",
                        format!(
                            "a prompt is read in {} chunks, and input {} of the denoiser takes exactly {length} tokens",
                            read.chunks.len(),
                            info.name
                        ),
                        "shorten the prompt, or export the denoiser with a free number of tokens",
                    ));
                }
            }
        }
        Ok(warnings)
    }
}

/// An exporter that writes a pooled vector's width as the tokens' is not to be believed, so names are left out.
fn last_axis(info: &TensorInfo) -> Option<usize> {
    info.shape.last().and_then(Dim::fixed)
}

fn tokens(contract: &TextEncoderContract) -> Option<TensorInfo> {
    contract.last_hidden_state.clone().or_else(|| contract.pooled.clone())
}

fn penultimate<'c>(component: &Component, contract: &'c TextEncoderContract) -> Result<&'c TensorInfo> {
    contract.penultimate().ok_or_else(|| {
        let outputs: Vec<&str> = component.graph.outputs.iter().map(|o| o.name.as_str()).collect();
        Error::model(
            &component.graph.path,
            format!(
                "the denoiser attends to the states before the last layer, and {} gives only {}",
                component.kind,
                outputs.join(", ")
            ),
            "export the text encoder with its hidden states (Optimum does; scripts/export.py too)",
        )
    })
}

/// What is taken where `skip` layers are left out: other states than of the `whole` encoder, and the norm over them,
/// which Stable Diffusion XL does without.
fn skipped(
    component: &Component,
    contract: &TextEncoderContract,
    skip: usize,
    is_xl: bool,
    whole: &Taken,
    wanted_for: &str,
) -> Result<Taken> {
    let at_fault = |problem: String, help: &str| Error::model(&component.graph.path, problem, help);
    let Some(layers) = contract.layers() else {
        return Err(at_fault(
            format!("{wanted_for} has clip_skip = {skip}, and {} does not give its hidden states", component.kind),
            "leave clip_skip out, or export the text encoder with its hidden states (scripts/export.py \
             --hidden-states)",
        ));
    };
    let most = layers.saturating_sub(usize::from(is_xl));
    let wanted = most.checked_sub(skip);
    let found = wanted.and_then(|wanted| contract.hidden_states.iter().find(|(layer, _)| *layer == wanted));
    let Some((_, states)) = found else {
        return Err(Error::input(
            "clip_skip",
            format!("{skip} layers are to be left out, and {} has {most} that can be", component.kind),
            "1 and 2 are usual",
        ));
    };
    if is_xl {
        return Ok(Taken { tokens: Some(states.clone()), ..whole.clone() });
    }
    let norm = match &contract.last_hidden_state {
        Some(output) => LayerNorm::making(&component.graph, &output.name)?,
        None => None,
    };
    // A norm of another width is none over these states.
    let width = states.shape.last().and_then(Dim::fixed);
    let norm = norm.filter(|norm| width.is_none_or(|width| width == norm.scale.len()));
    let norm = norm.ok_or_else(|| {
        at_fault(
            format!(
                "{wanted_for} has clip_skip = {skip}, and the norm behind the last layer of {} cannot be read",
                component.kind
            ),
            "leave clip_skip out, or export the text encoder anew in float32 or float16, without fusing its operators \
             (scripts/export.py --hidden-states)",
        )
    })?;
    Ok(Taken { tokens: Some(states.clone()), norm: Some(norm), pooled: whole.pooled.clone() })
}

/// Requires that weights and chunks have a sense for what an encoder gives.
fn readable(
    component: &Component,
    tokens: Option<&TensorInfo>,
    reading: &PromptReading,
    wanted_for: &str,
) -> Result<()> {
    let key = match reading {
        PromptReading { weights: Weights::A1111, .. } => "weights",
        PromptReading { long_prompts: LongPrompts::Chunk, .. } => "long_prompts",
        _ => return Ok(()),
    };
    if tokens.is_none_or(|info| info.shape.len() != 2) {
        return Ok(());
    }
    Err(Error::model(
        &component.graph.path,
        format!("{wanted_for} has {key}, and {} makes one vector of a whole text", component.kind),
        format!("leave {key} out"),
    ))
}

fn is_last(bundle: &Bundle, component: &Component) -> bool {
    bundle.text_encoders().last().is_some_and(|last| last.kind == component.kind)
}

fn tokenizer_dir<'b>(bundle: &'b Bundle, component: &Component, wanted_for: &str) -> Result<&'b std::path::Path> {
    bundle.tokenizer(component.kind).ok_or_else(|| {
        let number = component.kind.text_encoder_number().filter(|&n| n > 1);
        let name = number.map_or("tokenizer".to_owned(), |n| format!("tokenizer_{n}"));
        Error::model(
            bundle.dir.join(&name),
            format!("{wanted_for} needs a tokenizer: tokenizer.json, vocab.json and merges.txt, or vocab.txt"),
            format!("copy the {name}/ folder of the checkpoint that was exported"),
        )
    })
}

/// What model_index.json says of prompts nobody gave. Where it is silent, zeros belong to Stable Diffusion XL but for its
/// refiner, known by its five `time_ids`, and to models that read a prompt as one vector (retrieval-augmented diffusion).
fn zeros_for_no_prompt(bundle: &Bundle, denoiser: &DenoiserContract, encoders: &[TextPart]) -> bool {
    let stated = bundle.index.get("force_zeros_for_empty_prompt").and_then(serde_json::Value::as_bool);
    let is_vector = |text: &TextPart| text.taken.tokens.as_ref().is_some_and(|info| info.shape.len() == 2);
    let is_xl_base = denoiser.time_ids_width().is_some_and(|width| width != 5);
    stated.unwrap_or(is_xl_base || encoders.iter().any(is_vector))
}
