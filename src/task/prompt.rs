//! The prompts of a task that has some, and the tokens they become.

use ndarray::{ArrayD, Axis, stack};

use super::Stage;
use crate::denoise::{Condition, Guidance};
use crate::error::{Error, Result};
use crate::spec::Prompting;

/// The guidance that a task's prompts ask for.
pub(super) fn guidance(prompting: &Prompting) -> Guidance {
    Guidance { scale: prompting.guidance_scale, rescale: prompting.guidance_rescale }
}

/// Encodes the prompts of the batch's pictures: context tokens `[n or 2n, tokens, width]`, unconditional rows first.
///
/// # Errors
/// [`Error::Input`] where the model has no text encoder, and whatever that fails with.
pub(super) fn condition(prompting: &Prompting, stage: &mut Stage<'_>) -> Result<Condition> {
    let Some(text) = stage.text.as_deref_mut() else {
        return Err(Error::input(
            "prompt",
            "this model directory has no text encoder",
            "choose [task.unconditional], or a model directory with text_encoder/ and tokenizer/",
        ));
    };
    let at = |texts: &[String], index: usize| texts.get(index).cloned().unwrap_or_default();
    let mut encode = |prompt: &str| {
        let embedding = match text.known(prompt) {
            Some(known) => known,
            None => {
                let embedding = text.encode(prompt, stage.cancel)?;
                embedding.warning.iter().for_each(|warning| (stage.warn)(warning.clone()));
                embedding
            }
        };
        Ok::<_, Error>(embedding)
    };
    let mut rows = Vec::with_capacity(2 * stage.prompts.len());
    if guidance(prompting).is_on() {
        for &prompt in stage.prompts {
            rows.push(encode(&at(&prompting.negative_prompts, prompt))?);
        }
    }
    for &prompt in stage.prompts {
        rows.push(encode(&at(&prompting.prompts, prompt))?);
    }
    let views: Vec<_> = rows.iter().map(|row| row.hidden.view()).collect();
    let context: ArrayD<f32> = stack(Axis(0), &views).map_err(|e| Error::input("prompt", e.to_string(), ""))?;
    Ok(Condition { context: Some(context), ..Condition::default() })
}
