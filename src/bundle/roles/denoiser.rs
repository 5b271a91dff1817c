//! The signature of a denoiser.

use std::collections::BTreeMap;

use super::columns::Filler;
use super::residuals::{Residuals, residuals};
use super::switch::Switch;
use super::table::Role;
use super::tensor_forms::{axis_length, fixed_batch, output};
use super::unassigned::{Unassigned, is_packed};
use crate::bundle::component::{Component, ComponentKind};
use crate::bundle::json;
use crate::error::Result;
use crate::tensor::TensorInfo;

/// The inputs and the output of a denoiser by their roles.
#[derive(Debug, Clone, PartialEq)]
pub struct DenoiserSignature {
    /// The noisy latents, `[n, c, h, w]`; if [`is_packed`](Self::is_packed), `[n, h/2 · w/2, 4 c]`.
    pub sample: TensorInfo,
    /// The timestep: a scalar, `[1]` or `[n]`; integer or float.
    pub timestep: TensorInfo,
    /// The other inputs.
    pub inputs: BTreeMap<Role, TensorInfo>,
    /// Rows of the table that the class labels index, if they index one.
    pub class_rows: Option<usize>,
    /// The inputs for a ControlNet's residuals.
    pub residuals: Residuals,
    /// Boolean inputs left over from tracing, with their values.
    pub constants: Vec<Switch>,
    /// The prediction, in the form of `sample`.
    pub output: TensorInfo,
    /// The batch the graph is fixed to.
    pub batch: Option<usize>,
    /// c of `sample`, from its shape, the configuration or the first convolution.
    pub in_channels: Option<usize>,
    /// c of `output`, from its shape or the configuration.
    pub out_channels: Option<usize>,
    /// The latent height the graph is fixed to.
    pub height: Option<usize>,
    /// The latent width the graph is fixed to.
    pub width: Option<usize>,
    /// The number of tokens of a packed sample that the graph is fixed to.
    pub sequence_length: Option<usize>,
}

/// The values of a latent square of two by two, one token of a packed sample, for each of its channels.
const PATCH: usize = 4;

impl DenoiserSignature {
    /// Finds the roles of a denoiser's inputs and its output.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Model`] with a table of names, types and shapes if the sample or the timestep is not found, or if
    /// an input is left that nothing can fill.
    pub fn resolve(component: &Component) -> Result<Self> {
        let graph = &component.graph;
        let mut unassigned = Unassigned::new(component);
        let constants = unassigned.switches();
        let residuals = residuals(&mut unassigned);
        let mut inputs = unassigned.take_roles(&[ComponentKind::Unet, ComponentKind::Transformer]);
        let sample = unassigned.require(&mut inputs, Role::Sample)?;
        let timestep = unassigned.require(&mut inputs, Role::Timestep)?;
        unassigned.finish()?;
        let is_packed = is_packed(&inputs);
        let rank = Role::Sample.row().axes(is_packed).len();
        let output = output(component, rank, &["out_sample", "noise_pred", "latent", "sample", "out_hidden_states"])?;

        let configured = |key: &str| json::count(&component.config, key);
        let (channels, values) = if is_packed { (2, PATCH) } else { (1, 1) };
        let in_channels = axis_length(&sample, channels)
            .or_else(|| configured("in_channels"))
            .or_else(|| graph.convolved_channels.get(&sample.name).copied())
            .map(|taken| taken / values);
        let mask = inputs.get(&Role::ContextMask);
        // A vector of one is broadcast to any batch.
        let has_rows = |(role, info): &(&Role, &TensorInfo)| !role.row().is_shared && info.shape.len() > 1;
        let batched = inputs.iter().filter(has_rows).map(|(_, info)| info);
        Ok(Self {
            batch: fixed_batch(component, std::iter::once(&sample).chain(batched))?,
            in_channels,
            // PixArt predicts a variance too.
            out_channels: axis_length(&output, channels)
                .or_else(|| configured("out_channels"))
                .or_else(|| Some(2 * in_channels.filter(|_| mask.is_some())?))
                .map(|given| given / values),
            height: axis_length(&sample, 2).filter(|_| !is_packed),
            width: axis_length(&sample, 3),
            sequence_length: axis_length(&sample, 1).filter(|_| is_packed),
            class_rows: inputs.get(&Role::ClassLabels).and_then(|c| graph.table_rows.get(&c.name).copied()),
            sample,
            timestep,
            inputs,
            residuals,
            constants,
            output,
        })
    }

    /// The input of a role other than the sample and the timestep.
    pub fn input(&self, role: Role) -> Option<&TensorInfo> {
        self.inputs.get(&role)
    }

    /// True if the denoiser has an input of this role other than the sample and the timestep.
    pub fn takes(&self, role: Role) -> bool {
        self.inputs.contains_key(&role)
    }

    /// All inputs that have a role, the sample and the timestep among them.
    pub fn all_inputs(&self) -> impl Iterator<Item = (Role, &TensorInfo)> {
        let own = [(Role::Sample, &self.sample), (Role::Timestep, &self.timestep)];
        own.into_iter().chain(self.inputs.iter().map(|(role, info)| (*role, info)))
    }

    /// True if the sample is a sequence of tokens, each a square of two by two latents, beside their positions (Flux).
    pub fn is_packed(&self) -> bool {
        is_packed(&self.inputs)
    }

    /// The width of the tokens attended to, if the graph fixes it.
    pub fn context_width(&self) -> Option<usize> {
        axis_length(self.input(Role::Context)?, 2)
    }

    /// True for a multimodal transformer (Esser et al. 2024, arXiv 2403.03206), as Stable Diffusion 3 and Flux have: it takes
    /// the pooled embeddings and no sizes.
    pub fn is_multimodal(&self) -> bool {
        self.takes(Role::TextEmbeds) && !self.takes(Role::TimeIds)
    }

    /// The number of values of `time_ids` for an image: 6, or 5 if one of them is an aesthetic score.
    pub fn time_ids_width(&self) -> Option<usize> {
        axis_length(self.input(Role::TimeIds)?, 1)
    }

    /// True for a guidance-distilled model (latent consistency models and Flux): `guidance_scale` is an input or has no
    /// effect, and classifier-free guidance has a scale of its own.
    pub fn is_guidance_distilled(&self) -> bool {
        let takes_scale = self.inputs.keys().any(|role| role.row().filler == Filler::GuidanceScale);
        takes_scale || self.is_packed()
    }

    /// Each input and the output with the description of its role.
    pub fn roles(&self) -> Vec<(&TensorInfo, String)> {
        let mut roles: Vec<_> = self.all_inputs().map(|(role, info)| (info, role.description().to_owned())).collect();
        roles.extend(self.residuals.mid.iter().map(|t| (t, "control residual, middle".to_owned())));
        roles.push((&self.output, "prediction".to_owned()));
        roles.extend(self.residuals.down.iter().enumerate().map(|(i, t)| (t, format!("control residual {i}"))));
        roles.extend(self.constants.iter().map(|s| (&s.input, format!("switch, {}", s.value))));
        roles
    }
}
