//! The keys of every task that follows a prompt.

use std::ops::Bound::{Included, Unbounded};

use super::interval;
use super::reading::PromptReading;
use super::sizes::Sizes;
use crate::spec::reader::Table;
use crate::spec::writer::Writer;

/// What is to be seen and how strictly, for every task that follows a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompting {
    /// `prompt`, required where the model reads one: what is to be seen, a string or a list of them.
    pub prompts: Vec<String>,
    /// `negative_prompt`: what guidance leads away from, one string for all prompts or a list as long as theirs. Here
    /// there is one for each prompt, and none at all where none was given: that is the empty text, or zeros in its
    /// place for models that were trained so (Stable Diffusion XL).
    pub negative_prompts: Vec<String>,
    /// `guidance_scale = 7.5`: the weight w of classifier-free guidance, `uncond + w (cond - uncond)`, 0 or more; up
    /// to 1 there is no guidance. Models that are told the scale (latent consistency models, Flux) run once a step.
    pub guidance_scale: f64,
    /// `true_cfg_scale = 1.0`: the weight of classifier-free guidance for models that learnt the effect of guidance
    /// (Flux), away from the negative prompt and beside `guidance_scale`; up to 1 there is none.
    pub true_cfg_scale: f64,
    /// `guidance_interval = [0.2, 0.8]`: the shares of the run from which and to which guidance is at work (Kynkäänniemi
    /// et al. 2024, arXiv 2404.07724). In a call outside of it the model is run with the prompt alone, without the other
    /// branches. Absent: at all calls.
    ///
    /// Call i of n stands from i/n to (i+1)/n, as for `start` and `end` of `[[control]]`. The paper speaks of noise
    /// levels: its interval from σ_lo to σ_hi is that of the calls with such a sigma, which `ldm-ort plot --json` prints.
    pub guidance_interval: Option<[f64; 2]>,
    /// `guidance_rescale = 0.0`: how far the guided prediction is brought back to the deviation of the unguided one
    /// against overexposure, 0 to 1.
    pub guidance_rescale: f64,
    /// How the texts are read.
    pub reading: PromptReading,
    /// The sizes that Stable Diffusion XL is told.
    pub sizes: Sizes,
}

impl Prompting {
    /// Makes the prompting of these prompts, with everything else at its default.
    pub fn new(prompts: Vec<String>) -> Self {
        Self {
            prompts,
            negative_prompts: Vec::new(),
            guidance_scale: 7.5,
            true_cfg_scale: 1.0,
            guidance_interval: None,
            guidance_rescale: 0.0,
            reading: PromptReading::default(),
            sizes: Sizes::default(),
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
        if let Some(scale) = table.number("true_cfg_scale", Included(0.0), Unbounded) {
            prompting.true_cfg_scale = scale;
            if scale > 1.0 && is_there && prompting.negative_prompts.is_empty() {
                table.report_at("true_cfg_scale", "goes with `negative_prompt`, which may be \"\", and there is none");
            }
        }
        prompting.guidance_interval = interval::read(table);
        if let Some(rescale) = table.number("guidance_rescale", Included(0.0), Included(1.0)) {
            prompting.guidance_rescale = rescale;
        }
        prompting.reading = PromptReading::read(table);
        prompting.sizes = Sizes::read(table);
        if !is_there {
            let keys = ["negative_prompt", "guidance_scale", "true_cfg_scale", interval::KEY, "guidance_rescale"];
            for key in keys.iter().chain(PromptReading::KEYS).chain(Sizes::KEYS) {
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
        self.prompts = only(&self.prompts);
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.strings("prompt", &self.prompts);
        match self.negative_prompts.as_slice() {
            [] => {}
            [first, rest @ ..] if rest.iter().all(|other| other == first) => {
                writer.key("negative_prompt", first.clone());
            }
            differing => writer.key("negative_prompt", differing.to_vec()),
        }
        writer.key("guidance_scale", self.guidance_scale);
        writer.key_if("true_cfg_scale", Some(self.true_cfg_scale).filter(|&scale| scale > 1.0));
        writer.key_if(interval::KEY, self.guidance_interval.map(|interval| interval.to_vec()));
        writer.key("guidance_rescale", self.guidance_rescale);
        self.reading.write(writer);
        self.sizes.write(writer);
    }
}

fn texts(table: &mut Table<'_>, key: &str) -> Option<Vec<String>> {
    table.strings(key)?.iter().map(|item| item.string("a string")).collect()
}
