//! What a control network takes and gives.

use super::denoiser::down_block_number;
use super::{Switch, Unassigned, fixed_batch, is_float, is_number, table, takes_residuals};
use crate::bundle::component::Component;
use crate::error::{Error, Result};
use crate::tensor::TensorInfo;

/// The roles of a control network's inputs and outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlNetSignature {
    /// The noisy latents, `[n, c, h, w]`.
    pub sample: TensorInfo,
    /// The model's t: a scalar, `[1]` or `[n]`; integer or float.
    pub timestep: TensorInfo,
    /// The tokens attended to, `[n, tokens, width]`.
    pub context: Option<TensorInfo>,
    /// The pooled text, `[n, width]`.
    pub text_embeds: Option<TensorInfo>,
    /// Sizes and crop, `[n, 6]`.
    pub time_ids: Option<TensorInfo>,
    /// The image that controls, `[n, 3, h * f, w * f]`, in 0 to 1.
    pub control: TensorInfo,
    /// What the residuals are multiplied by inside the graph: a scalar or `[1]`, often double precision. Where the
    /// graph has no such input the residuals are to be multiplied outside.
    pub scale: Option<TensorInfo>,
    /// Switches left over from tracing, each with what to feed.
    pub constants: Vec<Switch>,
    /// What is added to the UNet's skip connections, from the first to the last.
    pub down: Vec<TensorInfo>,
    /// What is added in the UNet's middle.
    pub mid: TensorInfo,
    /// The batch the graph is fixed to, where it is.
    pub batch: Option<usize>,
}

impl ControlNetSignature {
    /// Finds the roles of a control network's inputs and outputs.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] with a table of names, types and shapes, where a role is not found or an input is left that
    /// nothing can fill.
    pub fn resolve(component: &Component) -> Result<Self> {
        let graph = &component.graph;
        if takes_residuals(graph) {
            return Err(Error::model(
                &graph.path,
                "is no control network, but a denoiser that takes the residuals of one",
                "name the control network's own graph; beside such a denoiser it lies in a folder of its own",
            ));
        }
        let mut inputs = Unassigned::new(component);
        let constants = inputs.switches();
        let image = |t: &TensorInfo| is_float(t, 4);
        let scalar_or_list = |t: &TensorInfo| is_number(t) && t.shape.len() <= 1;
        let sample = inputs.named(&["sample", "latent"], image);
        let control = inputs.named(&["controlnet_cond", "control", "hint", "image", "images"], image);
        let timestep = inputs.named(&["timestep", "timesteps", "t"], scalar_or_list);
        let scale =
            inputs.named(&["conditioning_scale", "controlnet_scale"], |t| t.dtype.is_float() && t.shape.len() <= 1);
        let context = inputs.named(&["encoder_hidden_states", "context", "text_embeddings"], |t| is_float(t, 3));
        let text_embeds = inputs.named(&["text_embeds", "pooled_projections"], |t| is_float(t, 2));
        let time_ids = inputs.named(&["time_ids"], |t| is_number(t) && t.shape.len() == 2);
        let sample = sample.or_else(|| control.is_some().then(|| inputs.only(image)).flatten());
        let control = control.or_else(|| inputs.only(image));
        let context = context.or_else(|| inputs.only(|t| is_float(t, 3)));
        let timestep = timestep.or_else(|| inputs.only(scalar_or_list));
        let Some(sample) = sample else { return Err(inputs.lacks("sample", "float, [n, c, h, w]")) };
        let Some(control) = control else { return Err(inputs.lacks("image", "float, [n, 3, h, w]")) };
        let Some(timestep) = timestep else { return Err(inputs.lacks("timestep", "a number, [], [1] or [n]")) };
        inputs.finish()?;

        let mut down: Vec<(usize, TensorInfo)> =
            graph.outputs.iter().filter_map(|o| Some((down_block_number(&o.name)?, o.clone()))).collect();
        down.sort_by_key(|&(number, _)| number);
        let mid = graph.outputs.iter().find(|o| o.name.starts_with("mid_block")).cloned();
        let (false, Some(mid)) = (down.is_empty(), mid) else {
            return Err(Error::model(
                &graph.path,
                format!(
                    "{} gives no residuals down_block_… and mid_block_…; its outputs are{}",
                    component.kind,
                    table(&graph.outputs)
                ),
                "export the control network with scripts/export.py",
            ));
        };
        Ok(Self {
            batch: fixed_batch(component, [&sample, &control])?,
            sample,
            timestep,
            context,
            text_embeds,
            time_ids,
            control,
            scale,
            constants,
            down: down.into_iter().map(|(_, t)| t).collect(),
            mid,
        })
    }

    /// Each input and output with the word for its role.
    pub fn roles(&self) -> Vec<(&TensorInfo, String)> {
        let plain = [
            (Some(&self.sample), "sample"),
            (Some(&self.timestep), "timestep"),
            (self.context.as_ref(), "context"),
            (self.text_embeds.as_ref(), "pooled text"),
            (self.time_ids.as_ref(), "sizes and crop"),
            (Some(&self.control), "controlling image"),
            (self.scale.as_ref(), "control scale"),
            (Some(&self.mid), "control residual, middle"),
        ];
        let mut roles: Vec<_> = plain.into_iter().filter_map(|(t, role)| Some((t?, role.to_owned()))).collect();
        roles.extend(self.down.iter().enumerate().map(|(i, t)| (t, format!("control residual {i}"))));
        roles.extend(self.constants.iter().map(|s| (&s.input, format!("switch, {}", s.value))));
        roles
    }
}
