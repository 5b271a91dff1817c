//! The components of a model.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::onnx::GraphFile;
use crate::aliases::{Alias, AliasKind};
use crate::error::Result;

/// The kind of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ComponentKind {
    /// The first text encoder.
    TextEncoder,
    /// The second text encoder.
    TextEncoder2,
    /// The third text encoder.
    TextEncoder3,
    /// The denoiser of the latent diffusion paper and of Stable Diffusion up to XL.
    Unet,
    /// The denoiser of later families.
    Transformer,
    /// A ControlNet.
    ControlNet,
    /// The encoder of a KL autoencoder (VAE).
    VaeEncoder,
    /// The decoder of a KL autoencoder (VAE).
    VaeDecoder,
    /// The encoder of a vector-quantized autoencoder (VQ).
    VqEncoder,
    /// The decoder of a vector-quantized autoencoder (VQ), including its quantization.
    VqDecoder,
    /// A tiny autoencoder's decoder (TAESD) for the same latents: for previews, and for images if the pipeline file
    /// selects it.
    TinyVaeDecoder,
    /// The class embedding table of a class-conditional model.
    ClassEmbedder,
    /// A graph for another condition, named in the pipeline file.
    Conditioner,
    /// The safety classifier; recognized, not run.
    SafetyChecker,
}

impl ComponentKind {
    /// All kinds that can be in a model directory, in the order of reports.
    pub const ALL: [Self; 13] = [
        Self::TextEncoder,
        Self::TextEncoder2,
        Self::TextEncoder3,
        Self::Unet,
        Self::Transformer,
        Self::ControlNet,
        Self::ClassEmbedder,
        Self::VaeEncoder,
        Self::VaeDecoder,
        Self::VqEncoder,
        Self::VqDecoder,
        Self::TinyVaeDecoder,
        Self::SafetyChecker,
    ];

    /// Returns the name in pipeline.toml, such as `unet`; also that of the component's directory.
    pub fn name(self) -> &'static str {
        self.directories()[0]
    }

    /// Returns the kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }

    /// Returns the directories in which exporters put this component, the usual one first.
    pub(crate) fn directories(self) -> &'static [&'static str] {
        match self {
            Self::Unet => &["unet", "unetxl"],
            Self::Transformer => &["transformer"],
            Self::TextEncoder => &["text_encoder", "clip"],
            Self::TextEncoder2 => &["text_encoder_2", "clip2"],
            Self::TextEncoder3 => &["text_encoder_3", "t5"],
            Self::VaeEncoder => &["vae_encoder"],
            // diffusers' old export of the x4 upscaler, and ONNX Runtime's own, have one directory for the decoder.
            Self::VaeDecoder => &["vae_decoder", "vae"],
            Self::VqEncoder => &["vqvae_encoder"],
            Self::VqDecoder => &["vqvae_decoder", "vqvae"],
            // The common names of TAESD's decoders.
            Self::TinyVaeDecoder => &[
                "tiny_vae_decoder",
                "small_decoder",
                "taesd_decoder",
                "taesdxl_decoder",
                "taesd3_decoder",
                "taef1_decoder",
            ],
            Self::ControlNet => &["controlnet", "cnet"],
            Self::ClassEmbedder => &["class_embedder"],
            Self::Conditioner => &["conditioner"],
            Self::SafetyChecker => &["safety_checker"],
        }
    }

    /// Returns the directories whose config.json describes this component if its own has none.
    pub(crate) fn config_directories(self) -> &'static [&'static str] {
        match self {
            Self::VaeEncoder | Self::VaeDecoder => &["vae_decoder", "vae_encoder", "vae"],
            Self::VqEncoder | Self::VqDecoder => &["vqvae_decoder", "vqvae_encoder", "vqvae"],
            _ => &[],
        }
    }

    /// Returns a text encoder's number, counted from 1; its tokenizer has the same.
    pub fn text_encoder_number(self) -> Option<usize> {
        match self {
            Self::TextEncoder => Some(1),
            Self::TextEncoder2 => Some(2),
            Self::TextEncoder3 => Some(3),
            _ => None,
        }
    }
}

impl std::fmt::Display for ComponentKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One component: a graph and its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// Its kind.
    pub kind: ComponentKind,
    /// Its graph.
    pub graph: GraphFile,
    /// Its config.json; empty if there is none.
    pub config: Map<String, Value>,
    /// The path of that config.json.
    pub config_path: Option<PathBuf>,
    /// The roles of the graph's inputs in the pipeline file: words of [`super::role_words`] by input name.
    pub roles: BTreeMap<String, String>,
}

impl Component {
    /// Keeps those of the given roles that are for inputs of its graph; one map may serve several graphs.
    pub(super) fn take_roles(&mut self, given: Option<&BTreeMap<String, String>>) {
        self.roles.retain(|name, _| self.graph.input(name).is_some());
        let own = given.into_iter().flatten().filter(|(name, _)| self.graph.input(name).is_some());
        self.roles.extend(own.map(|(name, role)| (name.clone(), role.clone())));
    }

    /// Returns a warning if the folder of its graph has an old name.
    pub fn old_name_warning(&self) -> Option<String> {
        let folder = self.graph.path.parent()?.file_name()?.to_str()?;
        let alias = Alias::find(AliasKind::Folder, folder).filter(|alias| alias.new == self.kind.name())?;
        Some(alias.warning(&format!("{folder}/"), &format!("{}/", alias.new)))
    }

    /// Returns the digest of its graph: see [`GraphFile::digest`].
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] if a file cannot be read.
    pub fn digest(&self) -> Result<String> {
        self.graph.digest()
    }
}
