//! One run of an open graph; other threads may run it at the same time.

use std::ffi::CString;
use std::path::PathBuf;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use ort::AsPointer;
use ort::session::{RunOptions, SessionInputValue};
use ort::value::DynValue;

use super::Cancel;
use super::arenas::Arenas;
use super::convert::{self, Buffer};
use super::graph_error::graph_error;
use super::library::error_message;
use crate::error::{Error, Result};
use crate::tensor::{TensorInfo, TensorView};

/// An open graph, as a run uses it.
pub(super) struct OpenGraph {
    pub inner: ort::session::Session,
    /// Mapped weight files that the session reads. They are released after it.
    pub _mapped: Vec<memmap2::Mmap>,
    /// Holds a lock as long as the graph is open.
    pub _held: Option<std::sync::Arc<std::fs::File>>,
    pub arenas: Arenas,
    pub inputs: Vec<TensorInfo>,
    pub outputs: Vec<TensorInfo>,
    pub component: String,
    /// True if it computes in half precision.
    pub computes_in_half: bool,
    pub path: PathBuf,
}

impl OpenGraph {
    /// Creates the buffers of one run, one per input.
    pub(super) fn buffers(&self) -> Vec<Buffer> {
        self.inputs.iter().map(|_| Buffer::default()).collect()
    }

    /// Runs the graph and calls `read` with the outputs named in `outputs`, in that order.
    pub(super) fn run<T>(
        &self,
        buffers: &mut [Buffer],
        inputs: &[(&str, TensorView<'_>)],
        outputs: &[&str],
        cancel: &Cancel,
        read: impl FnOnce(&[DynValue]) -> Result<T, String>,
    ) -> Result<T> {
        cancel.check()?;
        let failed = |problem: String| graph_error(&self.component, &self.path, "running", problem);
        check_names(inputs, &self.inputs, outputs, &self.outputs).map_err(failed)?;

        let mut values = Vec::with_capacity(self.inputs.len());
        for (info, buffer) in self.inputs.iter().zip(buffers) {
            let Some((_, view)) = inputs.iter().find(|(name, _)| *name == info.name) else { continue };
            check_shape(info, view).map_err(failed)?;
            let value =
                convert::input(view, info.dtype, buffer).map_err(|p| failed(format!("input {}: {p}", info.name)))?;
            values.push((info.name.as_str(), value));
        }
        let run =
            |options: &Arc<RunOptions>| cancel.during_run(options, || invoke(&self.inner, options, &values, outputs));
        match self.arenas.run(run) {
            Ok(made) => read(&made).map_err(failed),
            Err(_) if cancel.is_cancelled() => Err(Error::Interrupted { at_step: None }),
            Err(e) => Err(failed(error_message(&e))),
        }
    }

    /// Runs the graph and writes an output to the slice that follows its name, if its shape is the one after the slice.
    /// A second output, if any, goes to an array, which is reallocated if its shape differs.
    pub(super) fn run_into(
        &self,
        buffers: &mut [Buffer],
        inputs: &[(&str, TensorView<'_>)],
        (output, out, expected): (&str, &mut [f32], Option<&[usize]>),
        second_output: Option<(&str, &mut ArrayD<f32>)>,
        cancel: &Cancel,
    ) -> Result<()> {
        let names = [output, second_output.as_ref().map_or(output, |(name, _)| *name)];
        let wanted = if second_output.is_some() { 2 } else { 1 };
        self.run(buffers, inputs, names.get(..wanted).unwrap_or_default(), cancel, |values| {
            let about = |output: &str, problem: String| format!("output {output}: {problem}");
            let value = values.first().ok_or_else(|| about(output, "is missing".into()))?;
            let shape = convert::output_shape(value).map_err(|p| about(output, p))?;
            if let Some(expected) = expected.filter(|&expected| expected != shape) {
                return Err(about(output, format!("expected the shape {expected:?}, found {shape:?}")));
            }
            let found = shape.iter().product::<usize>();
            if found != out.len() {
                let problem = format!("expected {} values, found {shape:?} with {found}", out.len());
                return Err(about(output, problem));
            }
            convert::output(value, out).map_err(|p| about(output, p))?;
            let Some(((name, array), value)) = second_output.zip(values.get(1)) else { return Ok(()) };
            read(value, array).map_err(|p| about(name, p))
        })
    }
}

/// Writes an output to an array, which is reallocated if its shape differs.
pub(super) fn read(value: &DynValue, array: &mut ArrayD<f32>) -> Result<(), String> {
    let shape = convert::output_shape(value)?;
    if array.shape() != shape || array.as_slice().is_none() {
        *array = ArrayD::zeros(IxDyn(&shape));
    }
    array.as_slice_mut().map_or(Ok(()), |slice| convert::output(value, slice))
}

/// Runs a session.
///
/// ort's own `Session::run` needs `&mut` access, because some execution providers don't support concurrent runs. The
/// CPU provider does, and so does ONNX Runtime's interface (`OrtApi::Run`), which serializes runs for providers that
/// need it. Only [`super::Session::run_each`] runs a graph concurrently.
fn invoke(
    session: &ort::session::Session,
    options: &RunOptions,
    inputs: &[(&str, SessionInputValue<'_>)],
    outputs: &[&str],
) -> ort::Result<Vec<DynValue>> {
    let name = |name: &str| CString::new(name).map_err(|_| ort::Error::new(format!("{name:?} holds a NUL character")));
    let names = inputs.iter().map(|(input, _)| name(input)).collect::<ort::Result<Vec<_>>>()?;
    let names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let values: Vec<_> = inputs.iter().map(|(_, value)| value.ptr()).collect();
    let wanted = outputs.iter().map(|output| name(output)).collect::<ort::Result<Vec<_>>>()?;
    let wanted: Vec<_> = wanted.iter().map(|name| name.as_ptr()).collect();
    let mut made = vec![null_mut(); wanted.len()];
    // SAFETY: all pointers are to live objects of the given lengths: the session and the options are borrowed; names
    // and values are in the vectors above until the call returns. ONNX Runtime documents a session's run as safe from
    // several threads at once; of these it writes only to `made`, which belongs to this call.
    let status = unsafe {
        (ort::api().Run)(
            session.ptr().cast_mut(),
            options.ptr(),
            names.as_ptr(),
            values.as_ptr(),
            values.len(),
            wanted.as_ptr(),
            wanted.len(),
            made.as_mut_ptr(),
        )
    };
    // SAFETY: `Run` returned it, and nothing has released it yet.
    unsafe { ort::Error::result_from_status(status) }?;
    let value = |pointer| {
        let pointer = NonNull::new(pointer).ok_or_else(|| ort::Error::new("an output is missing"))?;
        // SAFETY: `Run` created this value and passed its ownership to the caller; the session's allocator allocated
        // it.
        Ok(unsafe { DynValue::from_ptr(pointer, Some(session.allocator())) })
    };
    made.into_iter().map(value).collect()
}

fn check_names(
    inputs: &[(&str, TensorView<'_>)],
    infos: &[TensorInfo],
    outputs: &[&str],
    output_infos: &[TensorInfo],
) -> Result<(), String> {
    let list = |infos: &[TensorInfo]| infos.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
    for (i, (name, _)) in inputs.iter().enumerate() {
        if !infos.iter().any(|info| info.name == *name) {
            return Err(format!("the graph has no input {name}; its inputs are {}", list(infos)));
        }
        if inputs.iter().take(i).any(|(other, _)| other == name) {
            return Err(format!("input {name} is given twice"));
        }
    }
    let missing: Vec<_> = infos.iter().filter(|info| !inputs.iter().any(|(name, _)| info.name == *name)).collect();
    if !missing.is_empty() {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        return Err(format!("no value is given for input {}", missing.join(" and input ")));
    }
    for name in outputs {
        if !output_infos.iter().any(|info| info.name == *name) {
            return Err(format!("the graph has no output {name}; its outputs are {}", list(output_infos)));
        }
    }
    Ok(())
}

fn check_shape(info: &TensorInfo, view: &TensorView<'_>) -> Result<(), String> {
    let shape = view.shape();
    let fits = shape.len() == info.shape.len()
        && shape.iter().zip(&info.shape).all(|(n, dim)| dim.fixed().is_none_or(|fixed| fixed == *n));
    if fits { Ok(()) } else { Err(format!("expected input {info}, found {} {shape:?}", convert::kind(view))) }
}
