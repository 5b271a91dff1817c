//! The prompts of a task, and the denoiser's inputs that they fill.

use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, stack};

use super::context::{TaskContext, TaskModel};
use super::contract::Task;
use super::prompting::Prompting;
use crate::bundle::{DenoiserSignature, Role};
use crate::denoise::{Condition, Guidance};
use crate::error::{Error, Result};
use crate::tensor::{Dim, TensorInfo};
use crate::text::{PromptEmbedding, PromptText};

/// The guidance of a task with prompts. A guidance-distilled model has classifier-free guidance only if `true_cfg_scale`
/// requests it.
pub(super) fn guidance(prompting: &Prompting, stage: &TaskContext<'_>) -> Guidance {
    let scale = match stage.model.denoiser.is_guidance_distilled() {
        true => prompting.true_cfg_scale,
        false => stage.model.guidance_scale(prompting),
    };
    Guidance::classifier_free(scale, prompting.guidance_rescale)
}

/// The guidance and the condition of a task's prompts; neither for a task without prompts.
///
/// # Errors
/// As [`condition`].
pub(super) fn guided_condition(
    prompting: Option<&Prompting>,
    stage: &mut TaskContext<'_>,
) -> Result<(Guidance, Condition)> {
    let Some(prompting) = prompting else { return Ok((Guidance::Off, Condition::default())) };
    let guidance = guidance(prompting, stage);
    Ok((guidance, condition(prompting, guidance, stage)?))
}

/// A warning if there is a negative prompt that has no effect.
pub fn unused_negative_prompt(prompting: &Prompting, signature: &DenoiserSignature) -> Option<String> {
    let leads_nowhere = signature.is_guidance_distilled() && prompting.true_cfg_scale <= 1.0;
    let later = prompting.later.iter().flat_map(|later| &later.negative_prompts);
    let is_given = prompting.negative_prompts.iter().chain(later).any(|prompt| !prompt.is_empty());
    let warning = "this model is guidance-distilled, so the negative prompt has no effect; set true_cfg_scale above 1, which \
                   doubles the time, or leave the negative prompt out";
    (leads_nowhere && is_given).then(|| warning.to_owned())
}

/// The condition of the batch's prompts, a row for each image in each branch of `guidance`: the tokens, and the pooled
/// embeddings, mask, sizes and guidance scale if the denoiser takes them.
///
/// # Errors
/// [`Error::Input`] if the model has no text encoder, and any error of that.
pub(super) fn condition(prompting: &Prompting, guidance: Guidance, stage: &mut TaskContext<'_>) -> Result<Condition> {
    let model = stage.model;
    if let (0, Some(warning)) = (stage.first, unused_negative_prompt(prompting, &model.denoiser)) {
        (stage.warn)(warning);
    }
    let rows = rows(prompting, guidance, stage)?;
    let mut condition = Condition::of(Role::Context, stacked(rows.iter().map(|row| row.embedding.tokens.view()))?);
    for (&role, info) in &model.denoiser.inputs {
        if let Some(value) = value(role, info, prompting, &rows, stage)? {
            condition.set(role, value);
        }
    }
    Ok(condition)
}

/// The prompt of one row.
struct PromptRow {
    embedding: Arc<PromptEmbedding>,
    /// True for the prompt, false for the negative prompt.
    is_prompt: bool,
}

/// The encoded prompts: a row for each image in each branch of `guidance`.
fn rows(prompting: &Prompting, guidance: Guidance, stage: &mut TaskContext<'_>) -> Result<Vec<PromptRow>> {
    let branches = guidance.branches();
    let zeros = stage.model.zeros_for_no_prompt;
    let encoded = stage.prompts.iter().map(|&prompt| -> Result<[Arc<PromptEmbedding>; 2]> {
        let encoders = stage.text.as_deref_mut().ok_or_else(no_encoder)?;
        let texts = texts_of(prompting, prompt, branches.len() > 1, zeros);
        let mut encoded = encoders.encode(&texts, stage.cancel, stage.warn)?.into_iter();
        let prompted = encoded.next().ok_or_else(no_encoder)?;
        let negative = encoded.next().unwrap_or_else(|| Arc::clone(&prompted));
        let is_blank = zeros && prompting.negative_prompts.get(prompt).is_none();
        Ok([prompted, if is_blank { Arc::new(negative.zeros()) } else { negative }])
    });
    let encoded = encoded.collect::<Result<Vec<_>>>()?;
    let row = |[prompt, negative]: &[Arc<PromptEmbedding>; 2], is_prompt: bool| PromptRow {
        embedding: Arc::clone(if is_prompt { prompt } else { negative }),
        is_prompt,
    };
    Ok(branches.iter().flat_map(|branch| encoded.iter().map(move |pair| row(pair, branch.prompt))).collect())
}

/// The value of a denoiser's input in a task with prompts; `None` if the prompts give none.
fn value(
    role: Role,
    info: &TensorInfo,
    prompting: &Prompting,
    rows: &[PromptRow],
    stage: &TaskContext<'_>,
) -> Result<Option<ArrayD<f32>>> {
    let (width, height) = stage.size;
    let scale = stage.model.guidance_scale(prompting);
    let of_rows = |row: &dyn Fn(&PromptRow) -> Vec<f32>| {
        let values: Vec<f32> = rows.iter().flat_map(row).collect();
        ArrayD::from_shape_vec(IxDyn(&[rows.len(), values.len() / rows.len().max(1)]), values)
            .map_err(|e| Error::input("prompt", e.to_string(), ""))
    };
    let value = match role {
        Role::TextEmbeds => return of_all(rows, |embedding| embedding.pooled.as_ref()),
        Role::ContextMask => return of_all(rows, |embedding| embedding.mask.as_ref()),
        Role::TimeIds => {
            let has_score = stage.model.denoiser.time_ids_width() == Some(5);
            of_rows(&|row| time_ids(prompting, has_score, stage.size, row.is_prompt))?
        }
        Role::Resolution => of_rows(&|_| vec![height as f32, width as f32])?,
        Role::AspectRatio => of_rows(&|_| vec![(height as f64 / width as f64) as f32])?,
        Role::TimestepCond => {
            let width = info.shape.get(1).and_then(Dim::fixed).filter(|&width| width <= 65_536).unwrap_or(256);
            let one = guidance_embedding(scale, width);
            of_rows(&|_| one.clone())?
        }
        Role::Guidance => ArrayD::from_elem(IxDyn(&[rows.len()]), scale as f32),
        _ => return Ok(None),
    };
    Ok(Some(value))
}

/// One tensor of each row's embedding, if all have it.
fn of_all(rows: &[PromptRow], part: impl Fn(&PromptEmbedding) -> Option<&ArrayD<f32>>) -> Result<Option<ArrayD<f32>>> {
    let parts: Option<Vec<_>> = rows.iter().map(|row| part(&row.embedding)).collect();
    parts.map(|parts| stacked(parts.iter().map(|part| part.view()))).transpose()
}

fn stacked<'a>(rows: impl Iterator<Item = ArrayViewD<'a, f32>>) -> Result<ArrayD<f32>> {
    let rows: Vec<_> = rows.collect();
    stack(Axis(0), &rows).map_err(|e| Error::input("prompt", e.to_string(), "give prompts of equal length"))
}

fn no_encoder() -> Error {
    Error::input(
        "prompt",
        "this model directory has no text encoder",
        "choose [task.unconditional], or a model directory with text_encoder/ and tokenizer/",
    )
}

/// The texts of one prompt, which are encoded together; none if the task has no prompts.
pub fn texts(task: &dyn Task, model: &TaskModel, prompt: usize) -> Vec<PromptText> {
    let is_guided = task.branches(model) > 1;
    let texts = |prompting| texts_of(prompting, prompt, is_guided, model.zeros_for_no_prompt);
    task.prompting().map_or_else(Vec::new, texts)
}

/// The prompt, and the negative prompt if there is guidance. If no negative prompt is given, `zeros` may replace it.
fn texts_of(prompting: &Prompting, prompt: usize, is_guided: bool, zeros: bool) -> Vec<PromptText> {
    let is_blank = zeros && prompting.negative_prompts.get(prompt).is_none();
    let prompted = prompting.text(prompt, false);
    std::iter::once(prompted).chain((is_guided && !is_blank).then(|| prompting.text(prompt, true))).collect()
}

/// The values of [`Role::TimeIds`] for one image: height and width before scaling, what was cropped at the top and the
/// left, and then height and width after that, or the aesthetic score for a denoiser of five values (`has_score`).
fn time_ids(prompting: &Prompting, has_score: bool, (width, height): (usize, usize), is_prompt: bool) -> Vec<f32> {
    let sizes = &prompting.sizes;
    let [original_width, original_height] = sizes.original_size.unwrap_or([width, height]);
    let [left, top] = sizes.crop.unwrap_or([0, 0]);
    let mut ids = [original_height, original_width, top, left].map(|v| v as f32).to_vec();
    if has_score {
        ids.push(match is_prompt {
            true => sizes.aesthetic_score.unwrap_or(6.0),
            false => sizes.negative_aesthetic_score.unwrap_or(2.5),
        } as f32);
    } else {
        let [target_width, target_height] = sizes.target_size.unwrap_or([width, height]);
        ids.extend([target_height as f32, target_width as f32]);
    }
    ids
}

/// The embedded guidance scale of latent consistency models: sines, then cosines, of `1000 (scale − 1)` times falling
/// frequencies (Luo et al. 2023, arXiv 2310.04378; diffusers' `get_guidance_scale_embedding`).
fn guidance_embedding(scale: f64, width: usize) -> Vec<f32> {
    let w = (scale - 1.0) as f32 * 1000.0;
    let half = width / 2;
    let step = (10_000.0_f64.ln() / half.saturating_sub(1).max(1) as f64) as f32;
    let angles: Vec<f32> = (0..half).map(|i| w * (f64::from(i as f32 * -step).exp() as f32)).collect();
    let mut embedding: Vec<f32> = angles.iter().map(|a| f64::from(*a).sin() as f32).collect();
    embedding.extend(angles.iter().map(|a| f64::from(*a).cos() as f32));
    embedding.resize(width, 0.0);
    embedding
}
