//! The signature of a ControlNet.

use std::collections::BTreeMap;

use super::residuals::{down_block_number, takes_residuals};
use super::switch::Switch;
use super::table::Role;
use super::tensor_forms::{describe, fixed_batch};
use super::unassigned::Unassigned;
use crate::bundle::component::{Component, ComponentKind};
use crate::error::{Error, Result};
use crate::tensor::TensorInfo;

/// The inputs and outputs of a ControlNet by their roles.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlNetSignature {
    /// The noisy latents, `[n, c, h, w]`.
    pub sample: TensorInfo,
    /// The timestep: a scalar, `[1]` or `[n]`; integer or float.
    pub timestep: TensorInfo,
    /// The image that it follows, `[n, 3, h * f, w * f]`, in `[0, 1]`.
    pub control: TensorInfo,
    /// The factor of the residuals: a scalar or `[1]`, often double precision. Without such an input the residuals are
    /// multiplied outside of the graph.
    pub scale: Option<TensorInfo>,
    /// The other inputs, which receive the same as the denoiser's.
    pub inputs: BTreeMap<Role, TensorInfo>,
    /// Boolean inputs left over from tracing, with their values.
    pub constants: Vec<Switch>,
    /// The residuals of the UNet's skip connections, from the first to the last.
    pub down: Vec<TensorInfo>,
    /// The residual of the UNet's middle.
    pub mid: TensorInfo,
    /// The batch the graph is fixed to.
    pub batch: Option<usize>,
}

impl ControlNetSignature {
    /// Finds the roles of a ControlNet's inputs and outputs.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] with a table of names, types and shapes if a role is not found or an input is left that nothing
    /// can fill.
    pub fn resolve(component: &Component) -> Result<Self> {
        let graph = &component.graph;
        if takes_residuals(graph) {
            return Err(Error::model(
                &graph.path,
                "is no control network, but a denoiser that takes the residuals of one",
                "name the control network's own graph; beside such a denoiser it lies in a folder of its own",
            ));
        }
        let mut unassigned = Unassigned::new(component);
        let constants = unassigned.switches();
        let mut inputs = unassigned.take_roles(&[ComponentKind::ControlNet]);
        let sample = unassigned.require(&mut inputs, Role::Sample)?;
        let control = unassigned.require(&mut inputs, Role::Control)?;
        let timestep = unassigned.require(&mut inputs, Role::Timestep)?;
        let scale = inputs.remove(&Role::ConditioningScale);
        unassigned.finish()?;

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
                    describe(&graph.outputs)
                ),
                "export the control network with scripts/export.py",
            ));
        };
        Ok(Self {
            batch: fixed_batch(component, [&sample, &control])?,
            sample,
            timestep,
            control,
            scale,
            inputs,
            constants,
            down: down.into_iter().map(|(_, t)| t).collect(),
            mid,
        })
    }

    /// Each input and output with the description of its role.
    pub fn roles(&self) -> Vec<(&TensorInfo, String)> {
        let own = [(Role::Sample, &self.sample), (Role::Timestep, &self.timestep), (Role::Control, &self.control)];
        let scale = self.scale.iter().map(|info| (Role::ConditioningScale, info));
        let inputs = self.inputs.iter().map(|(role, info)| (*role, info));
        let inputs = own.into_iter().chain(scale).chain(inputs);
        let mut roles: Vec<_> = inputs.map(|(role, info)| (info, role.description().to_owned())).collect();
        roles.push((&self.mid, "control residual, middle".to_owned()));
        roles.extend(self.down.iter().enumerate().map(|(i, t)| (t, format!("control residual {i}"))));
        roles.extend(self.constants.iter().map(|s| (&s.input, format!("switch, {}", s.value))));
        roles
    }
}
