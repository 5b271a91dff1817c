//! Which way of running the rows of a guided call is the faster one on this machine.

use std::time::Instant;

use ndarray::{ArrayD, IxDyn};

use super::observe::{Event, Observer};
use super::stop_if;
use crate::error::{Error, Result};
use crate::plan::ModelPlan;
use crate::prepared::Rows;
use crate::session::{Cancel, Run, Runtime, Session, processor_threads};
use crate::tensor::{DType, Dim, Tensor, TensorInfo, TensorView};

/// What was measured of a plan's denoiser, now or before; `None` where nothing is to be chosen, or cannot be measured.
///
/// Two rows are run at the same time, and one alone, which counts twice. One run before those brings the weights into
/// memory.
///
/// # Errors
/// [`Error::Interrupted`], and [`Error::Io`] where the graph's files cannot be read.
pub(super) fn rows(
    plan: &ModelPlan,
    runtime: &Runtime,
    cancel: &Cancel,
    observer: &mut dyn Observer,
) -> Result<Option<Rows>> {
    let (kind, graph) = (plan.denoiser.kind, &plan.denoiser.graph);
    let threads = plan.device.threads.unwrap_or_else(processor_threads);
    let Some(cache) = plan.prepared(kind).filter(|_| plan.chooses_rows() && threads > 1) else { return Ok(None) };
    let place = cache.measured(runtime, graph, threads)?;
    if let Some(known) = place.read() {
        return Ok(Some(known));
    }
    let axes = plan.axes(kind);
    let options = crate::session::SessionOptions {
        cancel: cancel.clone(),
        edits: plan.denoiser.edits.clone(),
        ..plan.session_options(kind)
    };
    let length = |dim: &Dim| match dim {
        Dim::Fixed(length) => Some(*length),
        Dim::Free(name) => axes.iter().find(|(own, _)| own == name).map(|(_, length)| *length),
    };
    let filled = |info: &TensorInfo| {
        let shape = info.shape.iter().map(length).collect::<Option<Vec<_>>>()?;
        Some((info.name.clone(), filled(info.dtype, &shape)))
    };
    let Some(inputs) = graph.inputs.iter().map(filled).collect::<Option<Vec<_>>>() else { return Ok(None) };
    stop_if(observer.notice(Event::Measuring { component: kind }), None)?;
    let opened = cache.open(runtime, graph, &plan.passes(kind), &options, &mut |_| {});
    match opened.and_then(|mut session| measure(&mut session, &plan.model.denoiser.output.name, &inputs, cancel)) {
        Ok(rows) => {
            place.write(rows);
            Ok(Some(rows))
        }
        Err(error @ Error::Interrupted { .. }) => Err(error),
        // Ones need not be what a graph can be run on.
        Err(_) => Ok(None),
    }
}

fn measure(session: &mut Session, output: &str, inputs: &[(String, Tensor)], cancel: &Cancel) -> Result<Rows> {
    let length = session.run(&views(inputs), &[output], cancel)?.iter().map(ArrayD::len).sum();
    let timed = |session: &mut Session, count: usize| {
        let mut outs = vec![vec![0.0; length]; count];
        let runs = outs.iter_mut().map(|out| Run { inputs: views(inputs), out, beside: None });
        let runs = runs.collect();
        let start = Instant::now();
        session.run_each(runs, output, cancel)?;
        Ok::<_, Error>(start.elapsed().as_secs_f64())
    };
    let split = timed(session, 2)?;
    session.open_alone(cancel)?;
    Ok(Rows { split, sequential: 2.0 * timed(session, 1)? })
}

fn views(inputs: &[(String, Tensor)]) -> Vec<(&str, TensorView<'_>)> {
    inputs.iter().map(|(name, tensor)| (name.as_str(), TensorView::from(tensor))).collect()
}

/// A tensor of ones.
fn filled(dtype: DType, shape: &[usize]) -> Tensor {
    let shape = IxDyn(shape);
    match dtype {
        DType::Bool => Tensor::Bool(ArrayD::from_elem(shape, true)),
        dtype if dtype.is_float() => Tensor::F32(ArrayD::from_elem(shape, 1.0)),
        _ => Tensor::I64(ArrayD::from_elem(shape, 1)),
    }
}
