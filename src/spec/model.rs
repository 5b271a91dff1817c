//! `[model]`: the model directory, and overrides of its configuration.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::path::{Path, PathBuf};

use crate::bundle::{self, ComponentKind};
use crate::family::Family;
use crate::keys::{Table, Writer, integer};

const PREDICTION_TYPES: &[&str] = &["epsilon", "v_prediction", "sample"];

/// `[model]`: the model directory. Everything but `path` overrides what the directory says, and is not needed for a
/// directory in a known layout.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelSpec {
    /// `path`, required: the model directory.
    pub path: PathBuf,
    /// `family`: the model's family, for a directory that does not name a pipeline class that is known: stable-diffusion,
    /// stable-diffusion-depth, stable-diffusion-upscaler, latent-consistency, stable-diffusion-xl, stable-diffusion-3, flux,
    /// flux-kontext, pixart-alpha, pixart-sigma, latent-diffusion or pixel-diffusion. It goes before the class in
    /// model_index.json. Absent: that of the class, or else of what the denoiser takes.
    pub family: Option<Family>,
    /// `scaling_factor`: what the VAE's latents are multiplied by to become the model's, greater than 0.
    pub scaling_factor: Option<f64>,
    /// `shift_factor`: what is subtracted from the VAE's latents before they are scaled.
    pub shift_factor: Option<f64>,
    /// `latent_channels`: the channels of a latent, 1 to 1024.
    pub latent_channels: Option<usize>,
    /// `prediction_type`: what the model predicts, `epsilon`, `v_prediction` or `sample`.
    pub prediction_type: Option<String>,
    /// `sample_size`: the width and height of the latents the model was trained at, 1 to 16384.
    pub sample_size: Option<usize>,
    /// `decoder = "full"`: the decoder of the latents: that of the VAE, or with `"tiny"` the component tiny_vae_decoder, a
    /// tiny autoencoder (TAESD), which is faster and less exact.
    pub decoder: DecoderChoice,
    /// `[model.NAME]`: single components, by their name: unet, transformer, text_encoder, text_encoder_2,
    /// text_encoder_3, controlnet, class_embedder, vae_encoder, vae_decoder, vqvae_encoder, vqvae_decoder or
    /// tiny_vae_decoder.
    pub components: BTreeMap<ComponentKind, ComponentSpec>,
}

/// The decoder of the latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecoderChoice {
    /// `"full"`: the VAE's own decoder.
    #[default]
    Full,
    /// `"tiny"`: the component tiny_vae_decoder.
    Tiny,
}

/// `[model.NAME]`: one component of the model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ComponentSpec {
    /// `graph`: the ONNX file, relative to the pipeline file.
    pub graph: Option<PathBuf>,
    /// `inputs = { "NAME" = "ROLE" }`: what inputs of the graph are for, where neither their names nor their shapes
    /// tell. The roles of a unet are sample, timestep, context, text_embeds, time_ids, timestep_cond and class_labels; of
    /// a transformer, sample, timestep, context, context_mask, text_embeds, resolution, aspect_ratio, guidance, img_ids
    /// and txt_ids; of a control network (the model's own and those of `[[control]] path`), sample, timestep, context,
    /// control, conditioning_scale, text_embeds and time_ids; of a text encoder, input_ids and attention_mask; of a VAE
    /// encoder, sample; of a VAE decoder and a tiny one, latent.
    pub inputs: BTreeMap<String, String>,
}

impl ModelSpec {
    /// The model in this directory, with nothing overridden.
    pub fn at(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_path_buf(), ..Self::default() }
    }

    /// The overrides with which the model directory is read.
    pub fn overrides(&self) -> bundle::DirectoryOverrides {
        let graph = |(kind, component): (&ComponentKind, &ComponentSpec)| Some((*kind, component.graph.clone()?));
        bundle::DirectoryOverrides {
            graphs: self.components.iter().filter_map(graph).collect(),
            roles: self.components.iter().map(|(kind, component)| (*kind, component.inputs.clone())).collect(),
            family: self.family,
            scaling_factor: self.scaling_factor,
            shift_factor: self.shift_factor,
            latent_channels: self.latent_channels,
            prediction_type: self.prediction_type.clone(),
            sample_size: self.sample_size,
        }
    }

    pub(super) fn read(mut table: Table<'_>) -> Self {
        table.require("path", "the path of a model directory");
        let path = table.file_path("path").unwrap_or_default();
        let family = table.choice("family", "family", &Family::names()).and_then(Family::from_name);
        let scaling_factor = table.number("scaling_factor", Excluded(0.0), Unbounded);
        let shift_factor = table.number("shift_factor", Unbounded, Unbounded);
        let latent_channels = table.integer("latent_channels", 1, 1024);
        let prediction_type = table.choice("prediction_type", "prediction type", PREDICTION_TYPES).map(str::to_owned);
        let sample_size = table.integer("sample_size", 1, 16384);
        let decoder = match table.choice("decoder", "decoder", &["full", "tiny"]) {
            Some("tiny") => DecoderChoice::Tiny,
            _ => DecoderChoice::Full,
        };

        let mut components = BTreeMap::new();
        for kind in component_kinds() {
            if table.get(kind.name()).is_some() {
                let mut component = table.table(kind.name());
                let graph = component.file_path("graph");
                let takes_roles = !bundle::role_words(kind).is_empty();
                let inputs = if takes_roles { inputs(&component.table("inputs"), kind) } else { BTreeMap::new() };
                component.finish();
                components.insert(kind, ComponentSpec { graph, inputs });
            }
        }
        table.finish();
        Self {
            path,
            family,
            scaling_factor,
            shift_factor,
            latent_channels,
            prediction_type,
            sample_size,
            decoder,
            components,
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.table(&["model"]);
        writer.path("path", &self.path);
        writer.key_if("family", self.family.map(Family::name));
        writer.key_if("scaling_factor", self.scaling_factor);
        writer.key_if("shift_factor", self.shift_factor);
        writer.key_if("latent_channels", self.latent_channels.map(integer));
        writer.key_if("prediction_type", self.prediction_type.clone());
        writer.key_if("sample_size", self.sample_size.map(integer));
        writer.key_if("decoder", (self.decoder == DecoderChoice::Tiny).then_some("tiny"));
        for (kind, component) in &self.components {
            writer.table(&["model", kind.name()]);
            if let Some(graph) = &component.graph {
                writer.path("graph", graph);
            }
            if !component.inputs.is_empty() {
                writer.table(&["model", kind.name(), "inputs"]);
                component.inputs.iter().for_each(|(input, role)| writer.key(input, role.clone()));
            }
        }
    }
}

/// The roles of a graph's inputs: each a word that is known for this component, and no two of them the same.
fn inputs(table: &Table<'_>, kind: ComponentKind) -> BTreeMap<String, String> {
    let words = &bundle::role_words(kind);
    let mut inputs = BTreeMap::new();
    for (name, item) in table.any_keys() {
        let Some(role) = item.choice("role", words) else { continue };
        if let Some((other, _)) = inputs.iter().find(|(_, given)| *given == role) {
            item.report(format!("`{other}` is the {role} already; give the role to one input"));
        }
        inputs.insert(name.to_owned(), role.to_owned());
    }
    inputs
}

/// The components that have tables: those that a pipeline runs.
pub(super) fn component_kinds() -> impl Iterator<Item = ComponentKind> {
    ComponentKind::ALL.into_iter().filter(|kind| *kind != ComponentKind::SafetyChecker)
}
