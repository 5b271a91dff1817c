//! The prompts of a task that has some, and what the denoiser is told of them.

use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, stack};

use super::context::{TaskContext, TaskModel};
use super::contract::Task;
use super::prompting::Prompting;
use crate::bundle::DenoiserContract;
use crate::denoise::{Condition, Guidance};
use crate::error::{Error, Result};
use crate::tensor::{Dim, TensorInfo};
use crate::text::{PromptEmbedding, Text};

/// The guidance that a task's prompts ask for. A model that learnt the effect of guidance is guided from outside only
/// where that is asked for by its own key.
pub(super) fn guidance(prompting: &Prompting, stage: &TaskContext<'_>) -> Guidance {
    let scale = match stage.model.denoiser.is_guidance_distilled() {
        true => prompting.true_cfg_scale,
        false => stage.model.guidance_scale(prompting),
    };
    Guidance::classifier_free(scale, prompting.guidance_rescale)
}

/// Says that a negative prompt is given which nothing leads away from.
pub fn unused_negative_prompt(prompting: &Prompting, contract: &DenoiserContract) -> Option<String> {
    let leads_nowhere = contract.is_guidance_distilled() && prompting.true_cfg_scale <= 1.0;
    let later = prompting.later.iter().flat_map(|later| &later.negative_prompts);
    let is_given = prompting.negative_prompts.iter().chain(later).any(|prompt| !prompt.is_empty());
    let warning = "this model learnt the effect of guidance and is not led away from the negative prompt; set true_cfg_scale \
                   above 1, which doubles the time, or leave the negative prompt out";
    (leads_nowhere && is_given).then(|| warning.to_owned())
}

/// What the denoiser is told of the batch's prompts, a row for each image in each branch of `guidance`: tokens,
/// and where the graph takes them the pooled text, the sizes and the guidance scale.
///
/// # Errors
/// [`Error::Input`] where the model has no text encoder, and whatever that fails with.
pub(super) fn condition(prompting: &Prompting, guidance: Guidance, stage: &mut TaskContext<'_>) -> Result<Condition> {
    let contract = &stage.model.denoiser.clone();
    if let (0, Some(warning)) = (stage.first, unused_negative_prompt(prompting, contract)) {
        (stage.warn)(warning);
    }
    let branches = guidance.branches();
    let zeros = stage.model.zeros_for_no_prompt;
    let told = stage.prompts.iter().map(|&prompt| -> Result<[Arc<PromptEmbedding>; 2]> {
        let encoders = stage.text.as_deref_mut().ok_or_else(no_encoder)?;
        let made =
            encoders.encode(&texts_of(prompting, prompt, branches.len() > 1, zeros), stage.cancel, stage.warn)?;
        let mut made = made.into_iter();
        let prompted = made.next().ok_or_else(no_encoder)?;
        let negative = made.next().unwrap_or_else(|| Arc::clone(&prompted));
        let is_blank = zeros && prompting.negative_prompts.get(prompt).is_none();
        Ok([prompted, if is_blank { Arc::new(negative.zeros()) } else { negative }])
    });
    let told = told.collect::<Result<Vec<_>>>()?;
    let mut rows: Vec<Arc<PromptEmbedding>> = Vec::new();
    let mut sizes = Vec::new();
    for branch in branches {
        for [prompt, negative] in &told {
            rows.push(Arc::clone(if branch.prompt { prompt } else { negative }));
            sizes.extend(time_ids(prompting, contract, stage.size, branch.prompt));
        }
    }
    let pooled: Option<Vec<_>> = rows.iter().map(|row| row.pooled.as_ref()).collect();
    let of_rows = |width: usize, values: Vec<f32>| {
        ArrayD::from_shape_vec(IxDyn(&[rows.len(), width]), values)
            .map_err(|e| Error::input("prompt", e.to_string(), ""))
    };
    let masks: Option<Vec<_>> = rows.iter().map(|row| row.mask.as_ref()).collect();
    let (width, height) = stage.size;
    let of_image = |info: &Option<TensorInfo>, one: &[f64]| {
        let of_all =
            || of_rows(one.len(), one.iter().map(|&value| value as f32).cycle().take(one.len() * rows.len()).collect());
        info.as_ref().map(|_| of_all()).transpose()
    };
    let time_ids = match &contract.time_ids {
        Some(_) => Some(of_rows(sizes.len() / rows.len().max(1), sizes)?),
        None => None,
    };
    let timestep_cond = match &contract.timestep_cond {
        Some(info) => {
            let width = info.shape.get(1).and_then(Dim::fixed).filter(|&width| width <= 65_536).unwrap_or(256);
            let one = guidance_embedding(stage.model.guidance_scale(prompting), width);
            Some(of_rows(width, one.iter().copied().cycle().take(width * rows.len()).collect())?)
        }
        None => None,
    };
    let guidance = contract.guidance.as_ref().map(|_| {
        let scale = stage.model.guidance_scale(prompting) as f32;
        ArrayD::from_elem(IxDyn(&[rows.len()]), scale)
    });
    Ok(Condition {
        guidance,
        context: Some(stacked(rows.iter().map(|row| row.tokens.view()))?),
        text_embeds: match (pooled, &contract.text_embeds) {
            (Some(pooled), Some(_)) => Some(stacked(pooled.iter().map(|row| row.view()))?),
            _ => None,
        },
        context_mask: match (masks, &contract.context_mask) {
            (Some(masks), Some(_)) => Some(stacked(masks.iter().map(|mask| mask.view()))?),
            _ => None,
        },
        time_ids,
        resolution: of_image(&contract.resolution, &[height as f64, width as f64])?,
        aspect_ratio: of_image(&contract.aspect_ratio, &[height as f64 / width as f64])?,
        timestep_cond,
        ..Condition::default()
    })
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

/// What the images of one prompt are told, which is encoded together: nothing where the task has no prompts.
pub fn texts(task: &dyn Task, model: &TaskModel, prompt: usize) -> Vec<Text> {
    let is_guided = task.branches(model) > 1;
    let texts = |prompting| texts_of(prompting, prompt, is_guided, model.zeros_for_no_prompt);
    task.prompting().map_or_else(Vec::new, texts)
}

/// The prompt, and behind it what is told to the branches that it leads away from, where there are some and that is a text:
/// where nobody gave a negative prompt, `zeros` may take its place.
fn texts_of(prompting: &Prompting, prompt: usize, is_guided: bool, zeros: bool) -> Vec<Text> {
    let is_blank = zeros && prompting.negative_prompts.get(prompt).is_none();
    let prompted = prompting.text(prompt, false);
    std::iter::once(prompted).chain((is_guided && !is_blank).then(|| prompting.text(prompt, true))).collect()
}

/// The numbers of `time_ids` for one image: height and width before scaling, what was cropped at the top and the
/// left, and then height and width after that, or where the graph takes five numbers the aesthetic score.
fn time_ids(
    prompting: &Prompting,
    contract: &DenoiserContract,
    (width, height): (usize, usize),
    is_prompt: bool,
) -> Vec<f32> {
    if contract.time_ids.is_none() {
        return Vec::new();
    }
    let sizes = &prompting.sizes;
    let [original_width, original_height] = sizes.original_size.unwrap_or([width, height]);
    let [left, top] = sizes.crop.unwrap_or([0, 0]);
    let mut ids = [original_height, original_width, top, left].map(|v| v as f32).to_vec();
    if contract.time_ids_width() == Some(5) {
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

/// The guidance scale as latent consistency models take it: sines, then cosines, of `1000 (scale − 1)` times falling
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
