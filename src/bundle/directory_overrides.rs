//! Settings of a pipeline file about the model directory.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::component::ComponentKind;
use crate::family::Family;

/// The settings of a pipeline file that override those of the model directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DirectoryOverrides {
    /// Graph files by component, as absolute paths or relative to the current directory.
    pub graphs: BTreeMap<ComponentKind, PathBuf>,
    /// The roles of graph inputs that names and shapes do not show, by component: words of [`super::role_words`] by
    /// input name.
    pub roles: BTreeMap<ComponentKind, BTreeMap<String, String>>,
    /// The model's family.
    pub family: Option<Family>,
    /// The factor that multiplies latents after encoding and divides them before decoding.
    pub scaling_factor: Option<f64>,
    /// The value subtracted from latents before scaling.
    pub shift_factor: Option<f64>,
    /// The VAE's number of latent channels.
    pub latent_channels: Option<usize>,
    /// The denoiser's prediction type, in diffusers' words: `epsilon`, `v_prediction`, `sample`, ….
    pub prediction_type: Option<String>,
    /// The latent height and width of the model's training.
    pub sample_size: Option<usize>,
}
