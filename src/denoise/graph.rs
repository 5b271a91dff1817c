//! A denoiser's ONNX graph.

use std::ops::Range;
use std::path::Path;

use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, Axis, IxDyn, Slice};

use super::feed::{pad_rows, switches, timestep};
use super::form::Form;
use super::{Call, Condition, Control, Denoiser, Guidance, RunInterval, Shallow};
use crate::bundle::DenoiserSignature;
use crate::error::{Error, Result};
use crate::session::{Cancel, GraphRun, Session};
use crate::tensor::{Tensor, TensorInfo, TensorView};
use crate::tiles::Tiles;

/// A denoiser's graph, set up for one batch of images: its buffers are allocated once and reused at every step.
///
/// A graph with a free batch axis runs once a step on all rows together, images times branches of the guidance, or on
/// each row by itself ([`Batch::by_row`]); a graph with a fixed batch runs as often as that takes. The session decides how
/// many of these runs are concurrent.
pub struct GraphDenoiser<'a> {
    pub(super) session: &'a mut Session,
    pub(super) signature: &'a DenoiserSignature,
    pub(super) cancel: Cancel,
    pub(super) guidance: Guidance,
    /// The part of the run with guidance, if it is not all of it.
    pub(super) interval: Option<RunInterval>,
    pub(super) batch: Batch,
    /// Rows of one run of the graph.
    pub(super) chunk: usize,
    /// `[padded rows, c + concatenated, h, w]`: the sample's channels, then the condition's.
    pub(super) input: ArrayD<f32>,
    /// `[padded rows, outputs, h, w]`
    pub(super) output: ArrayD<f32>,
    /// Sample and prediction in the form of the graph, if that is another.
    formed: [Vec<f32>; 2],
    pub(super) channels: usize,
    sample_len: usize,
    pub(super) condition: Condition,
    pub(super) controls: Vec<Control<'a>>,
    /// Their residuals at the last call of the whole graph.
    residuals: Vec<ArrayD<f32>>,
    pub(super) shallow: Option<Shallow<'a>>,
    /// For each row, true if its branch is conditional on the prompt.
    pub(super) prompted: Vec<bool>,
    pub(super) outputs_per_input: usize,
    pub(super) evaluations: usize,
    shallow_evaluations: usize,
}

/// The layers of the model that a call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layers {
    All,
    /// The shallow ones, on the output of the deep ones at the last call of all.
    Shallow,
}

/// The samples that are denoised at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Images.
    pub images: usize,
    /// `[c, h, w]` of each sample.
    pub sample: [usize; 3],
    /// The tiles in which a larger sample is denoised.
    pub tiles: Option<Tiles>,
    /// True if each row is a run of the graph by itself; ignored if the graph fixes its batch.
    pub by_row: bool,
}

impl Batch {
    /// The tiles, if there is more than one.
    pub(super) fn split(&self) -> Option<Tiles> {
        let [_, height, width] = self.sample;
        self.tiles.filter(|tiles| tiles.is_split(height, width))
    }

    /// Requires that the graph at `path` takes `taken` channels of this height and width.
    fn check(&self, signature: &DenoiserSignature, path: &Path, taken: usize) -> Result<()> {
        let [channels, height, width] = self.sample;
        let (height, width) = self.split().map_or((height, width), |tiles| tiles.tile_size(height, width));
        let form = Form::of(signature, channels);
        let found = [taken / form.images(taken), height, width];
        let expected = [signature.in_channels, signature.height, signature.width];
        for ((axis, expected), found) in ["channels", "height", "width"].iter().zip(expected).zip(found) {
            if let Some(expected) = expected.filter(|&expected| expected != found) {
                return Err(Error::model(
                    path,
                    format!("input {}: {axis} is fixed at {expected}, the run needs {found}", signature.sample.name),
                    "choose the width and height the graph was exported for, or export it with free axes",
                ));
            }
        }
        form.check(signature, path, [taken, height, width])
    }
}

/// The inputs of a ControlNet at one call: rows of the denoiser's own.
pub(super) struct ControlInputs<'a> {
    /// `[rows, c, h, w]`, scaled for the model.
    pub sample: ArrayViewD<'a, f32>,
    pub condition: &'a Condition,
    /// The rows of `condition`.
    pub rows: Slice,
    /// For each row, true if its branch is conditional on the prompt.
    pub prompted: &'a [bool],
}

/// The inputs of the graph in one call, but for the sample and its positions.
struct CallInputs<'a> {
    signature: &'a DenoiserSignature,
    timestep: Tensor,
    /// Those with a row for each of the call's, such as the condition's.
    by_row: Vec<(&'a TensorInfo, ArrayViewD<'a, f32>)>,
    constants: Vec<(&'a str, ArrayD<bool>)>,
}

impl CallInputs<'_> {
    /// All inputs of the run of these rows, by name.
    fn of_rows<'r>(
        &'r self,
        rows: Range<usize>,
        sample: ArrayViewD<'r, f32>,
        positions: &'r [(&str, ArrayD<f32>)],
    ) -> Vec<(&'r str, TensorView<'r>)> {
        let Self { signature, timestep, by_row, constants } = self;
        let rows = Slice::from(rows);
        let mut inputs: Vec<(&str, TensorView<'_>)> = Vec::with_capacity(by_row.len() + constants.len() + 4);
        inputs.push((&signature.timestep.name, timestep.view()));
        inputs.push((&signature.sample.name, TensorView::F32(sample)));
        inputs.extend(positions.iter().map(|(name, places)| (*name, TensorView::F32(places.view()))));
        let of_rows = |all: &'r ArrayViewD<'_, f32>| TensorView::F32(all.slice_axis(Axis(0), rows));
        inputs.extend(by_row.iter().map(|(info, all)| (info.name.as_str(), of_rows(all))));
        inputs.extend(constants.iter().map(|(name, value)| (*name, TensorView::Bool(value.view()))));
        inputs
    }
}

impl<'a> GraphDenoiser<'a> {
    /// Sets up the denoiser for a batch of samples under `condition`.
    ///
    /// # Errors
    /// [`Error::Model`] if the graph takes other channels or another size, or has an input for which `condition` has no
    /// value and that is not optional.
    pub fn new(
        session: &'a mut Session,
        signature: &'a DenoiserSignature,
        batch: Batch,
        mut condition: Condition,
        guidance: Guidance,
        cancel: &Cancel,
    ) -> Result<Self> {
        let Batch { images, sample: [channels, height, width], by_row: is_by_row, .. } = batch;
        let rows = guidance.branches().len() * images;
        let chunk = signature.batch.unwrap_or(if is_by_row { 1 } else { rows }).max(1);
        let padded = rows.div_ceil(chunk) * chunk;
        let concatenated = condition.channels.as_ref().and_then(|c| c.shape().get(1).copied()).unwrap_or(0);
        let taken = channels + concatenated;
        batch.check(signature, session.path(), taken)?;
        let mut input = ArrayD::zeros(IxDyn(&[padded, taken, height, width]));
        if let Some(extra) = condition.channels.take() {
            if extra.ndim() != 4 || extra.shape()[2..] != [height, width] {
                return Err(Error::input(
                    "condition",
                    format!("channels of shape {:?} do not fit behind samples of {height}×{width}", extra.shape()),
                    "take the graph that was exported with this model, or another width and height",
                ));
            }
            let filled = pad_rows(extra, padded)?;
            input.slice_axis_mut(Axis(1), Slice::from(channels..)).assign(&filled);
        }
        condition.fill_absent(signature, rows, session.path())?;
        let prompted = guidance.branches().iter().flat_map(|b| std::iter::repeat_n(b.prompt, images)).collect();
        let outputs = signature.out_channels.unwrap_or(channels);
        Ok(Self {
            session,
            signature,
            cancel: cancel.clone(),
            guidance,
            interval: None,
            batch,
            chunk,
            input,
            output: ArrayD::zeros(IxDyn(&[padded, outputs, height, width])),
            formed: Default::default(),
            channels,
            sample_len: channels * height * width,
            condition: condition.padded(padded)?,
            controls: Vec::new(),
            residuals: Vec::new(),
            shallow: None,
            prompted,
            outputs_per_input: (outputs / channels).max(1),
            evaluations: 0,
            shallow_evaluations: 0,
        })
    }

    /// Adds the shallow layers as a graph of their own, for [`Denoiser::predict_shallow`].
    pub fn with_outer(mut self, shallow: Option<Shallow<'a>>) -> Self {
        self.shallow = shallow;
        self
    }

    /// Adds ControlNets, whose residuals add up.
    pub fn with_controls(mut self, controls: Vec<Control<'a>>) -> Self {
        self.controls = controls;
        self
    }

    /// Limits guidance to a part of the run. Outside of it only the rows of the conditional branch are run, as far as a
    /// fixed batch of the graph allows.
    pub fn with_guidance_interval(mut self, interval: Option<RunInterval>) -> Self {
        self.interval = interval.filter(|_| self.guidance.branches().len() > 1);
        self
    }

    fn is_guided(&self, call: Call) -> bool {
        self.interval.is_none_or(|interval| interval.holds(call))
    }

    /// The rows that a call runs, and the number of them that run at once.
    fn rows_run(&self, call: Call) -> (Range<usize>, usize) {
        let padded = self.input.shape()[0];
        if self.is_guided(call) {
            return (0..padded, self.chunk);
        }
        let images = self.batch.images;
        let chunk = self.signature.batch.unwrap_or(if self.batch.by_row { 1 } else { images }).max(1);
        let length = (images.div_ceil(chunk) * chunk).min(padded);
        // If too few rows follow to fill a fixed batch, earlier rows do.
        let start = (self.guidance.conditional_branch() * images).min(padded - length);
        (start..start + length, chunk)
    }

    /// The sum of all ControlNets' residuals for each place, `[rows, ...]`.
    fn controlled(&mut self, rows: Range<usize>, call: Call) -> Result<Vec<ArrayD<f32>>> {
        let part = Slice::from(rows.clone());
        let inputs = ControlInputs {
            sample: self.input.slice_axis(Axis(0), part).slice_axis_move(Axis(1), Slice::from(..self.channels)),
            condition: &self.condition,
            rows: part,
            prompted: self.prompted.get(rows.start..).unwrap_or_default(),
        };
        let mut sum: Vec<ArrayD<f32>> = Vec::new();
        for control in &mut self.controls {
            let residuals = control.residuals(&inputs, call, &self.cancel)?;
            if sum.is_empty() {
                sum = residuals;
                continue;
            }
            for (sum, more) in sum.iter_mut().zip(&residuals) {
                if sum.shape() != more.shape() {
                    let problem = format!("residuals of {:?} and of {:?} do not add up", sum.shape(), more.shape());
                    return Err(Error::input("control", problem, "take control networks of one family"));
                }
                *sum += more;
            }
        }
        Ok(sum)
    }

    fn run_graph(&mut self, call: Call, layers: Layers) -> Result<()> {
        let (rows, chunk) = self.rows_run(call);
        if layers == Layers::All {
            self.residuals.clear();
            self.residuals = self.controlled(rows.clone(), call)?;
        }
        let at_once = (rows.clone(), chunk);
        let rows = Slice::from(rows);
        let form = Form::of(self.signature, self.channels);
        let (signature, cancel) = (self.signature, &self.cancel);
        let places = signature.residuals.down.iter().chain(&signature.residuals.mid);
        let residuals = places.zip(self.residuals.iter().map(|residual| residual.view()));
        let call_inputs = CallInputs {
            signature,
            timestep: timestep(&signature.timestep, &signature.sample, chunk, form.time(call.timestep)),
            by_row: self.condition.rows(&signature.inputs, rows).chain(residuals).collect(),
            constants: switches(&signature.constants),
        };
        let (session, mut seam) = match &mut self.shallow {
            None => (&mut *self.session, None),
            Some(shallow) => {
                let (own, seam) = shallow.begin(layers, at_once);
                (if layers == Layers::All { &mut *self.session } else { own }, Some(seam))
            }
        };
        session.keep_memory(!call.is_last());
        let text_tokens = self.condition.tokens();
        let outputs = self.output.shape()[1];
        let formed = &mut self.formed;
        let mut run = |sample: ArrayViewD<'_, f32>, mut output: ArrayViewMutD<'_, f32>| -> Result<()> {
            let [rows, taken, height, width] = [0, 1, 2, 3].map(|axis| sample.shape()[axis]);
            let positions = form.positions(chunk, [taken, height, width], text_tokens);
            let [formed_sample, formed_output] = &mut *formed;
            let sample = form.sample(sample, formed_sample)?;
            let not_by_row = || Error::internal("latents", "not laid out row by row");
            let output = output.as_slice_mut().ok_or_else(not_by_row)?;
            let shape = form.output_shape(chunk, taken, [outputs, height, width]);
            form.prediction(taken, [outputs, height, width], output, formed_output, |output| {
                let chunks =
                    sample.axis_chunks_iter(Axis(0), chunk).zip(output.chunks_mut(output.len() / rows * chunk));
                let runs = chunks.enumerate().map(|(at, (sample, out))| {
                    let inputs = call_inputs.of_rows(at * chunk..(at + 1) * chunk, sample, &positions);
                    GraphRun { inputs, out, shape: Some(shape.clone()), second_output: None }
                });
                let mut runs: Vec<GraphRun<'_>> = runs.collect();
                seam.iter_mut().for_each(|seam| seam.join(&mut runs));
                session.run_each(runs, &signature.output.name, cancel)
            })
        };
        let (input, mut output) = (self.input.slice_axis(Axis(0), rows), self.output.slice_axis_mut(Axis(0), rows));
        let Some(tiles) = self.batch.split() else { return run(input, output) };
        let blended = tiles.blend(input, 1, |tile| {
            let mut made = ArrayD::zeros(IxDyn(&[tile.shape()[0], outputs, tile.shape()[2], tile.shape()[3]]));
            run(tile.view(), made.view_mut())?;
            Ok(made)
        })?;
        output.assign(&blended);
        Ok(())
    }

    /// Writes each image's sample into the rows of its branches.
    pub(super) fn fill_input(&mut self, sample: &[f32]) {
        let rows = self.prompted.len();
        for (row, mut target) in self.input.axis_iter_mut(Axis(0)).enumerate() {
            let image = row.min(rows - 1) % self.batch.images;
            let source = &sample[image * self.sample_len..][..self.sample_len];
            if let Some(target) = target.as_slice_mut() {
                target[..self.sample_len].copy_from_slice(source);
            }
        }
    }

    /// Runs these layers on `sample` and returns the number of evaluations.
    fn evaluate(&mut self, sample: &[f32], call: Call, layers: Layers, prediction: &mut [f32]) -> Result<usize> {
        self.fill_input(sample);
        self.run_graph(call, layers)?;
        let output = self.output.as_slice().unwrap_or_default();
        if self.is_guided(call) {
            self.guidance.combine(output, self.batch.images, prediction);
        } else {
            let told = output.get(self.guidance.conditional_branch() * prediction.len()..).unwrap_or_default();
            Guidance::Off.combine(told, self.batch.images, prediction);
        }
        // Rows that only pad a fixed batch are evaluated too, though not more of them than the branches have.
        let run = self.rows_run(call).0.len().div_ceil(self.batch.images.max(1));
        Ok(run.min(self.guidance.branches().len()))
    }
}

impl Denoiser for GraphDenoiser<'_> {
    fn predict(&mut self, sample: &[f32], call: Call, prediction: &mut [f32]) -> Result<()> {
        self.evaluations += self.evaluate(sample, call, Layers::All, prediction)?;
        Ok(())
    }

    fn predict_shallow(&mut self, sample: &[f32], call: Call, prediction: &mut [f32]) -> Result<bool> {
        let rows = self.rows_run(call);
        let knows = self.shallow.as_ref().is_some_and(|shallow| shallow.knows(&rows));
        if knows {
            self.shallow_evaluations += self.evaluate(sample, call, Layers::Shallow, prediction)?;
        }
        Ok(knows)
    }

    fn require_finite(&self, prediction: &[f32], call: Call) -> Result<()> {
        self.session.require_finite(prediction, &self.signature.output.name, call.step() + 1, call.steps())
    }

    fn outputs_per_input(&self) -> usize {
        self.outputs_per_input
    }

    fn evaluations(&self) -> usize {
        self.evaluations
    }

    fn shallow_evaluations(&self) -> usize {
        self.shallow_evaluations
    }

    fn changes_at(&self, call: Call) -> bool {
        let interval_changes = self.interval.is_some_and(|interval| interval.changes_at(call));
        interval_changes || self.controls.iter().any(|control| control.changes_at(call))
    }
}
