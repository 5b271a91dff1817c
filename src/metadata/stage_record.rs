//! The records of the stages after the first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::FewerEvaluations;

/// The record of one stage, which processed the output of the stage before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The form of its input, `latents` or `image`.
    #[serde(alias = "hand")]
    pub input: String,
    /// The model directory's name.
    pub model: String,
    /// SHA-256 of all graphs and their weights, in hexadecimal.
    pub model_digest: String,
    /// See [`Record::weights`](super::Record::weights).
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub weights: BTreeMap<String, String>,
    /// See [`Record::files`](super::Record::files).
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub files: BTreeMap<String, String>,
    /// The task's name in pipeline.toml.
    pub task: String,
    /// The scheduler's name in pipeline.toml.
    pub scheduler: String,
    /// The number of steps.
    pub steps: usize,
    /// The guidance scale.
    pub guidance_scale: f64,
    /// The image-to-image strength, the fraction of the steps that were run, if noise was added.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub strength: Option<f64>,
    /// The fraction of the schedule that earlier stages completed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub denoising_start: Option<f64>,
    /// The component that decoded the image, if it is not the VAE's own decoder: `tiny_vae_decoder`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decoder: Option<String>,
    /// The number of evaluations, if it was reduced by a guidance interval or caching.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fewer_evaluations: Option<FewerEvaluations>,
}
