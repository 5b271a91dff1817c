//! Runs of a graph whose inputs and outputs stay on the provider's device from one run to the next.

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::IoBinding;
use ort::value::DynValue;

use super::Cancel;
use super::convert;
use super::graph_error::graph_error;
use super::invoke::OpenGraph;
use super::library::error_message;
use super::provider::{ProviderChoice, find_provider};
use crate::error::{Error, Result};
use crate::tensor::TensorView;

/// The memory that a run's output goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// That of the provider's device.
    Device,
    /// The host's, from which [`DeviceTensor::read`] reads.
    Host,
}

/// An output of a run, where the run left it.
#[derive(Debug)]
pub struct DeviceTensor {
    value: DynValue,
}

impl DeviceTensor {
    /// Returns its shape.
    ///
    /// # Errors
    /// [`Error::Internal`] if it is not a tensor.
    pub fn shape(&self) -> Result<Vec<usize>> {
        convert::output_shape(&self.value).map_err(|problem| Error::internal("an output of a device's run", problem))
    }

    /// Writes a tensor in the host's memory to `out` as `f32`, row-major.
    ///
    /// # Errors
    /// [`Error::Internal`] if it is on a device, or has another number of values than `out`.
    pub fn read(&self, out: &mut [f32]) -> Result<()> {
        let failed = |problem: String| Error::internal("an output of a device's run", problem);
        let shape = convert::output_shape(&self.value).map_err(failed)?;
        if shape.iter().product::<usize>() != out.len() {
            return Err(failed(format!("expected {} values, found {shape:?}", out.len())));
        }
        convert::output(&self.value, out).map_err(failed)
    }
}

/// Runs of a graph whose tensors stay on the device of its first provider.
///
/// An input that is set or bound keeps its value for all later runs. Only [`DeviceRuns::set`] copies from the host, and
/// only outputs in [`Place::Host`] are copied to it.
pub struct DeviceRuns<'s> {
    graph: &'s mut OpenGraph,
    binding: IoBinding,
    device: MemoryInfo<'static>,
    host: MemoryInfo<'static>,
    copies: [usize; 2],
}

impl<'s> DeviceRuns<'s> {
    pub(super) fn new(graph: &'s mut OpenGraph, provider: Option<&ProviderChoice>) -> Result<Self> {
        let memory = match provider {
            Some(choice) => find_provider(&choice.name).ok().and_then(|known| known.memory),
            None => None,
        };
        let number = provider.and_then(|choice| choice.options.get("device_id")).and_then(|id| id.parse().ok());
        let place = |name: &str, number| {
            MemoryInfo::new(AllocationDevice::new(name), number, AllocatorType::Device, MemoryType::Default)
        };
        let prepare = |graph: &OpenGraph| -> ort::Result<_> {
            let host = place(HOST, 0)?;
            let device = memory.map_or_else(|| place(HOST, 0), |name| place(name, number.unwrap_or(0)))?;
            Ok((graph.inner.create_binding()?, device, host))
        };
        let (binding, device, host) = prepare(graph).map_err(|e| failed(graph, error_message(&e)))?;
        Ok(Self { graph, binding, device, host, copies: [0; 2] })
    }

    /// Copies an input to the device, converted to the graph's element type.
    ///
    /// # Errors
    /// [`Error::Graph`] for an input that the graph does not have, or a value that its type cannot hold.
    pub fn set(&mut self, input: &str, value: &TensorView<'_>) -> Result<()> {
        let Some(info) = self.graph.inputs.iter().find(|info| info.name == input) else {
            return Err(failed(self.graph, format!("the graph has no input {input}")));
        };
        let about = |problem: String| failed(self.graph, format!("input {input}: {problem}"));
        let value = convert::owned(value, info.dtype).map_err(about)?;
        self.copies[0] += 1;
        self.binding.bind_input(input, &value).map_err(|e| about(error_message(&e)))
    }

    /// Hands an output of another run on as an input.
    ///
    /// # Errors
    /// [`Error::Graph`] if the runtime rejects it.
    pub fn bind(&mut self, input: &str, tensor: &DeviceTensor) -> Result<()> {
        let about = |e: ort::Error| failed(self.graph, format!("input {input}: {}", error_message(&e)));
        self.binding.bind_input(input, &tensor.value).map_err(about)
    }

    /// Returns the number of tensors that were copied to the device so far, and of those copied to the host.
    pub fn copies(&self) -> [usize; 2] {
        self.copies
    }

    /// Has runs from now on leave the memory of their intermediate results to those after them, if the session
    /// frees it otherwise.
    pub fn keep_memory(&mut self, keeps: bool) {
        self.graph.arenas.keep(keeps);
    }

    /// Runs the graph and returns the named outputs in their order, each a new tensor.
    ///
    /// # Errors
    /// [`Error::Graph`] for an input without a value and all errors of the runtime; [`Error::Interrupted`] if `cancel`
    /// was cancelled before or during the run.
    pub fn run(&mut self, outputs: &[(&str, Place)], cancel: &Cancel) -> Result<Vec<DeviceTensor>> {
        cancel.check()?;
        let mut run = || -> ort::Result<Vec<DynValue>> {
            self.binding.clear_outputs();
            self.copies[1] += outputs.iter().filter(|(_, place)| *place == Place::Host).count();
            for &(name, place) in outputs {
                let memory = if place == Place::Device { &self.device } else { &self.host };
                self.binding.bind_output_to_device(name, memory)?;
            }
            let OpenGraph { inner: graph, arenas, .. } = &mut *self.graph;
            let binding = &self.binding;
            let missing = |name: &str| ort::Error::new(format!("output {name} is missing"));
            arenas.run(|options| {
                let mut made = cancel.during_run(options, || graph.run_binding_with_options(binding, options))?;
                outputs.iter().map(|(name, _)| made.remove(name).ok_or_else(|| missing(name))).collect()
            })
        };
        match run() {
            Ok(made) => Ok(made.into_iter().map(|value| DeviceTensor { value }).collect()),
            Err(_) if cancel.is_cancelled() => Err(Error::Interrupted { at_step: None }),
            Err(e) => Err(failed(self.graph, error_message(&e))),
        }
    }
}

/// ONNX Runtime's name of the host's memory.
const HOST: &str = "Cpu";

fn failed(graph: &OpenGraph, problem: String) -> Error {
    graph_error(&graph.component, &graph.path, "running", problem)
}
