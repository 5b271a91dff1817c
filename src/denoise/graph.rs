//! A UNet's ONNX graph as a denoiser.

use ndarray::{ArrayD, Axis, IxDyn, Slice, concatenate};

use super::{Condition, Denoiser, Guidance};
use crate::bundle::DenoiserContract;
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};
use crate::tensor::{Dim, TensorView, switch};

/// A UNet graph, set up for one batch of pictures: its buffers are made once and serve every step.
///
/// With guidance on, a graph whose batch axis is free runs once a step on a doubled batch; a graph whose batch is
/// fixed runs as often as that takes.
pub struct GraphDenoiser<'a> {
    session: &'a mut Session,
    contract: &'a DenoiserContract,
    cancel: Cancel,
    guidance: Guidance,
    images: usize,
    /// Rows of one run of the graph.
    chunk: usize,
    /// `[padded rows, c + concatenated, h, w]`; behind the sample's channels stand the condition's.
    input: ArrayD<f32>,
    /// `[padded rows, outputs, h, w]`
    output: ArrayD<f32>,
    sample_len: usize,
    context: Option<ArrayD<f32>>,
    extra: Vec<(String, ArrayD<f32>)>,
    outputs_per_input: usize,
}

impl<'a> GraphDenoiser<'a> {
    /// Prepares `images` samples of shape `[c, h, w]` under `condition`.
    ///
    /// # Errors
    /// [`Error::Model`] where the graph takes other channels or another size, or needs something the condition does
    /// not hold.
    pub fn new(
        session: &'a mut Session,
        contract: &'a DenoiserContract,
        sample: [usize; 3],
        images: usize,
        condition: Condition,
        guidance: Guidance,
        cancel: &Cancel,
    ) -> Result<Self> {
        let [channels, height, width] = sample;
        let rows = if guidance.is_on() { 2 * images } else { images };
        let chunk = contract.batch.unwrap_or(rows).max(1);
        let padded = rows.div_ceil(chunk) * chunk;
        let concatenated = condition.channels.as_ref().map_or(0, |c| c.shape()[1]);
        let taken = channels + concatenated;
        let expected = [contract.in_channels, contract.height, contract.width];
        for ((axis, want), got) in ["channels", "height", "width"].iter().zip(expected).zip([taken, height, width]) {
            if want.is_some_and(|want| want != got) {
                return Err(Error::model(
                    session.path(),
                    format!(
                        "input {}: {axis} is fixed at {}, the run needs {got}",
                        contract.sample.name,
                        want.unwrap_or(0)
                    ),
                    "choose the width and height the graph was exported for, or export it with free axes",
                ));
            }
        }
        let mut input = ArrayD::zeros(IxDyn(&[padded, taken, height, width]));
        if let Some(extra) = &condition.channels {
            let filled = pad_rows(extra.clone(), padded)?;
            input.slice_axis_mut(Axis(1), Slice::from(channels..)).assign(&filled);
        }
        let context = condition.context.map(|c| pad_rows(c, padded)).transpose()?;
        if contract.context.is_some() && context.is_none() {
            return Err(Error::model(
                session.path(),
                format!("the graph attends to tokens ({}), and this task has none", TensorName(&contract.context)),
                "choose a task with a prompt, such as [task.text-to-image]",
            ));
        }
        let extra = condition
            .extra
            .into_iter()
            .map(|(name, value)| Ok((name, pad_rows(value, padded)?)))
            .collect::<Result<Vec<_>>>()?;
        let outputs = contract.out_channels.unwrap_or(channels);
        let output = ArrayD::zeros(IxDyn(&[padded, outputs, height, width]));
        Ok(Self {
            session,
            contract,
            cancel: cancel.clone(),
            guidance,
            images,
            chunk,
            input,
            output,
            sample_len: channels * height * width,
            context,
            extra,
            outputs_per_input: (outputs / channels).max(1),
        })
    }

    /// The timestep tensor in the shape the graph declares: a scalar, `[1]`, or one value a row.
    fn timestep_shape(&self) -> Vec<usize> {
        match self.contract.timestep.shape.as_slice() {
            [] => vec![],
            [Dim::Fixed(n)] => vec![*n],
            [free] if self.contract.sample.shape.first() == Some(free) => vec![self.chunk],
            _ => vec![1],
        }
    }

    fn run_graph(&mut self, t: f64) -> Result<()> {
        let shape = IxDyn(&self.timestep_shape());
        let integer = self.contract.timestep.dtype.is_integer();
        let t_float = ArrayD::from_elem(shape.clone(), t as f32);
        let t_whole = ArrayD::from_elem(shape, t as i64);
        let timestep = if integer { TensorView::I64(t_whole.view()) } else { TensorView::F32(t_float.view()) };
        let switches: Vec<_> =
            self.contract.constants.iter().map(|s| (s.input.name.clone(), switch(&s.input, s.value))).collect();
        for start in (0..self.input.shape()[0]).step_by(self.chunk) {
            let part = Slice::from(start..start + self.chunk);
            let mut inputs: Vec<(&str, TensorView<'_>)> = Vec::with_capacity(8);
            inputs.push((&self.contract.sample.name, TensorView::F32(self.input.slice_axis(Axis(0), part))));
            inputs.push((&self.contract.timestep.name, timestep.clone()));
            if let (Some(info), Some(context)) = (&self.contract.context, &self.context) {
                inputs.push((&info.name, TensorView::F32(context.slice_axis(Axis(0), part))));
            }
            for (name, value) in &self.extra {
                inputs.push((name, TensorView::F32(value.slice_axis(Axis(0), part))));
            }
            for (name, value) in &switches {
                inputs.push((name, TensorView::Bool(value.view())));
            }
            let mut out = self.output.slice_axis_mut(Axis(0), part);
            let out = out.as_slice_mut().ok_or_else(|| Error::input("latents", "not laid out row by row", ""))?;
            self.session.run_into(&inputs, &self.contract.output.name, out, &self.cancel)?;
        }
        Ok(())
    }
}

impl Denoiser for GraphDenoiser<'_> {
    fn predict(&mut self, sample: &[f32], t: f64, prediction: &mut [f32]) -> Result<()> {
        let copies = if self.guidance.is_on() { 2 } else { 1 };
        let rows = copies * self.images;
        for (row, mut target) in self.input.axis_iter_mut(Axis(0)).enumerate() {
            let picture = row.min(rows - 1) % self.images;
            let source = &sample[picture * self.sample_len..][..self.sample_len];
            if let Some(target) = target.as_slice_mut() {
                target[..self.sample_len].copy_from_slice(source);
            }
        }
        self.run_graph(t)?;
        let all = self.output.as_slice().unwrap_or_default();
        let half = prediction.len();
        if self.guidance.is_on() {
            let (unconditional, conditional) = all[..2 * half].split_at(half);
            self.guidance.combine(unconditional, conditional, self.images, prediction);
        } else {
            prediction.copy_from_slice(&all[..half]);
        }
        Ok(())
    }

    fn outputs_per_input(&self) -> usize {
        self.outputs_per_input
    }
}

/// Repeats the last row until there are `rows`, so that a graph with a fixed batch is always given whole batches.
fn pad_rows(tensor: ArrayD<f32>, rows: usize) -> Result<ArrayD<f32>> {
    let have = tensor.shape()[0];
    if have >= rows {
        return Ok(tensor);
    }
    let last = tensor.slice_axis(Axis(0), Slice::from(have - 1..)).to_owned();
    let mut parts = vec![tensor.view()];
    parts.extend(std::iter::repeat_n(last.view(), rows - have));
    concatenate(Axis(0), &parts).map_err(|e| Error::input("condition", e.to_string(), ""))
}

struct TensorName<'a>(&'a Option<crate::tensor::TensorInfo>);

impl std::fmt::Display for TensorName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_ref().map_or("", |info| &info.name))
    }
}
