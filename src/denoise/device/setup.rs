//! The inputs that go to the device before the first step.

use ndarray::{ArrayD, ArrayView, Axis, IxDyn, Slice};

use super::device_loop::{DeviceLoop, RunNoise};
use super::graph_sample::GraphSample;
use super::step_graph::{EXTRA, INDEX, KEPT, MASK, NOISE, StepGraph};
use crate::bundle::DenoiserSignature;
use crate::denoise::Condition;
use crate::denoise::feed::{switches, timestep};
use crate::denoise::form::Form;
use crate::denoise::graph::GraphDenoiser;
use crate::error::{Error, Result};
use crate::session::{Cancel, DeviceRuns, Session};
use crate::tensor::{Tensor, TensorView};

impl DeviceLoop<'_> {
    /// Writes the first sample, scaled for the denoiser, into each row of its input.
    pub(super) fn scale_first(&self, model: &mut GraphDenoiser<'_>, sample: &ArrayD<f32>) {
        let sample = sample.as_slice().unwrap_or_default();
        let mut scaled = vec![0.0; sample.len()];
        self.scheduler.scale_model_input(self.span.start, sample, &mut scaled);
        model.fill_input(&scaled);
    }

    pub(super) fn step_graph(&self, model: &GraphDenoiser<'_>, formed: &GraphSample<'_>) -> StepGraph<'_> {
        let signature = model.signature;
        let [rows, taken, height, width] = formed.input_shape;
        let outputs = model.output.shape().get(1).copied().unwrap_or(taken);
        let time = |timestep: f64| {
            let time = formed.form.time(timestep);
            if signature.timestep.dtype.is_integer() { time.round() as f32 } else { time as f32 }
        };
        StepGraph {
            steps: self.steps,
            timesteps: self.steps.steps.iter().map(|step| time(step.timestep)).collect(),
            guidance: model.guidance,
            sample: formed.sample.shape().to_vec(),
            input_length: formed.input.shape()[1],
            output_length: formed.form.output_shape(rows, taken, [outputs, height, width])[1],
            guides_sample: matches!(formed.form, Form::Packed { .. }),
            dtypes: [&signature.sample, &signature.timestep, &signature.output].map(|info| model.session.dtype(info)),
            timestep: timestep(&signature.timestep, &signature.sample, rows, 0.0).shape().to_vec(),
            is_masked: self.unmasked.is_some(),
        }
    }

    /// Sets the inputs of the step that stay as they are, and the first index.
    pub(super) fn set_step_inputs(
        &self,
        step: &mut DeviceRuns<'_>,
        graph: &StepGraph<'_>,
        formed: &GraphSample<'_>,
        shape: &[usize],
        drawn: RunNoise<'_>,
        cancel: &Cancel,
    ) -> Result<()> {
        step.set(INDEX, &TensorView::I64(ArrayD::zeros(IxDyn(&[1])).view()))?;
        let len = shape.iter().product();
        if self.steps.draws_noise {
            let mut stack = StepStack::new(formed, shape, self.span.len());
            self.steps.noise_terms(drawn.scheduler, self.span.clone(), len, drawn.noise, |term| {
                cancel.check()?;
                stack.push(term)
            })?;
            step.set(NOISE, &TensorView::F32(stack.into_array()?.view()))?;
        }
        if let Some(unmasked) = self.unmasked {
            let mut stack = StepStack::new(formed, shape, self.span.len());
            let [mut kept, mut buffer] = [vec![0.0; len], vec![0.0; len]];
            for step in self.span.clone() {
                kept.fill(0.0);
                let next = Some(step + 1).filter(|next| *next < self.span.end);
                unmasked.restore(self.scheduler, next, &mut kept, &mut buffer);
                stack.push(&kept)?;
            }
            step.set(KEPT, &TensorView::F32(stack.into_array()?.view()))?;
            let mut room = Vec::new();
            let mask = formed.form.sample(unmasked.mask.view(), &mut room)?;
            step.set(MASK, &TensorView::F32(mask))?;
        }
        if graph.takes_extra() {
            let behind = Slice::from(formed.sample.shape()[1]..);
            step.set(EXTRA, &TensorView::F32(formed.input.slice_axis(Axis(1), behind)))?;
        }
        Ok(())
    }

    /// Sets all inputs of the denoiser's graph, those of the first call among them.
    pub(super) fn denoiser_runs<'s>(
        &self,
        session: &'s mut Session,
        (signature, condition): (&DenoiserSignature, &Condition),
        formed: &GraphSample<'_>,
    ) -> Result<DeviceRuns<'s>> {
        let [rows, taken, height, width] = formed.input_shape;
        let mut runs = session.device_runs()?;
        let first = self.steps.steps.first().map_or(0.0, |step| step.timestep);
        let time: Tensor = timestep(&signature.timestep, &signature.sample, rows, formed.form.time(first));
        runs.set(&signature.timestep.name, &time.view())?;
        runs.set(&signature.sample.name, &TensorView::F32(formed.input.view()))?;
        for (name, places) in formed.form.positions(rows, [taken, height, width], condition.tokens()) {
            runs.set(name, &TensorView::F32(places.view()))?;
        }
        for (info, value) in condition.rows(&signature.inputs, Slice::from(..rows)) {
            runs.set(&info.name, &TensorView::F32(value))?;
        }
        for (name, value) in switches(&signature.constants) {
            runs.set(name, &TensorView::Bool(value.view()))?;
        }
        Ok(runs)
    }
}

/// An array of a part for each step, in the form of the graph.
struct StepStack<'f, 'v> {
    sample: &'f GraphSample<'v>,
    /// `[n, c, h, w]` of a part.
    shape: &'f [usize],
    values: Vec<f32>,
    room: Vec<f32>,
}

impl<'f, 'v> StepStack<'f, 'v> {
    fn new(sample: &'f GraphSample<'v>, shape: &'f [usize], steps: usize) -> Self {
        Self { sample, shape, values: Vec::with_capacity(steps * sample.sample.len()), room: Vec::new() }
    }

    fn push(&mut self, part: &[f32]) -> Result<()> {
        let planes = ArrayView::from_shape(IxDyn(self.shape), part).map_err(misfit)?;
        self.values.extend(self.sample.form.sample(planes, &mut self.room)?.iter());
        Ok(())
    }

    fn into_array(self) -> Result<ArrayD<f32>> {
        let each = self.sample.sample.shape();
        let parts = self.values.len() / self.sample.sample.len().max(1);
        ArrayD::from_shape_vec(IxDyn(&[&[parts], each].concat()), self.values).map_err(misfit)
    }
}

fn misfit(error: ndarray::ShapeError) -> Error {
    Error::internal("latents", error.to_string())
}
