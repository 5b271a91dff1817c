//! The keys of a pipeline file to start from.

use crate::bundle::{Bundle, DenoiserSignature};
use crate::family::Defaults;

/// A model for which a task makes the sample keys of its table, and the values that they state.
pub(crate) struct SampleKeys<'a> {
    pub(super) bundle: &'a Bundle,
    /// The denoiser's signature, if it can be read.
    pub(super) signature: Option<DenoiserSignature>,
    /// The defaults of the task's pipeline class.
    pub(super) defaults: Defaults,
    /// The guidance scale.
    pub(super) guidance: f64,
}

impl<'a> SampleKeys<'a> {
    pub(crate) fn new(bundle: &'a Bundle, defaults: Defaults, guidance: f64) -> Self {
        let signature = bundle.denoiser().and_then(DenoiserSignature::resolve).ok();
        Self { bundle, signature, defaults, guidance }
    }

    /// True if the model has a text encoder.
    pub(super) fn reads_text(&self) -> bool {
        self.bundle.text_encoders().next().is_some()
    }

    /// True if samples are packed into tokens.
    pub(super) fn is_packed(&self) -> bool {
        self.signature.as_ref().is_some_and(|signature| signature.is_packed())
    }

    pub(super) fn prompt(&self) -> String {
        "prompt = \"a photograph of an astronaut riding a horse\"    # or a list of prompts".to_owned()
    }

    pub(super) fn instruction(&self) -> String {
        "prompt = \"make it snow\"".to_owned()
    }

    pub(super) fn negative_prompt(&self) -> String {
        match self.is_packed() {
            true => "# negative_prompt = \"blurry\"    # with true_cfg_scale = 4.0, at twice the time".to_owned(),
            false => "# negative_prompt = \"blurry\"".to_owned(),
        }
    }

    pub(super) fn image(&self) -> String {
        "image = \"input.png\"    # relative to this file".to_owned()
    }

    pub(super) fn guidance_scale(&self) -> String {
        format!("guidance_scale = {:?}", self.guidance)
    }

    /// `strength`, with a comment.
    pub(super) fn strength(&self, comment: &str) -> String {
        format!("strength = {:?}    # {comment}", self.defaults.strength())
    }

    /// A `[[condition]]` table for the graph in a folder.
    pub(super) fn condition(folder: &str) -> Vec<String> {
        let (told_as, source) = match folder.contains("label") || folder.contains("segmentation") {
            true => ("channels", "label_map = \"labels.png\"    # a label a pixel".to_owned()),
            false => (
                "tokens",
                "boxes = [{ class = 0, box = [0.1, 0.1, 0.9, 0.9] }]    # left, top, right, bottom".to_owned(),
            ),
        };
        vec![
            String::new(),
            "[[condition]]".to_owned(),
            format!("as = \"{told_as}\""),
            format!("graph = {}", toml::Value::String(folder.to_owned())),
            source,
        ]
    }
}
