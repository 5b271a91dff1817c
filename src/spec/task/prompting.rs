//! The keys of every task that follows a prompt.

use std::ops::Bound::{Included, Unbounded};

use crate::spec::reader::Table;
use crate::spec::writer::Writer;

/// What is to be seen and how strictly, for every task that follows a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompting {
    /// `prompt`, required: what is to be seen, a string or a list of them.
    pub prompts: Vec<String>,
    /// `negative_prompt = ""`: what guidance leads away from, one string for all prompts or a list as long as
    /// theirs. Here there is one for each prompt.
    pub negative_prompts: Vec<String>,
    /// `guidance_scale = 7.5`: the weight w of classifier-free guidance, `uncond + w (cond - uncond)`, 0 or more; up
    /// to 1 there is no guidance.
    pub guidance_scale: f64,
    /// `guidance_rescale = 0.0`: how far the guided prediction is brought back to the deviation of the unguided one
    /// against overexposure, 0 to 1.
    pub guidance_rescale: f64,
}

impl Prompting {
    /// Makes the prompting of these prompts, with everything else at its default.
    pub fn new(prompts: Vec<String>) -> Self {
        let negative_prompts = vec![String::new(); prompts.len()];
        Self { prompts, negative_prompts, guidance_scale: 7.5, guidance_rescale: 0.0 }
    }

    pub(super) fn read(table: &mut Table<'_>) -> Self {
        table.require("prompt", "a string or an array of strings");
        let prompts = texts(table, "prompt");
        let mut prompting = Self::new(prompts.unwrap_or_default());
        let count = prompting.prompts.len();
        if let Some(negative) = texts(table, "negative_prompt") {
            prompting.negative_prompts = match <[String; 1]>::try_from(negative) {
                Ok([one]) => vec![one; count],
                Err(several) => {
                    if several.len() != count && count > 0 {
                        let found = several.len();
                        let message = format!("expected one string, or one for each of {count} prompts, found {found}");
                        table.report_at("negative_prompt", message);
                    }
                    several
                }
            };
        }
        if let Some(scale) = table.number("guidance_scale", Included(0.0), Unbounded) {
            prompting.guidance_scale = scale;
        }
        if let Some(rescale) = table.number("guidance_rescale", Included(0.0), Included(1.0)) {
            prompting.guidance_rescale = rescale;
        }
        prompting
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.strings("prompt", &self.prompts);
        match self.negative_prompts.as_slice() {
            [first, rest @ ..] if rest.iter().all(|other| other == first) => {
                writer.key("negative_prompt", first.clone());
            }
            differing => writer.key("negative_prompt", differing.to_vec()),
        }
        writer.key("guidance_scale", self.guidance_scale);
        writer.key("guidance_rescale", self.guidance_rescale);
    }
}

fn texts(table: &mut Table<'_>, key: &str) -> Option<Vec<String>> {
    table.strings(key)?.iter().map(|item| item.string("a string")).collect()
}
