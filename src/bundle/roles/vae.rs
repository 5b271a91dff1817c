//! The signatures of the VAE decoder and the VAE encoder.

use super::switch::Switch;
use super::table::Role;
use super::tensor_forms::{fixed_batch, output};
use super::unassigned::Unassigned;
use crate::bundle::component::{Component, ComponentKind};
use crate::bundle::json;
use crate::error::{Error, Result};
use crate::tensor::{Dim, TensorInfo};

/// The inputs and the output of a VAE decoder by their roles.
#[derive(Debug, Clone, PartialEq)]
pub struct VaeDecoderSignature {
    /// The latents, `[n, c, h, w]`.
    pub latent: TensorInfo,
    /// The image, `[n, 3, h * f, w * f]`, in -1 to 1.
    pub output: TensorInfo,
    /// Channels of a latent, from the shape, the configuration or the first convolution.
    pub latent_channels: Option<usize>,
    /// The batch the graph is fixed to.
    pub batch: Option<usize>,
    /// The latent height the graph is fixed to.
    pub height: Option<usize>,
    /// The latent width the graph is fixed to.
    pub width: Option<usize>,
    /// Boolean inputs left over from tracing, with their values.
    pub switches: Vec<Switch>,
}

impl VaeDecoderSignature {
    /// Finds the roles of a decoder's inputs and its output.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] with a table of names, types and shapes if the latents or the image are not found, or if an input
    /// is left that nothing can fill.
    pub fn resolve(component: &Component) -> Result<Self> {
        let mut unassigned = Unassigned::new(component);
        let switches = unassigned.switches();
        let kinds = [ComponentKind::VaeDecoder, ComponentKind::VqDecoder, ComponentKind::TinyVaeDecoder];
        let mut inputs = unassigned.take_roles(&kinds);
        let latent = unassigned.require(&mut inputs, Role::Latent)?;
        unassigned.finish()?;
        let output = output(component, 4, &["sample", "images", "image"])?;
        Ok(Self {
            latent_channels: latent_channels(component, &latent),
            batch: fixed_batch(component, [&latent, &output])?,
            height: latent.shape.get(2).and_then(Dim::fixed),
            width: latent.shape.get(3).and_then(Dim::fixed),
            latent,
            output,
            switches,
        })
    }

    /// Each input and the output with the description of its role.
    pub fn roles(&self) -> Vec<(&TensorInfo, String)> {
        let mut roles = vec![(&self.latent, Role::Latent.description().to_owned()), (&self.output, "image".to_owned())];
        roles.extend(self.switches.iter().map(|s| (&s.input, format!("switch, {}", s.value))));
        roles
    }
}

fn latent_channels(component: &Component, latent: &TensorInfo) -> Option<usize> {
    let fixed = latent.shape.get(1).and_then(Dim::fixed);
    fixed
        .or_else(|| json::count(&component.config, "latent_channels"))
        .or_else(|| component.graph.convolved_channels.get(&latent.name).copied())
}

/// Channels of the moments of a latent with this many.
fn moments(latent_channels: usize) -> usize {
    latent_channels.saturating_mul(2)
}

/// The kind of a VAE encoder's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaeEncoderKind {
    /// Means, then logarithms of variances, of a normal distribution: `[n, 2 * c, h, w]`.
    Moments,
    /// The latents themselves: `[n, c, h, w]`.
    Sample,
}

/// The inputs and the output of a VAE encoder by their roles.
#[derive(Debug, Clone, PartialEq)]
pub struct VaeEncoderSignature {
    /// The image, `[n, 3, h * f, w * f]`, in -1 to 1.
    pub sample: TensorInfo,
    /// The latents or their distribution.
    pub output: TensorInfo,
    /// The kind of `output`.
    pub kind: VaeEncoderKind,
    /// True if the graph samples the latents itself, so that no seed governs them.
    pub samples_inside: bool,
    /// The batch the graph is fixed to.
    pub batch: Option<usize>,
    /// The image's height that the graph is fixed to.
    pub height: Option<usize>,
    /// The image's width that the graph is fixed to.
    pub width: Option<usize>,
    /// Boolean inputs left over from tracing, with their values.
    pub switches: Vec<Switch>,
}

impl VaeEncoderSignature {
    /// Finds the roles of an encoder's inputs and its output, given the channels of a latent if they are known.
    ///
    /// Moments have twice as many channels as latents. If the graph leaves the number open, a graph with a noise operator
    /// gives latents; else the output's name decides.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the image or the latents are not found, the channels are neither those of a latent nor of its
    /// moments, or an input is left that nothing can fill.
    pub fn resolve(component: &Component, latent_channels: Option<usize>) -> Result<Self> {
        let graph = &component.graph;
        let mut unassigned = Unassigned::new(component);
        let switches = unassigned.switches();
        let mut inputs = unassigned.take_roles(&[ComponentKind::VaeEncoder, ComponentKind::VqEncoder]);
        let sample = unassigned.require(&mut inputs, Role::Image)?;
        unassigned.finish()?;
        let output = output(component, 4, &["latent_parameters", "latent_sample", "latent", "moments"])?;
        let samples_inside = graph.draws_noise();
        let kind = match (output.shape.get(1).and_then(Dim::fixed), latent_channels) {
            (Some(n), Some(c)) if n == moments(c) => VaeEncoderKind::Moments,
            (Some(n), Some(c)) if n == c => VaeEncoderKind::Sample,
            (Some(n), Some(c)) => {
                return Err(Error::model(
                    &graph.path,
                    format!("{} gives {n} channels; latents have {c}, their moments {}", component.kind, moments(c)),
                    "encoder and decoder are not of one model, or latent_channels in [model] is wrong",
                ));
            }
            _ if samples_inside || component.kind == ComponentKind::VqEncoder => VaeEncoderKind::Sample,
            _ => match output.name.as_str() {
                "latent_parameters" | "moments" | "parameters" => VaeEncoderKind::Moments,
                _ => VaeEncoderKind::Sample,
            },
        };
        Ok(Self {
            batch: fixed_batch(component, [&sample, &output])?,
            height: sample.shape.get(2).and_then(Dim::fixed),
            width: sample.shape.get(3).and_then(Dim::fixed),
            sample,
            output,
            kind,
            samples_inside,
            switches,
        })
    }

    /// The warning that no seed governs the encoder's output, if none does.
    pub fn warning(&self, kind: ComponentKind) -> Option<String> {
        self.samples_inside.then(|| {
            format!(
                "{kind} draws its noise inside the graph, where the seed does not reach it, so that no image of this \
                 pipeline can be drawn again; export the VAE so that it gives moments (Optimum from 1.23 on, \
                 or scripts/export.py)"
            )
        })
    }

    /// Each input and the output with the description of its role.
    pub fn roles(&self) -> Vec<(&TensorInfo, String)> {
        let result = match (self.kind, self.samples_inside) {
            (VaeEncoderKind::Moments, _) => "moments of the latents",
            (VaeEncoderKind::Sample, true) => "latents, drawn inside the graph",
            (VaeEncoderKind::Sample, false) => "latents",
        };
        let mut roles = vec![(&self.sample, Role::Image.description().to_owned()), (&self.output, result.to_owned())];
        roles.extend(self.switches.iter().map(|s| (&s.input, format!("switch, {}", s.value))));
        roles
    }
}
