//! The keys of every task that follows a prompt.

use std::ops::Bound::{Included, Unbounded};

use super::guidance_interval;
use super::prompt_reading::PromptReading;
use super::prompt_texts::texts;
use super::sizes::SizeConditioning;
use crate::keys::{Item, Table, Value, Writer};
use crate::text::PromptText;

/// The prompts and their guidance, for every task that follows a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompting {
    /// `prompt`, required if the model reads one: text describing the image, a string or a list of them.
    pub prompts: Vec<String>,
    /// `negative_prompt`: text describing what the image should not show, one string for all prompts or a list as long as
    /// theirs. This field has one for each prompt, or none if the key is absent: the empty text then, or zeros for models
    /// that were trained so (Stable Diffusion XL).
    pub negative_prompts: Vec<String>,
    /// The texts of the second and of the third text encoder, if they differ.
    pub later: [LaterPrompts; 2],
    /// `guidance_scale`: the weight w of classifier-free guidance, `uncond + w (cond - uncond)`, 0 or more; up to 1 there
    /// is no guidance. Guidance-distilled models (latent consistency models, Flux) take it as an input and run once a step.
    /// Absent: the default of the task's pipeline class in diffusers, such as 7.5, or 5.0 for Stable Diffusion XL.
    pub guidance_scale: Option<f64>,
    /// `true_cfg_scale = 1.0`: the weight of classifier-free guidance for guidance-distilled models
    /// (Flux), away from the negative prompt and in addition to `guidance_scale`; up to 1 there is none.
    pub true_cfg_scale: f64,
    /// `guidance_interval = [0.2, 0.8]`: the shares of the run between which guidance is applied (Kynkäänniemi et al.
    /// 2024, arXiv 2404.07724). An evaluation outside of it runs the model with the prompt alone, without the other
    /// branches. Absent: in all evaluations.
    ///
    /// Evaluation i of n lasts from i/n to (i+1)/n, as for `start` and `end` of `[[control]]`. The paper speaks of noise
    /// levels: its interval from σ_lo to σ_hi is that of the evaluations with such a sigma, which `ldm-ort plot --json` prints.
    pub guidance_interval: Option<[f64; 2]>,
    /// `guidance_rescale = 0.0`: the share to which the guided prediction is brought back to the deviation of the
    /// conditional one, against overexposure, 0 to 1.
    pub guidance_rescale: f64,
    /// The reading of the texts.
    pub reading: PromptReading,
    /// The size conditioning of Stable Diffusion XL.
    pub sizes: SizeConditioning,
}

/// `prompt_2` and `negative_prompt_2`, `prompt_3` and `negative_prompt_3`: the texts of a model's second or third text
/// encoder instead of `prompt` and `negative_prompt`, in Stable Diffusion XL, 3 and Flux. Each is one string for
/// all prompts or a list as long as theirs. The string `""` means the first encoder's text, as in diffusers' pipelines, which
/// compute `prompt_2 or prompt`; within a list it is the empty text.
///
/// Encoders are counted as the model has them: a refiner's only one reads `prompt`, and Flux's T5 is its second.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaterPrompts {
    /// One for each prompt; none if the encoder reads `prompt`.
    pub prompts: Vec<String>,
    /// One for each prompt; none if the encoder reads `negative_prompt`.
    pub negative_prompts: Vec<String>,
}

/// The keys of [`LaterPrompts`], that of the negative prompt behind the other.
pub(crate) const LATER: [[&str; 2]; 2] = [["prompt_2", "negative_prompt_2"], ["prompt_3", "negative_prompt_3"]];

impl Prompting {
    /// Makes the prompting of these prompts, with everything else at its default.
    pub fn new(prompts: Vec<String>) -> Self {
        Self {
            prompts,
            negative_prompts: Vec::new(),
            later: Default::default(),
            guidance_scale: None,
            true_cfg_scale: 1.0,
            guidance_interval: None,
            guidance_rescale: 0.0,
            reading: PromptReading::default(),
            sizes: SizeConditioning::default(),
        }
    }

    pub(super) fn read(table: &mut Table<'_>) -> Self {
        table.require("prompt", "a string or an array of strings");
        Self::read_if_there(table).unwrap_or_else(|| Self::new(Vec::new()))
    }

    /// Reads the prompting of a task that some models do without a prompt.
    pub(super) fn read_if_there(table: &mut Table<'_>) -> Option<Self> {
        let is_there = table.get("prompt").is_some();
        let prompts = texts(table, "prompt");
        let mut prompting = Self::new(prompts.unwrap_or_default());
        let count = prompting.prompts.len();
        prompting.negative_prompts = one_for_each(table, "negative_prompt", count);
        for (keys, later) in LATER.into_iter().zip(&mut prompting.later) {
            let [prompts, negative_prompts] = keys.map(|key| own_text(table, key, count));
            *later = LaterPrompts { prompts, negative_prompts };
            if is_there {
                keys.into_iter().zip(["prompt", "negative_prompt"]).for_each(|(key, of)| goes_with(table, key, of));
            }
        }
        prompting.guidance_scale = table.number("guidance_scale", Included(0.0), Unbounded);
        if let Some(scale) = table.number("true_cfg_scale", Included(0.0), Unbounded) {
            prompting.true_cfg_scale = scale;
            if scale > 1.0 && is_there && prompting.negative_prompts.is_empty() {
                table.report_at("true_cfg_scale", "goes with `negative_prompt`, which may be \"\", and there is none");
            }
        }
        prompting.guidance_interval = guidance_interval::read(table);
        if let Some(rescale) = table.number("guidance_rescale", Included(0.0), Included(1.0)) {
            prompting.guidance_rescale = rescale;
        }
        prompting.reading = PromptReading::read(table);
        prompting.sizes = SizeConditioning::read(table);
        if !is_there {
            let keys =
                ["negative_prompt", "guidance_scale", "true_cfg_scale", guidance_interval::KEY, "guidance_rescale"];
            for key in keys.iter().chain(LATER.as_flattened()).chain(PromptReading::KEYS).chain(SizeConditioning::KEYS)
            {
                if table.get(key).is_some() {
                    table.report_at(key, "goes with `prompt`, and there is none");
                }
            }
        }
        is_there.then_some(prompting)
    }

    /// Leaves one prompt of several.
    pub(super) fn keep_only(&mut self, index: usize) {
        let only = |texts: &[String]| texts.get(index).cloned().into_iter().collect();
        self.negative_prompts = only(&self.negative_prompts);
        for later in &mut self.later {
            later.prompts = only(&later.prompts);
            later.negative_prompts = only(&later.negative_prompts);
        }
        self.prompts = only(&self.prompts);
    }

    /// Returns the text encoders' input for the prompt with this index, or for its negative prompt; where that was not
    /// given, for
    /// the empty one.
    pub fn text(&self, index: usize, is_negative: bool) -> PromptText {
        let at = |texts: &[String]| texts.get(index).cloned();
        let later = self.later.iter().map(|later| if is_negative { &later.negative_prompts } else { &later.prompts });
        let text = at(if is_negative { &self.negative_prompts } else { &self.prompts }).unwrap_or_default();
        PromptText { text, later: later.map(|texts| at(texts)).collect(), is_negative }
    }

    /// The number, from 1, of the last text encoder with texts of its own; `None` if all read the same.
    pub fn encoders(&self) -> Option<usize> {
        let is_told = |later: &LaterPrompts| !later.prompts.is_empty() || !later.negative_prompts.is_empty();
        self.later.iter().rposition(is_told).map(|at| at + 2)
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.strings("prompt", &self.prompts);
        let is_own_empty = |key: &str, text: &str| text.is_empty() && LATER.as_flattened().contains(&key);
        let mut one_for_each = |key: &str, texts: &[String]| match texts {
            [] => {}
            [first, rest @ ..] if rest.iter().all(|other| other == first) && !is_own_empty(key, first) => {
                writer.key(key, first.clone());
            }
            listed => writer.key(key, listed.to_vec()),
        };
        one_for_each("negative_prompt", &self.negative_prompts);
        for ([prompt, negative], later) in LATER.into_iter().zip(&self.later) {
            one_for_each(prompt, &later.prompts);
            one_for_each(negative, &later.negative_prompts);
        }
        writer.key_if("guidance_scale", self.guidance_scale);
        writer.key_if("true_cfg_scale", Some(self.true_cfg_scale).filter(|&scale| scale > 1.0));
        guidance_interval::write(self.guidance_interval, writer);
        writer.key("guidance_rescale", self.guidance_rescale);
        self.reading.write(writer);
        self.sizes.write(writer);
    }
}

/// A later encoder's texts; none for the string `""`.
fn own_text(table: &mut Table<'_>, key: &str, count: usize) -> Vec<String> {
    let is_empty = |item: Item<'_>| matches!(item.value(), Value::String(text) if text.is_empty());
    match table.get(key).is_some_and(is_empty) {
        true => Vec::new(),
        false => one_for_each(table, key, count),
    }
}

/// One text for all of `count` prompts, or one for each.
fn one_for_each(table: &mut Table<'_>, key: &str, count: usize) -> Vec<String> {
    let Some(texts) = texts(table, key) else { return Vec::new() };
    match <[String; 1]>::try_from(texts) {
        Ok([one]) => vec![one; count],
        Err(several) => {
            if several.len() != count && count > 0 {
                let found = several.len();
                let message = format!("expected one string, or one for each of {count} prompts, found {found}");
                table.report_at(key, message);
            }
            several
        }
    }
}

/// The problem of a later encoder's text in the file if the first encoder's was given on the command line.
pub(crate) fn beside_another(of: &str) -> String {
    format!("stands beside another `{of}` in the file; give this one with --set, too")
}

/// Reports a later encoder's text where what it goes with is not there, or was given for another one on the command line.
fn goes_with(table: &mut Table<'_>, key: &str, of: &str) {
    let Some(own) = table.get(key).map(|item| item.origin()) else { return };
    match table.get(of).map(|item| item.origin()) {
        None => table.report_at(key, format!("goes with `{of}`, and there is none")),
        Some(origin) if origin.is_command_line() && !own.is_command_line() => {
            table.report_at(key, beside_another(of));
        }
        Some(_) => {}
    }
}
