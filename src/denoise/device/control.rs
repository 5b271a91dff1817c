//! ControlNets on the device: their residuals are inputs of the denoiser.

use ndarray::{ArrayD, IxDyn, Slice};

use super::formed::Formed;
use super::graph_writer::GraphWriter;
use crate::bundle::DenoiserSignature;
use crate::denoise::control::ControlWeight;
use crate::denoise::feed::{switches, timestep};
use crate::denoise::graph::GraphDenoiser;
use crate::denoise::{Call, Condition, Control};
use crate::error::{Error, Result};
use crate::session::{Cancel, DeviceRuns, DeviceTensor, Place, Session};
use crate::tensor::{DType, TensorInfo, TensorView};

impl Control<'_> {
    /// True if it runs on all rows at once, on what the step hands to the denoiser, and is scaled by its graph.
    pub(super) fn fits_device(&self, denoiser: &GraphDenoiser<'_>) -> bool {
        let (own, other) = (self.signature, denoiser.signature);
        let dtypes = |residuals: Vec<&TensorInfo>| residuals.iter().map(|info| info.dtype).collect::<Vec<DType>>();
        let is_alike = |own: &TensorInfo, other: &TensorInfo| own.dtype == other.dtype;
        own.scale.is_some()
            && own.batch.is_none()
            && !self.weight.guess
            && denoiser.input.shape().get(1) == Some(&denoiser.channels)
            && is_alike(&own.sample, &other.sample)
            && is_alike(&own.timestep, &other.timestep)
            && own.timestep.shape.len() == other.timestep.shape.len()
            && dtypes(own.down.iter().chain([&own.mid]).collect())
                == dtypes(other.residuals.down.iter().chain(&other.residuals.mid).collect())
    }
}

/// The ControlNets of a run.
pub(super) struct DeviceControls<'s> {
    controls: Vec<DeviceControl<'s>>,
    /// The sum of their residuals, where there are several.
    sum: Option<DeviceRuns<'s>>,
    /// The denoiser's inputs for residuals.
    places: Vec<&'s str>,
}

struct DeviceControl<'s> {
    runs: DeviceRuns<'s>,
    /// The inputs of the sample, the timestep and the scale.
    inputs: [&'s TensorInfo; 3],
    outputs: Vec<(&'s str, Place)>,
    weight: ControlWeight,
    /// The scale that was last set.
    scale: Option<f64>,
}

/// The names of the residual of a ControlNet for a place, and of the sum, in the graph of the sum.
fn residual_of(control: usize, place: usize) -> String {
    format!("residual_{control}_{place}")
}
fn sum_of(place: usize) -> String {
    format!("sum_{place}")
}

/// The graph that adds the residuals of several ControlNets.
pub(super) fn sum_graph(controls: usize, signature: &DenoiserSignature) -> Vec<u8> {
    let mut graph = GraphWriter::default();
    for (place, info) in signature.residuals.down.iter().chain(&signature.residuals.mid).enumerate() {
        let names: Vec<String> = (0..controls).map(|control| residual_of(control, place)).collect();
        names.iter().for_each(|name| graph.shapeless_input(name, info.dtype));
        let mut names = names.into_iter();
        let first = names.next().unwrap_or_default();
        let sum = names.fold(first, |sum, name| graph.node("Add", &[&sum, &name]));
        graph.shapeless_output(&sum_of(place), &sum, info.dtype);
    }
    graph.encode()
}

impl<'s> DeviceControls<'s> {
    /// Sets all inputs, those of the first call among them. `sum` is open on [`sum_graph`] where there are several.
    pub fn new(
        controls: &'s mut [Control<'_>],
        sum: Option<&'s mut Session>,
        (signature, condition): (&'s DenoiserSignature, &Condition),
        formed: &Formed<'_>,
        first: f64,
    ) -> Result<Self> {
        let rows = formed.input_shape[0];
        let places = signature.residuals.down.iter().chain(&signature.residuals.mid);
        let places = places.map(|info| info.name.as_str()).collect();
        let controls = controls.iter_mut().map(|control| DeviceControl::new(control, condition, formed, rows, first));
        let controls = controls.collect::<Result<_>>()?;
        Ok(Self { controls, sum: sum.map(Session::device_runs).transpose()?, places })
    }

    /// Runs them, and binds the sum of their residuals to the denoiser.
    pub fn run(&mut self, call: Call, denoiser: &mut DeviceRuns<'_>, cancel: &Cancel) -> Result<()> {
        for (number, control) in self.controls.iter_mut().enumerate() {
            let residuals = control.run(call, cancel)?;
            for (place, (name, residual)) in self.places.iter().zip(&residuals).enumerate() {
                match &mut self.sum {
                    Some(sum) => sum.bind(&residual_of(number, place), residual)?,
                    None => denoiser.bind(name, residual)?,
                }
            }
        }
        let Some(sum) = &mut self.sum else { return Ok(()) };
        let names: Vec<String> = (0..self.places.len()).map(sum_of).collect();
        let outputs: Vec<(&str, Place)> = names.iter().map(|name| (name.as_str(), Place::Device)).collect();
        let sums = sum.run(&outputs, cancel)?;
        self.places.iter().zip(&sums).try_for_each(|(name, sum)| denoiser.bind(name, sum))
    }

    /// Binds the next sample and timestep.
    pub fn bind_next(&mut self, sample: &DeviceTensor, timestep: &DeviceTensor) -> Result<()> {
        self.controls.iter_mut().try_for_each(|control| {
            let [own_sample, own_timestep, _] = control.inputs;
            control.runs.bind(&own_sample.name, sample)?;
            control.runs.bind(&own_timestep.name, timestep)
        })
    }

    /// Values copied to the device and from it so far.
    pub fn copies(&self) -> [usize; 2] {
        let all = self.controls.iter().map(|control| control.runs.copies());
        all.fold([0; 2], |sum, copies| [sum[0] + copies[0], sum[1] + copies[1]])
    }
}

impl<'s> DeviceControl<'s> {
    fn new(
        control: &'s mut Control<'_>,
        condition: &Condition,
        formed: &Formed<'_>,
        rows: usize,
        first: f64,
    ) -> Result<Self> {
        let image = control.image_of_rows(rows)?.to_owned();
        let Control { session, signature, weight, .. } = control;
        let signature = *signature;
        let mut runs = session.device_runs()?;
        let time = timestep(&signature.timestep, &signature.sample, rows, first);
        runs.set(&signature.sample.name, &TensorView::F32(formed.input.view()))?;
        runs.set(&signature.timestep.name, &time.view())?;
        runs.set(&signature.control.name, &TensorView::F32(image.view()))?;
        for (info, value) in condition.rows(&signature.inputs, Slice::from(..rows)) {
            runs.set(&info.name, &TensorView::F32(value))?;
        }
        for (name, value) in switches(&signature.constants) {
            runs.set(name, &TensorView::Bool(value.view()))?;
        }
        let outputs = signature.down.iter().chain([&signature.mid]);
        let no_scale = || Error::internal("control", "found no input for the scale");
        let scale = signature.scale.as_ref().ok_or_else(no_scale)?;
        Ok(Self {
            runs,
            inputs: [&signature.sample, &signature.timestep, scale],
            outputs: outputs.map(|info| (info.name.as_str(), Place::Device)).collect(),
            weight: *weight,
            scale: None,
        })
    }

    fn run(&mut self, call: Call, cancel: &Cancel) -> Result<Vec<DeviceTensor>> {
        let scale = self.weight.scale_at(call);
        if self.scale != Some(scale) {
            let [.., info] = self.inputs;
            let value = ArrayD::from_elem(IxDyn(&vec![1; info.shape.len()]), scale as f32);
            self.runs.set(&info.name, &TensorView::F32(value.view()))?;
            self.scale = Some(scale);
        }
        self.runs.run(&self.outputs, cancel)
    }
}
