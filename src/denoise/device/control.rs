//! ControlNets on the device: their residuals are inputs of the denoiser.

use ndarray::{ArrayD, IxDyn, Slice};

use super::graph_sample::GraphSample;
use super::graph_writer::GraphWriter;
use crate::bundle::DenoiserSignature;
use crate::denoise::control::ControlWeight;
use crate::denoise::feed::{switches, timestep};
use crate::denoise::graph::GraphDenoiser;
use crate::denoise::{Call, Condition, Control};
use crate::error::{Error, Result};
use crate::session::{Cancel, DeviceRuns, DeviceTensor, Place, Session, SmallGraphs};
use crate::tensor::{DType, TensorInfo, TensorView};

impl Control<'_> {
    /// True if it runs on all rows at once, on what the step hands to the denoiser, and is scaled by its graph.
    pub(super) fn fits_device(&self, denoiser: &GraphDenoiser<'_>) -> bool {
        let (own, other) = (self.signature, denoiser.signature);
        let rows = denoiser.prompted.len();
        let shape_of_timestep =
            |info: &TensorInfo, sample: &TensorInfo| timestep(info, sample, rows, 0.0).shape().to_vec();
        let is_alike = |own: &TensorInfo, other: &TensorInfo| self.session.dtype(own) == denoiser.session.dtype(other);
        let taken = other.residuals.down.iter().chain(&other.residuals.mid);
        own.scale.is_some()
            && own.batch.is_none()
            && !self.weight.guess
            && denoiser.input.shape().get(1) == Some(&denoiser.channels)
            && is_alike(&own.sample, &other.sample)
            && is_alike(&own.timestep, &other.timestep)
            && shape_of_timestep(&own.timestep, &own.sample) == shape_of_timestep(&other.timestep, &other.sample)
            && self.residual_dtypes().eq(taken.map(|info| denoiser.session.dtype(info)))
    }

    fn residual_dtypes(&self) -> impl Iterator<Item = DType> {
        let made = self.signature.down.iter().chain([&self.signature.mid]);
        made.map(|info| self.session.dtype(info))
    }
}

/// The ControlNets of a run.
pub(super) struct DeviceControls<'s> {
    controls: Vec<DeviceControl<'s>>,
    small_graphs: SmallGraphs,
    /// The graph that adds the residuals of several, once it is known what their shapes are.
    sum: Option<Session>,
    /// The denoiser's inputs for residuals.
    places: Vec<&'s TensorInfo>,
    /// Their types.
    dtypes: Vec<DType>,
}

struct DeviceControl<'s> {
    runs: DeviceRuns<'s>,
    /// The inputs of the sample, the timestep and the scale.
    inputs: [&'s TensorInfo; 3],
    outputs: Vec<(&'s str, Place)>,
    weight: ControlWeight,
    /// The scale that was last set.
    scale: Option<f64>,
    /// The residuals at that scale, and those at a scale of 0.
    residuals: Vec<DeviceTensor>,
    silent: Vec<DeviceTensor>,
}

/// The names of the residual of a ControlNet for a place, and of the sum, in the graph of the sum.
fn residual_of(control: usize, place: usize) -> String {
    format!("residual_{control}_{place}")
}
fn sum_of(place: usize) -> String {
    format!("sum_{place}")
}

/// The graph that adds the residuals of several ControlNets.
fn sum_graph(controls: usize, dtypes: &[DType], residuals: &[DeviceTensor]) -> Result<Vec<u8>> {
    let mut graph = GraphWriter::default();
    for (place, (&dtype, residual)) in dtypes.iter().zip(residuals).enumerate() {
        let shape = residual.shape()?;
        let names: Vec<String> = (0..controls).map(|control| residual_of(control, place)).collect();
        names.iter().for_each(|name| graph.input(name, dtype, &shape));
        let mut names = names.into_iter();
        let first = names.next().unwrap_or_default();
        let sum = names.fold(first, |sum, name| graph.node("Add", &[&sum, &name]));
        graph.output(&sum_of(place), &sum, dtype, &shape);
    }
    Ok(graph.encode())
}

impl<'s> DeviceControls<'s> {
    /// Sets all inputs, those of the first call among them.
    pub fn new(
        controls: &'s mut [Control<'_>],
        small_graphs: SmallGraphs,
        (signature, condition): (&'s DenoiserSignature, &Condition),
        sample: &GraphSample<'_>,
        first: f64,
    ) -> Result<Self> {
        let places = signature.residuals.down.iter().chain(&signature.residuals.mid).collect();
        let dtypes = controls.first().map(|control| control.residual_dtypes().collect()).unwrap_or_default();
        let controls = controls.iter_mut().map(|control| DeviceControl::new(control, condition, sample, first));
        Ok(Self { controls: controls.collect::<Result<_>>()?, small_graphs, sum: None, places, dtypes })
    }

    /// Runs them, and binds the sum of their residuals to the denoiser.
    pub fn run(&mut self, call: Call, denoiser: &mut DeviceRuns<'_>, cancel: &Cancel) -> Result<()> {
        self.controls.iter_mut().try_for_each(|control| control.run(call, cancel))?;
        let (places, several) = (&self.places, self.controls.len());
        let bind = |denoiser: &mut DeviceRuns<'_>, residuals: &[DeviceTensor]| -> Result<()> {
            places.iter().zip(residuals).try_for_each(|(place, residual)| denoiser.bind(&place.name, residual))
        };
        if let [only] = self.controls.as_slice() {
            return bind(denoiser, only.residuals());
        }
        let first = self.controls.first().map(DeviceControl::residuals).unwrap_or_default();
        let sum = match &mut self.sum {
            Some(sum) => sum,
            none => none.insert(self.small_graphs.open(
                "sum of residuals",
                sum_graph(several, &self.dtypes, first)?,
                cancel,
            )?),
        };
        let mut sum = sum.device_runs()?;
        for (number, control) in self.controls.iter().enumerate() {
            for (place, residual) in control.residuals().iter().enumerate() {
                sum.bind(&residual_of(number, place), residual)?;
            }
        }
        let names: Vec<String> = (0..places.len()).map(sum_of).collect();
        let outputs: Vec<(&str, Place)> = names.iter().map(|name| (name.as_str(), Place::Device)).collect();
        bind(denoiser, &sum.run(&outputs, cancel)?)
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
    fn new(control: &'s mut Control<'_>, condition: &Condition, formed: &GraphSample<'_>, first: f64) -> Result<Self> {
        let rows = formed.input_shape[0];
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
            residuals: Vec::new(),
            silent: Vec::new(),
        })
    }

    /// Runs it, but for a second time at a scale of 0, at which nothing changes.
    fn run(&mut self, call: Call, cancel: &Cancel) -> Result<()> {
        let scale = self.weight.scale_at(call);
        if self.scale != Some(scale) {
            self.scale = Some(scale);
            if self.is_silent() {
                return Ok(());
            }
            let [.., info] = self.inputs;
            let value = ArrayD::from_elem(IxDyn(&vec![1; info.shape.len()]), scale as f32);
            self.runs.set(&info.name, &TensorView::F32(value.view()))?;
        }
        if self.is_silent() {
            return Ok(());
        }
        self.runs.keep_memory(!call.is_last());
        let residuals = self.runs.run(&self.outputs, cancel)?;
        *(if scale == 0.0 { &mut self.silent } else { &mut self.residuals }) = residuals;
        Ok(())
    }

    /// True if its residuals are zeros that are there already.
    fn is_silent(&self) -> bool {
        self.scale == Some(0.0) && !self.silent.is_empty()
    }

    fn residuals(&self) -> &[DeviceTensor] {
        if self.scale == Some(0.0) { &self.silent } else { &self.residuals }
    }
}
