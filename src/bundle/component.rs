//! The components of a model.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::onnx::GraphFile;
use crate::aliases::{Alias, AliasKind};
use crate::error::Result;

/// The part of a model that a graph is.
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
    /// A control network.
    ControlNet,
    /// The encoder of a KL-regularised VAE.
    VaeEncoder,
    /// The decoder of a KL-regularised VAE.
    VaeDecoder,
    /// The encoder of a vector-quantised VAE.
    VqEncoder,
    /// The decoder of a vector-quantised VAE, quantising inside.
    VqDecoder,
    /// The decoder of a tiny autoencoder (TAESD) for the same latents: for previews, and for images if the pipeline file
    /// chooses it.
    TinyVaeDecoder,
    /// The table of a class-conditional model that turns a class into a token.
    ClassEmbedder,
    /// A graph for another condition, which the pipeline file names.
    Conditioner,
    /// The classifier of unwanted images; recognised, not run.
    SafetyChecker,
}

impl ComponentKind {
    /// All kinds that have a place in a model directory, in the order in which they are reported.
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

    /// The name in pipeline.toml, such as `unet`; also that of the component's directory.
    pub fn name(self) -> &'static str {
        self.directories()[0]
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }

    /// The directories in which exporters put this component, the usual one first.
    pub(crate) fn directories(self) -> &'static [&'static str] {
        match self {
            Self::Unet => &["unet", "unetxl"],
            Self::Transformer => &["transformer"],
            Self::TextEncoder => &["text_encoder", "clip"],
            Self::TextEncoder2 => &["text_encoder_2", "clip2"],
            Self::TextEncoder3 => &["text_encoder_3", "t5"],
            Self::VaeEncoder => &["vae_encoder"],
            // Diffusers' old export of the x4 upscaler, and ONNX Runtime's own, have one directory for the decoder.
            Self::VaeDecoder => &["vae_decoder", "vae"],
            Self::VqEncoder => &["vqvae_encoder"],
            Self::VqDecoder => &["vqvae_decoder", "vqvae"],
            // The names under which TAESD's decoders are passed around.
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

    /// The directories whose config.json describes this component if its own has none.
    pub(crate) fn config_directories(self) -> &'static [&'static str] {
        match self {
            Self::VaeEncoder | Self::VaeDecoder => &["vae_decoder", "vae_encoder", "vae"],
            Self::VqEncoder | Self::VqDecoder => &["vqvae_decoder", "vqvae_encoder", "vqvae"],
            _ => &[],
        }
    }

    /// For a text encoder, its number counted from 1; the tokenizer that belongs to it has the same.
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
    /// Its part of the model.
    pub kind: ComponentKind,
    /// Its graph.
    pub graph: GraphFile,
    /// Its config.json; empty if there is none.
    pub config: Map<String, Value>,
    /// The path of that config.json.
    pub config_path: Option<PathBuf>,
    /// The roles of the graph's inputs that the pipeline file gives: words of [`super::role_words`] by the input's name.
    pub roles: BTreeMap<String, String>,
}

impl Component {
    /// Takes those of the given roles that are for inputs of its graph, where one map serves several graphs.
    pub(super) fn take_roles(&mut self, given: Option<&BTreeMap<String, String>>) {
        self.roles.retain(|name, _| self.graph.input(name).is_some());
        let own = given.into_iter().flatten().filter(|(name, _)| self.graph.input(name).is_some());
        self.roles.extend(own.map(|(name, role)| (name.clone(), role.clone())));
    }

    /// The warning about the folder of its graph, if that has an old name.
    pub fn old_name_warning(&self) -> Option<String> {
        let folder = self.graph.path.parent()?.file_name()?.to_str()?;
        let alias = Alias::find(AliasKind::Folder, folder).filter(|alias| alias.new == self.kind.name())?;
        Some(alias.warning(&format!("{folder}/"), &format!("{}/", alias.new)))
    }

    /// The digest of its graph: see [`GraphFile::digest`].
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] where a file cannot be read.
    pub fn digest(&self) -> Result<String> {
        self.graph.digest()
    }
}
