//! A UNet's ONNX graph as a denoiser.

use std::ops::Range;

use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, Axis, IxDyn, Slice};

use super::feed::{by_role, pad_rows, rows_of, switches, timestep};
use super::form::Form;
use super::{Call, Condition, Control, Denoiser, Guidance, RunInterval, Shallow};
use crate::bundle::DenoiserContract;
use crate::error::{Error, Result};
use crate::session::{Cancel, Run, Session};
use crate::tensor::{TensorInfo, TensorView};
use crate::tiles::Tiles;

/// A UNet graph, set up for one batch of images: its buffers are made once and serve every step.
///
/// A graph whose batch axis is free runs once a step on all rows together, images times branches of the guidance, or
/// on each by itself ([`Batch::by_row`]); a graph whose batch is fixed runs as often as that takes. The session says
/// how many of these runs are made at the same time.
pub struct GraphDenoiser<'a> {
    session: &'a mut Session,
    contract: &'a DenoiserContract,
    cancel: Cancel,
    guidance: Guidance,
    /// The part of the run in which guidance is at work, where it is not all of it.
    interval: Option<RunInterval>,
    batch: Batch,
    /// Rows of one run of the graph.
    chunk: usize,
    /// `[padded rows, c + concatenated, h, w]`; behind the sample's channels stand the condition's.
    input: ArrayD<f32>,
    /// `[padded rows, outputs, h, w]`
    output: ArrayD<f32>,
    /// Sample and prediction in the form of the graph, where that is another.
    formed: [Vec<f32>; 2],
    channels: usize,
    sample_len: usize,
    condition: Condition,
    controls: Vec<Control<'a>>,
    /// What they made at the last call of the whole graph.
    residuals: Vec<ArrayD<f32>>,
    shallow: Option<Shallow<'a>>,
    /// For each row, whether it is told the prompt.
    prompted: Vec<bool>,
    outputs_per_input: usize,
    evaluations: usize,
    shallow_evaluations: usize,
}

/// Which layers of the model are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layers {
    All,
    /// The shallow ones, on what the deep ones gave at the last call of all.
    Shallow,
}

/// What is denoised at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Images.
    pub images: usize,
    /// `[c, h, w]` of each sample.
    pub sample: [usize; 3],
    /// The tiles in which a sample larger than one of them is denoised.
    pub tiles: Option<Tiles>,
    /// Whether each row is a run of the graph by itself, where the graph leaves the choice.
    pub by_row: bool,
}

impl Batch {
    /// The tiles, where there is more than one.
    fn split(&self) -> Option<Tiles> {
        let [_, height, width] = self.sample;
        self.tiles.filter(|tiles| tiles.is_split(height, width))
    }
}

/// What a control network is told at one call: the rows of the denoiser's own inputs.
pub(super) struct Told<'a> {
    /// `[rows, c, h, w]`, scaled for the model.
    pub sample: ArrayViewD<'a, f32>,
    pub context: Option<ArrayViewD<'a, f32>>,
    pub text_embeds: Option<ArrayViewD<'a, f32>>,
    pub time_ids: Option<ArrayViewD<'a, f32>>,
    /// For each row, whether it is told the prompt.
    pub prompted: &'a [bool],
}

impl<'a> GraphDenoiser<'a> {
    /// Prepares a batch of samples under `condition`.
    ///
    /// # Errors
    /// [`Error::Model`] where the graph takes other channels or another size, or needs something the condition does
    /// not hold.
    pub fn new(
        session: &'a mut Session,
        contract: &'a DenoiserContract,
        batch: Batch,
        condition: Condition,
        guidance: Guidance,
        cancel: &Cancel,
    ) -> Result<Self> {
        let Batch { images, sample: [channels, height, width], by_row: is_by_row, .. } = batch;
        let (run_height, run_width) = batch.split().map_or((height, width), |tiles| tiles.tile_size(height, width));
        let rows = guidance.branches().len() * images;
        let chunk = contract.batch.unwrap_or(if is_by_row { 1 } else { rows }).max(1);
        let padded = rows.div_ceil(chunk) * chunk;
        let concatenated = condition.channels.as_ref().and_then(|c| c.shape().get(1).copied()).unwrap_or(0);
        let taken = channels + concatenated;
        let expected = [contract.in_channels, contract.height, contract.width];
        let form = Form::of(contract, channels);
        let of_one = taken / form.images(taken);
        for ((axis, want), got) in
            ["channels", "height", "width"].iter().zip(expected).zip([of_one, run_height, run_width])
        {
            if let Some(want) = want.filter(|&want| want != got) {
                return Err(Error::model(
                    session.path(),
                    format!("input {}: {axis} is fixed at {want}, the run needs {got}", contract.sample.name),
                    "choose the width and height the graph was exported for, or export it with free axes",
                ));
            }
        }
        form.check(contract, session.path(), [taken, run_height, run_width])?;
        let mut input = ArrayD::zeros(IxDyn(&[padded, taken, height, width]));
        if let Some(extra) = &condition.channels {
            if extra.ndim() != 4 || extra.shape()[2..] != [height, width] {
                return Err(Error::input(
                    "condition",
                    format!("channels of shape {:?} do not fit behind samples of {height}×{width}", extra.shape()),
                    "take the graph that was exported with this model, or another width and height",
                ));
            }
            let filled = pad_rows(extra.clone(), padded)?;
            input.slice_axis_mut(Axis(1), Slice::from(channels..)).assign(&filled);
        }
        for (info, value) in by_role(contract, &condition) {
            if let (Some(info), None) = (info, value) {
                return Err(Error::model(
                    session.path(),
                    format!("nothing in this task fills input {}", info.name),
                    "choose a task that does (`ldm-ort inspect` says which this model can do)",
                ));
            }
        }
        let pad = |value: Option<ArrayD<f32>>| value.map(|value| pad_rows(value, padded)).transpose();
        let condition = Condition {
            context: pad(condition.context)?,
            channels: None,
            context_mask: pad(condition.context_mask)?,
            resolution: pad(condition.resolution)?,
            aspect_ratio: pad(condition.aspect_ratio)?,
            text_embeds: pad(condition.text_embeds)?,
            time_ids: pad(condition.time_ids)?,
            timestep_cond: pad(condition.timestep_cond)?,
            guidance: pad(condition.guidance)?,
            class_labels: pad(condition.class_labels)?,
        };
        let prompted = guidance.branches().iter().flat_map(|b| std::iter::repeat_n(b.prompt, images)).collect();
        let outputs = contract.out_channels.unwrap_or(channels);
        let output = ArrayD::zeros(IxDyn(&[padded, outputs, height, width]));
        Ok(Self {
            session,
            contract,
            cancel: cancel.clone(),
            guidance,
            interval: None,
            batch,
            chunk,
            input,
            output,
            formed: Default::default(),
            channels,
            sample_len: channels * height * width,
            condition,
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

    /// Adds control networks, whose residuals add up.
    pub fn with_controls(mut self, controls: Vec<Control<'a>>) -> Self {
        self.controls = controls;
        self
    }

    /// Lets guidance be at work in a part of the run only. Outside of it the rows of the one branch that is told all
    /// are run, as far as a fixed batch of the graph leaves others out.
    pub fn with_guidance_interval(mut self, interval: Option<RunInterval>) -> Self {
        self.interval = interval.filter(|_| self.guidance.branches().len() > 1);
        self
    }

    fn is_guided(&self, call: Call) -> bool {
        self.interval.is_none_or(|interval| interval.holds(call))
    }

    /// The rows that are run at a call, and how many of them at once.
    fn rows_run(&self, call: Call) -> (Range<usize>, usize) {
        let padded = self.input.shape()[0];
        if self.is_guided(call) {
            return (0..padded, self.chunk);
        }
        let images = self.batch.images;
        let chunk = self.contract.batch.unwrap_or(if self.batch.by_row { 1 } else { images }).max(1);
        let length = (images.div_ceil(chunk) * chunk).min(padded);
        // Where too few rows stand behind to fill a fixed batch, rows before do.
        let start = (self.guidance.conditional_branch() * images).min(padded - length);
        (start..start + length, chunk)
    }

    /// The sum of all control networks' residuals for each place, `[rows, ...]`.
    fn controlled(&mut self, rows: Range<usize>, call: Call) -> Result<Vec<ArrayD<f32>>> {
        let part = Slice::from(rows.clone());
        let told = Told {
            sample: self.input.slice_axis(Axis(0), part).slice_axis_move(Axis(1), Slice::from(..self.channels)),
            context: rows_of(&self.condition.context, part),
            text_embeds: rows_of(&self.condition.text_embeds, part),
            time_ids: rows_of(&self.condition.time_ids, part),
            prompted: self.prompted.get(rows.start..).unwrap_or_default(),
        };
        let mut sum: Vec<ArrayD<f32>> = Vec::new();
        for control in &mut self.controls {
            let residuals = control.residuals(&told, call, &self.cancel)?;
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
        let form = Form::of(self.contract, self.channels);
        let t = timestep(&self.contract.timestep, &self.contract.sample, chunk, form.time(call.timestep));
        let switches = switches(&self.contract.constants);
        let places = self.contract.residuals.down.iter().chain(&self.contract.residuals.mid);
        let by_row: Vec<(&TensorInfo, ArrayViewD<'_, f32>)> = by_role(self.contract, &self.condition)
            .into_iter()
            .filter_map(|(info, value)| info.zip(value.map(|value| value.slice_axis(Axis(0), rows))))
            .chain(places.zip(self.residuals.iter().map(|residual| residual.view())))
            .collect();
        let (contract, cancel) = (self.contract, &self.cancel);
        let (session, mut seam) = match &mut self.shallow {
            None => (&mut *self.session, None),
            Some(shallow) => {
                let (own, seam) = shallow.begin(layers, at_once);
                (if layers == Layers::All { &mut *self.session } else { own }, Some(seam))
            }
        };
        let told = self.condition.context.as_ref().map_or(0, |tokens| tokens.shape()[1]);
        let outputs = self.output.shape()[1];
        let formed = &mut self.formed;
        let mut run = |sample: ArrayViewD<'_, f32>, mut output: ArrayViewMutD<'_, f32>| -> Result<()> {
            let [rows, taken, height, width] = [0, 1, 2, 3].map(|axis| sample.shape()[axis]);
            let positions = form.positions(chunk, [taken, height, width], told);
            let [formed_sample, formed_output] = &mut *formed;
            let sample = form.sample(sample, formed_sample)?;
            let not_by_row = || Error::internal("latents", "not laid out row by row");
            let output = output.as_slice_mut().ok_or_else(not_by_row)?;
            let shape = form.output_shape(chunk, taken, [outputs, height, width]);
            form.prediction(taken, [outputs, height, width], output, formed_output, |output| {
                let chunks =
                    sample.axis_chunks_iter(Axis(0), chunk).zip(output.chunks_mut(output.len() / rows * chunk));
                let runs = chunks.enumerate().map(|(at, (sample, out))| {
                    let part = Slice::from(at * chunk..(at + 1) * chunk);
                    let mut inputs: Vec<(&str, TensorView<'_>)> = Vec::with_capacity(by_row.len() + switches.len() + 4);
                    inputs.push((&contract.timestep.name, t.view()));
                    inputs.push((&contract.sample.name, TensorView::F32(sample)));
                    inputs.extend(positions.iter().map(|(name, places)| (*name, TensorView::F32(places.view()))));
                    inputs.extend(
                        by_row
                            .iter()
                            .map(|(info, all)| (info.name.as_str(), TensorView::F32(all.slice_axis(Axis(0), part)))),
                    );
                    inputs.extend(switches.iter().map(|(name, value)| (*name, TensorView::Bool(value.view()))));
                    Run { inputs, out, shape: Some(shape.clone()), beside: None }
                });
                let mut runs: Vec<Run<'_>> = runs.collect();
                seam.iter_mut().for_each(|seam| seam.join(&mut runs));
                session.run_each(runs, &contract.output.name, cancel)
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

    /// Runs these layers on `sample`, and says how many evaluations that is.
    fn evaluate(&mut self, sample: &[f32], call: Call, layers: Layers, prediction: &mut [f32]) -> Result<usize> {
        let rows = self.prompted.len();
        for (row, mut target) in self.input.axis_iter_mut(Axis(0)).enumerate() {
            let image = row.min(rows - 1) % self.batch.images;
            let source = &sample[image * self.sample_len..][..self.sample_len];
            if let Some(target) = target.as_slice_mut() {
                target[..self.sample_len].copy_from_slice(source);
            }
        }
        self.run_graph(call, layers)?;
        let output = self.output.as_slice().unwrap_or_default();
        if self.is_guided(call) {
            self.guidance.combine(output, self.batch.images, prediction);
        } else {
            let told = output.get(self.guidance.conditional_branch() * prediction.len()..).unwrap_or_default();
            Guidance::Off.combine(told, self.batch.images, prediction);
        }
        // Rows that only fill up a fixed batch are evaluated too, though not more of them than the branches have.
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
