//! The graph of a step: guidance, the scheduler's combination, and the model's next inputs.

use super::graph_writer::GraphWriter;
use crate::denoise::Guidance;
use crate::scheduler::{LinearStep, LinearSteps};
use crate::tensor::DType;

/// The properties of a run that decide the graph of its steps.
pub(super) struct StepGraph<'a> {
    pub steps: &'a LinearSteps,
    /// The timesteps in the unit of the denoiser, one a step.
    pub timesteps: Vec<f32>,
    pub guidance: Guidance,
    /// The shape of the sample in the form of the denoiser; images come first.
    pub sample: Vec<usize>,
    /// The length of the second axis of the denoiser's input, and of its output.
    pub input_length: usize,
    pub output_length: usize,
    /// True if guidance combines the sample's part of the output alone, and not all of it.
    pub guides_sample: bool,
    /// Element types of the denoiser's sample, timestep and output.
    pub dtypes: [DType; 3],
    /// The shape of the denoiser's timestep.
    pub timestep: Vec<usize>,
    /// True if the sample outside an inpainting mask is restored after each step.
    pub is_masked: bool,
}

/// Names of inputs.
pub(super) const INDEX: &str = "index";
pub(super) const PREDICTION: &str = "prediction";
pub(super) const SAMPLE: &str = "sample";
pub(super) const NOISE: &str = "noise";
pub(super) const MASK: &str = "mask";
pub(super) const KEPT: &str = "kept";
pub(super) const EXTRA: &str = "extra";
/// The sample before the mask was applied to it.
pub(super) const UNCHANGED: &str = "unchanged";
/// Names of outputs.
pub(super) const NEXT: &str = "next";
/// For the host.
pub(super) const NEXT_COPY: &str = "next_copy";
pub(super) const NEXT_UNCHANGED: &str = "next_unchanged";
pub(super) const GUIDED: &str = "guided";
pub(super) const NEXT_INPUT: &str = "next_input";
pub(super) const NEXT_TIMESTEP: &str = "next_timestep";
pub(super) const NEXT_INDEX: &str = "next_index";
pub(super) const SAMPLE_COPY: &str = "sample_copy";
pub(super) const GUIDED_COPY: &str = "guided_copy";

/// The name of the sample of `lag` steps ago.
pub(super) fn sample_of(lag: usize) -> String {
    if lag == 0 { SAMPLE.to_owned() } else { format!("{SAMPLE}_{lag}") }
}

/// The name of the guided prediction of `lag` steps ago, 1 or more.
pub(super) fn guided_of(lag: usize) -> String {
    format!("{GUIDED}_{lag}")
}

impl StepGraph<'_> {
    /// True if a step combines the sample as it was before the mask was applied.
    pub fn takes_unchanged(&self) -> bool {
        self.is_masked && self.steps.steps.iter().any(|step| step.unchanged != 0.0)
    }

    /// True if the denoiser's input has more than the sample.
    pub fn takes_extra(&self) -> bool {
        self.input_length > self.sample[1]
    }

    /// The graph as an ONNX file.
    pub fn encode(&self) -> Vec<u8> {
        let mut graph = GraphWriter::default();
        graph.input(INDEX, DType::I32, &[1]);
        graph.input(SAMPLE, DType::F32, &self.sample);
        let prediction = self.prediction(&mut graph);
        let guided = match self.guides_sample {
            true => {
                let of_sample = self.of_sample(&mut graph, prediction);
                self.guided(&mut graph, &of_sample)
            }
            false => {
                let guided = self.guided(&mut graph, &prediction);
                self.of_sample(&mut graph, guided)
            }
        };
        graph.output(GUIDED, &guided, DType::F32, &self.sample);
        graph.output(GUIDED_COPY, &guided, DType::F32, &self.sample);
        graph.output(SAMPLE_COPY, SAMPLE, DType::F32, &self.sample);
        let combined = self.combined(&mut graph, &guided);
        if self.takes_unchanged() {
            graph.output(NEXT_UNCHANGED, &combined, DType::F32, &self.sample);
        }
        let next = self.restored(&mut graph, combined);
        graph.output(NEXT, &next, DType::F32, &self.sample);
        graph.output(NEXT_COPY, &next, DType::F32, &self.sample);
        self.inputs(&mut graph, &next);
        let one = graph.integers(&[1]);
        let one = graph.cast(&one, DType::I64, DType::I32);
        let index = graph.node("Add", &[INDEX, &one]);
        graph.output(NEXT_INDEX, &index, DType::I32, &[1]);
        graph.encode()
    }

    /// The prediction in float32, one part a branch of the guidance.
    fn prediction(&self, graph: &mut GraphWriter) -> String {
        let mut shape = self.sample.clone();
        shape[0] *= self.guidance.branches().len();
        shape[1] = self.output_length;
        graph.input(PREDICTION, self.dtypes[2], &shape);
        graph.cast(PREDICTION, self.dtypes[2], DType::F32)
    }

    /// The sample's part of a prediction, without variances or other images.
    fn of_sample(&self, graph: &mut GraphWriter, prediction: String) -> String {
        if self.output_length == self.sample[1] {
            return prediction;
        }
        let [start, end, axis] = [0, self.sample[1] as i64, 1].map(|value| graph.integers(&[value]));
        graph.node("Slice", &[&prediction, &start, &end, &axis])
    }

    /// Combines the branches as [`Guidance::combine`] does.
    fn guided(&self, graph: &mut GraphWriter, prediction: &str) -> String {
        let images = self.sample[0] as i64;
        let branches = self.guidance.branches().len();
        let parts = match branches {
            1 => vec![prediction.to_owned()],
            _ => {
                let lengths = graph.integers(&vec![images; branches]);
                graph.split(&[prediction, &lengths], branches)
            }
        };
        match (self.guidance, parts.as_slice()) {
            (Guidance::ClassifierFree { scale, rescale }, [unconditional, conditional]) => {
                let guided = graph.toward(unconditional, conditional, unconditional, scale as f32);
                if rescale > 0.0 { self.rescaled(graph, &guided, conditional, rescale as f32) } else { guided }
            }
            (Guidance::Instruct { text, image }, [both, image_only, neither]) => {
                let guided = graph.toward(neither, both, image_only, text as f32);
                graph.toward(&guided, image_only, neither, image as f32)
            }
            (Guidance::Off | Guidance::ClassifierFree { .. } | Guidance::Instruct { .. }, parts) => {
                parts.first().cloned().unwrap_or_default()
            }
        }
    }

    /// Restores the standard deviation of each image's conditional prediction by this share.
    fn rescaled(&self, graph: &mut GraphWriter, guided: &str, conditional: &str, rescale: f32) -> String {
        let axes: Vec<i64> = (1..self.sample.len() as i64).collect();
        let mut variance = |of: &str| {
            let mean = graph.mean(of, &axes);
            let difference = graph.node("Sub", &[of, &mean]);
            let square = graph.node("Mul", &[&difference, &difference]);
            graph.mean(&square, &axes)
        };
        let [of_conditional, of_guided] = [variance(conditional), variance(guided)];
        let ratio = graph.node("Div", &[&of_conditional, &of_guided]);
        let ratio = graph.node("Sqrt", &[&ratio]);
        let share = graph.floats(&[rescale]);
        let rest = graph.floats(&[1.0 - rescale]);
        let factor = graph.node("Mul", &[&ratio, &share]);
        let factor = graph.node("Add", &[&factor, &rest]);
        graph.node("Mul", &[guided, &factor])
    }

    /// The scheduler's combination, with the noise of the step.
    fn combined(&self, graph: &mut GraphWriter, guided: &str) -> String {
        let [samples, outputs] = self.steps.reach();
        let mut terms = Vec::new();
        for lag in 0..samples {
            let name = sample_of(lag);
            if lag > 0 {
                graph.input(&name, DType::F32, &self.sample);
            }
            terms.push((name, self.weights(|step| step.samples.get(lag).copied())));
        }
        for lag in 0..outputs {
            let name = if lag == 0 { guided.to_owned() } else { guided_of(lag) };
            if lag > 0 {
                graph.input(&name, DType::F32, &self.sample);
            }
            terms.push((name, self.weights(|step| step.outputs.get(lag).copied())));
        }
        if self.takes_unchanged() {
            graph.input(UNCHANGED, DType::F32, &self.sample);
        }
        let unchanged = if self.takes_unchanged() { UNCHANGED } else { SAMPLE };
        terms.push((unchanged.to_owned(), self.weights(|step| Some(step.unchanged))));
        let mut sum: Option<String> = None;
        for (name, weights) in terms.into_iter().filter(|(_, weights)| weights.iter().any(|weight| *weight != 0.0)) {
            let weight = graph.at(&weights, INDEX);
            let term = graph.node("Mul", &[&name, &weight]);
            sum = Some(sum.map_or_else(|| term.clone(), |sum| graph.node("Add", &[&sum, &term])));
        }
        if self.steps.draws_noise {
            let noise = self.of_step(graph, NOISE);
            sum = Some(sum.map_or_else(|| noise.clone(), |sum| graph.node("Add", &[&sum, &noise])));
        }
        sum.unwrap_or_else(|| SAMPLE.to_owned())
    }

    fn weights(&self, weight: impl Fn(&LinearStep) -> Option<f32>) -> Vec<f32> {
        self.steps.steps.iter().map(|step| weight(step).unwrap_or(0.0)).collect()
    }

    /// The part of this step of an input that has one for each.
    fn of_step(&self, graph: &mut GraphWriter, name: &str) -> String {
        graph.input(name, DType::F32, &[&[self.steps.steps.len()], self.sample.as_slice()].concat());
        let part = graph.node("Gather", &[name, INDEX]);
        let shape: Vec<i64> = self.sample.iter().map(|&length| length as i64).collect();
        let shape = graph.integers(&shape);
        graph.node("Reshape", &[&part, &shape])
    }

    /// The sample with what the mask preserves.
    fn restored(&self, graph: &mut GraphWriter, combined: String) -> String {
        if !self.is_masked {
            return combined;
        }
        graph.input(MASK, DType::F32, &self.sample);
        let kept = self.of_step(graph, KEPT);
        let repainted = graph.node("Mul", &[&combined, MASK]);
        graph.node("Add", &[&repainted, &kept])
    }

    /// The denoiser's next sample and timestep.
    fn inputs(&self, graph: &mut GraphWriter, next: &str) {
        let [dtype, time_dtype, _] = self.dtypes;
        let scales: Vec<f32> = following(self.steps.steps.iter().map(|step| step.input_scale));
        let scale = graph.at(&scales, INDEX);
        let scaled = graph.node("Mul", &[next, &scale]);
        let scaled = graph.cast(&scaled, DType::F32, dtype);
        let branches = self.guidance.branches().len();
        let mut input = graph.concat(&vec![scaled.as_str(); branches], 0);
        let mut shape = self.sample.clone();
        shape[0] *= branches;
        if self.takes_extra() {
            let mut extra = shape.clone();
            extra[1] = self.input_length - self.sample[1];
            graph.input(EXTRA, dtype, &extra);
            input = graph.concat(&[&input, EXTRA], 1);
            shape[1] = self.input_length;
        }
        graph.output(NEXT_INPUT, &input, dtype, &shape);
        let time = graph.at(&following(self.timesteps.iter().copied()), INDEX);
        let time = graph.cast(&time, DType::F32, time_dtype);
        let lengths: Vec<i64> = self.timestep.iter().map(|&length| length as i64).collect();
        let lengths = graph.integers(&lengths);
        let operator = if self.timestep.is_empty() { "Reshape" } else { "Expand" };
        let time = graph.node(operator, &[&time, &lengths]);
        graph.output(NEXT_TIMESTEP, &time, time_dtype, &self.timestep);
    }
}

/// The value of the step after each one; the last is followed by itself.
fn following(values: impl Iterator<Item = f32> + Clone) -> Vec<f32> {
    let last = values.clone().last();
    values.skip(1).chain(last).collect()
}
