//! ControlNets: residuals for a UNet's skip connections (Zhang et al. 2023, arXiv 2302.05543).

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice, concatenate};

use super::feed::{pad_rows, switches, timestep};
use super::graph::ControlInputs;
use super::{Call, RunInterval};
use crate::bundle::ControlNetSignature;
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};
use crate::tensor::{TensorInfo, TensorView};

/// The weight of a ControlNet in a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ControlWeight {
    /// The factor of its residuals.
    pub scale: f64,
    /// The share of the run in which it is active.
    pub share: RunInterval,
    /// True if it leads without a prompt (guess mode): its residuals grow from a tenth at the first skip connection to the
    /// whole in the middle, and only the conditional branch receives them.
    pub guess: bool,
}

impl ControlWeight {
    /// The scale at one call of the model.
    pub(super) fn scale_at(&self, call: Call) -> f64 {
        if self.share.holds(call) { self.scale } else { 0.0 }
    }
}

/// An open ControlNet with the image that it follows.
pub struct Control<'a> {
    pub(super) session: &'a mut Session,
    pub(super) signature: &'a ControlNetSignature,
    /// `[1, 3, h, w]`
    image: &'a ArrayD<f32>,
    pub(super) weight: ControlWeight,
    /// The shapes of the residuals, once the graph has run.
    shapes: Vec<IxDyn>,
}

impl<'a> Control<'a> {
    /// Joins an open graph with its image, `[1, 3, h, w]` in [0, 1].
    pub fn new(
        session: &'a mut Session,
        signature: &'a ControlNetSignature,
        image: &'a ArrayD<f32>,
        weight: ControlWeight,
    ) -> Self {
        Self { session, signature, image, weight, shapes: Vec::new() }
    }

    /// True if it begins or ends between this call and the one before.
    pub(super) fn changes_at(&self, call: Call) -> bool {
        self.weight.share.changes_at(call)
    }

    /// Residuals of all rows for each place, from the first skip connection to the middle.
    ///
    /// # Errors
    /// Any error of the graph, and [`Error::Model`] if its outputs have not a row for each of its inputs'.
    pub(super) fn residuals(
        &mut self,
        inputs: &ControlInputs<'_>,
        call: Call,
        cancel: &Cancel,
    ) -> Result<Vec<ArrayD<f32>>> {
        let scale = self.weight.scale_at(call);
        if scale == 0.0 && !self.shapes.is_empty() {
            let silent = |shape: &IxDyn| {
                let mut shape = shape.clone();
                shape[0] = inputs.sample.shape()[0];
                ArrayD::zeros(shape)
            };
            return Ok(self.shapes.iter().map(silent).collect());
        }
        // In guess mode each residual has its own factor, outside of the graph.
        let has_input = self.signature.scale.is_some();
        let (inside, outside) = if has_input && !self.weight.guess { (scale, 1.0) } else { (1.0, scale) };
        let mut residuals = self.run(inputs, inside, call, cancel)?;
        let last = residuals.len().saturating_sub(1).max(1) as f64;
        for (place, all) in residuals.iter_mut().enumerate() {
            let grown = if self.weight.guess { 10.0_f64.powf(place as f64 / last - 1.0) } else { 1.0 };
            let factor = (outside * grown) as f32;
            if factor != 1.0 {
                all.mapv_inplace(|v| v * factor);
            }
            if self.weight.guess {
                for (mut row, branch) in all.axis_iter_mut(Axis(0)).zip(inputs.prompted) {
                    if !branch {
                        row.fill(0.0);
                    }
                }
            }
        }
        self.shapes = residuals.iter().map(|all| all.raw_dim()).collect();
        Ok(residuals)
    }

    /// The image, `[rows, 3, h, w]`.
    pub(super) fn image_of_rows(&self, rows: usize) -> Result<ArrayViewD<'a, f32>> {
        let image: &'a ArrayD<f32> = self.image;
        let shape = IxDyn(&[&[rows], &image.shape()[1..]].concat());
        let misfit = || Error::internal("control.image", "one image does not stand for a batch");
        image.broadcast(shape).ok_or_else(misfit)
    }

    fn run(&mut self, inputs: &ControlInputs<'_>, scale: f64, call: Call, cancel: &Cancel) -> Result<Vec<ArrayD<f32>>> {
        self.session.keep_memory(!call.is_last());
        let rows = inputs.sample.shape()[0];
        let chunk = self.signature.batch.unwrap_or(rows).max(1);
        let padded = rows.div_ceil(chunk) * chunk;
        let image = self.image_of_rows(chunk)?;
        let t = timestep(&self.signature.timestep, &self.signature.sample, chunk, call.timestep);
        let scale = self.signature.scale.as_ref().map(|info| {
            let ones = vec![1; info.shape.len()];
            (info, ArrayD::from_elem(IxDyn(&ones), scale as f32))
        });
        let switches = switches(&self.signature.constants);
        let condition = inputs.condition.rows(&self.signature.inputs, inputs.rows);
        let by_row = std::iter::once((&self.signature.sample, inputs.sample.view()))
            .chain(condition)
            .map(|(info, value)| Ok((info, pad_rows(value.to_owned(), padded)?)))
            .collect::<Result<Vec<_>>>()?;
        let places: Vec<&TensorInfo> = self.signature.down.iter().chain([&self.signature.mid]).collect();
        let names: Vec<&str> = places.iter().map(|info| info.name.as_str()).collect();

        let mut parts: Vec<Vec<ArrayD<f32>>> = vec![Vec::new(); places.len()];
        for start in (0..padded).step_by(chunk) {
            let mut fed = vec![
                (self.signature.timestep.name.as_str(), t.view()),
                (self.signature.control.name.as_str(), TensorView::F32(image.view())),
            ];
            let part = Slice::from(start..start + chunk);
            fed.extend(
                by_row.iter().map(|(info, all)| (info.name.as_str(), TensorView::F32(all.slice_axis(Axis(0), part)))),
            );
            fed.extend(scale.iter().map(|(info, value)| (info.name.as_str(), TensorView::F32(value.view()))));
            fed.extend(switches.iter().map(|(name, value)| (*name, TensorView::Bool(value.view()))));
            for (place, output) in parts.iter_mut().zip(self.session.run(&fed, &names, cancel)?) {
                place.push(output);
            }
        }
        let joined = |(info, mut parts): (&&TensorInfo, Vec<ArrayD<f32>>)| {
            let all = match parts.len() {
                1 => parts.pop(),
                _ => concatenate(Axis(0), &parts.iter().map(|part| part.view()).collect::<Vec<_>>()).ok(),
            };
            let all = all.filter(|all| all.shape().first() == Some(&padded)).ok_or_else(|| {
                let problem = format!("output {} has not a row for each of the {padded} put in", info.name);
                Error::model(self.session.path(), problem, "export the control network with scripts/export.py")
            })?;
            let values = all.as_slice().unwrap_or_default();
            self.session.require_finite(values, &info.name, call.step() + 1, call.steps())?;
            Ok(all.slice_axis_move(Axis(0), Slice::from(..rows)))
        };
        places.iter().zip(parts).map(joined).collect()
    }
}
