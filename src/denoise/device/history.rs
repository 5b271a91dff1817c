//! The tensors that steps combine, as they come and go on the device.

use std::collections::VecDeque;

use ndarray::ArrayViewD;

use super::step_graph::{
    GUIDED, GUIDED_COPY, NEXT, NEXT_COPY, NEXT_INDEX, NEXT_INPUT, NEXT_TIMESTEP, NEXT_UNCHANGED, SAMPLE_COPY,
    UNCHANGED, guided_of, sample_of,
};
use crate::denoise::Call;
use crate::error::{Error, Result};
use crate::session::{DeviceRuns, DeviceTensor, Place};
use crate::tensor::TensorView;

/// The outputs of a run by name.
pub(super) struct StepOutputs(Vec<(&'static str, DeviceTensor)>);

impl StepOutputs {
    pub fn new(wanted: &[(&'static str, Place)], made: Vec<DeviceTensor>) -> Self {
        Self(wanted.iter().map(|(name, _)| *name).zip(made).collect())
    }

    pub fn take(&mut self, name: &str) -> Option<DeviceTensor> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    pub fn require(&mut self, name: &str) -> Result<DeviceTensor> {
        self.take(name).ok_or_else(|| Error::internal("the step on a device", format!("output {name} is missing")))
    }
}

/// Earlier samples and guided predictions, the latest first.
pub(super) struct History {
    /// The most samples and guided predictions that a step combines.
    reach: [usize; 2],
    /// True if a step combines the sample as it was before the mask was applied.
    takes_unchanged: bool,
    samples: VecDeque<DeviceTensor>,
    guided: VecDeque<DeviceTensor>,
    unchanged: Option<DeviceTensor>,
}

impl History {
    pub fn new(reach: [usize; 2], takes_unchanged: bool) -> Self {
        Self { reach, takes_unchanged, samples: VecDeque::new(), guided: VecDeque::new(), unchanged: None }
    }

    /// Sets all of it to the first sample, which stands for what does not exist yet: its weights are 0.
    pub fn set(&self, step: &mut DeviceRuns<'_>, sample: &ArrayViewD<'_, f32>) -> Result<()> {
        let samples = (0..self.reach[0]).map(sample_of);
        let guided = (1..self.reach[1]).map(guided_of);
        let unchanged = self.takes_unchanged.then(|| UNCHANGED.to_owned());
        let mut inputs = samples.chain(guided).chain(unchanged);
        inputs.try_for_each(|input| step.set(&input, &TensorView::F32(sample.view())))
    }

    /// Binds what exists.
    pub fn bind(&self, step: &mut DeviceRuns<'_>) -> Result<()> {
        for (lag, sample) in self.samples.iter().enumerate() {
            step.bind(&sample_of(lag), sample)?;
        }
        for (before, guided) in self.guided.iter().enumerate() {
            step.bind(&guided_of(before + 1), guided)?;
        }
        self.unchanged.as_ref().map_or(Ok(()), |unchanged| step.bind(UNCHANGED, unchanged))
    }

    /// The outputs of a step, and where they go.
    pub fn outputs(&self, call: Call, wants_x0: bool, wants_sample: bool) -> Vec<(&'static str, Place)> {
        let is_last = call.is_last();
        let outputs = [
            (NEXT, Place::Host, is_last),
            (NEXT, Place::Device, !is_last),
            (NEXT_INPUT, Place::Device, !is_last),
            (NEXT_TIMESTEP, Place::Device, !is_last),
            (NEXT_INDEX, Place::Device, !is_last),
            (NEXT_UNCHANGED, Place::Device, !is_last && self.takes_unchanged),
            (GUIDED, Place::Device, !is_last && self.reach[1] > 1),
            (NEXT_COPY, Place::Host, !is_last && wants_sample),
            (GUIDED_COPY, Place::Host, wants_x0),
            // The first sample came from the host, and has to be on the device as long as it is combined.
            (SAMPLE_COPY, Place::Device, !is_last && self.samples.is_empty() && self.reach[0] > 1),
            (SAMPLE_COPY, Place::Host, wants_x0 && !self.samples.is_empty()),
        ];
        outputs.into_iter().filter(|(.., is_wanted)| *is_wanted).map(|(name, place, _)| (name, place)).collect()
    }

    /// Goes on to the next step.
    pub fn advance(&mut self, made: &mut StepOutputs) {
        if self.samples.is_empty() {
            self.samples.extend(made.take(SAMPLE_COPY));
        }
        made.take(NEXT).into_iter().for_each(|sample| self.samples.push_front(sample));
        self.samples.truncate(self.reach[0]);
        made.take(GUIDED).into_iter().for_each(|guided| self.guided.push_front(guided));
        self.guided.truncate(self.reach[1].saturating_sub(1));
        self.unchanged = made.take(NEXT_UNCHANGED);
    }
}
