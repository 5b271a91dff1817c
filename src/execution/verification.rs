//! Compares components on the providers of a plan with ONNX Runtime's own operators on the CPU.

use ndarray::{ArrayD, Dimension, IxDyn};

use super::event::{ExecutionEvent, Observer};
use super::interrupt::report;
use super::open::Execution;
use super::parts::Opener;
use super::pool::{SessionKey, openings, session_options};
use super::position::within;
use super::verification_report::{ComponentVerification, VerificationOutcome};
use crate::error::{Error, Result};
use crate::graph_cache::{self, CacheFile, Difference};
use crate::plan::{ExecutionPlan, Opening, Plan, Probe, ProbeValues};
use crate::rewrite::{Pass, footprint};
use crate::rng::{Generator, TorchCpu};
use crate::session::{Cancel, Optimization, Runtime, Session, SessionOptions};
use crate::tensor::TensorView;
use crate::{lora, memory};

/// ONNX Runtime's option that leaves weights as they are stored, of which it would otherwise make a second copy.
const UNPACKED: &str = "session.disable_prepacking";

/// Compares an open graph of a plan with the same graph on ONNX Runtime's own operators on the CPU: both are run once on
/// seeded inputs of the plan's sizes.
///
/// A graph that does not run on the CPU is no error, nor is one that is wrong ([`ComponentVerification::error`]).
///
/// # Errors
/// As [`Session::run`], of the open graph; [`Error::Interrupted`]; [`Error::Io`] if a file of the model cannot be read.
pub fn verify_session(
    model: &ExecutionPlan,
    opening: &Opening<'_>,
    session: &mut Session,
    runtime: &Runtime,
    cancel: &Cancel,
) -> Result<ComponentVerification> {
    let outcome = match obstacle(model, opening)? {
        Some(reason) => VerificationOutcome::Skipped { reason },
        None => compare(model, opening, session, runtime, cancel)?,
    };
    Ok(verification(model, opening, outcome))
}

/// The worst difference of a graph's outputs.
fn worst(got: &[ArrayD<f32>], want: &[ArrayD<f32>]) -> Difference {
    let mut worst = Difference { relative_l2: 0.0, largest: 0.0 };
    for (got, want) in got.iter().zip(want) {
        let Difference { relative_l2, largest } = apart(got, want);
        // A difference that is not a number stays one.
        let max = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) };
        worst = Difference { relative_l2: max(worst.relative_l2, relative_l2), largest: max(worst.largest, largest) };
    }
    worst
}

fn apart(got: &ArrayD<f32>, want: &ArrayD<f32>) -> Difference {
    if got.shape() != want.shape() {
        return Difference { relative_l2: f64::NAN, largest: f64::NAN };
    }
    let (mut error, mut norm, mut largest_error, mut largest) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
    for (&got, &want) in got.iter().zip(want) {
        let (got, want) = (f64::from(got), f64::from(want));
        error += (got - want).powi(2);
        norm += want.powi(2);
        largest = largest.max(want.abs());
        // The maximum of two numbers leaves out one that is none.
        largest_error = if (got - want).is_nan() { f64::NAN } else { largest_error.max((got - want).abs()) };
    }
    let tiny = f64::MIN_POSITIVE;
    Difference { relative_l2: error.sqrt() / norm.sqrt().max(tiny), largest: largest_error / largest.max(tiny) }
}

impl Execution {
    /// Compares every component of a plan with the CPU, in the order in which an image needs them, and reports each
    /// ([`ExecutionEvent::Verified`]). Earlier comparisons are made again.
    ///
    /// # Errors
    /// As [`Execution::load`], and those of running a graph on its provider. A component that is wrong is no error here:
    /// [`ComponentVerification::error`] is.
    pub fn verify(
        plan: &Plan,
        runtime: &Runtime,
        cancel: &Cancel,
        observer: &mut Observer<'_>,
    ) -> Result<Vec<ComponentVerification>> {
        let mut execution = Self { verifies_once: false, ..Self::new(runtime) };
        let models = execution.ready(plan, true, cancel, observer)?;
        for (at, model) in models.iter().enumerate() {
            within(plan, at, cancel, observer, &mut |observer| {
                for opening in openings(&model.plan) {
                    let file = remembered(&model.plan, &execution.runtime, &opening, cancel)?;
                    execution.verify_graph(&model.plan, &opening, file.as_ref(), false, cancel, observer)?;
                }
                Ok(())
            })?;
        }
        Ok(execution.verifications)
    }

    /// The comparisons of the graphs that are ready, made now or in an earlier run.
    pub fn verifications(&self) -> &[ComponentVerification] {
        &self.verifications
    }

    /// Compares the components of a model that are to be compared and were not yet, and stops if one is wrong.
    pub(super) fn verify_once(
        &mut self,
        model: &ExecutionPlan,
        stay: bool,
        cancel: &Cancel,
        observer: &mut Observer<'_>,
    ) -> Result<()> {
        if !self.verifies_once {
            return Ok(());
        }
        for opening in openings(model).iter().filter(|opening| model.verifies(opening.kind)) {
            let provider = providers(model, opening);
            let is_same = |own: &ComponentVerification| {
                own.component == opening.name()
                    && own.path == opening.graph.path
                    && own.provider == provider
                    && !own.is_wrong()
            };
            if self.verifications.iter().any(is_same) {
                continue;
            }
            let file = remembered(model, &self.runtime, opening, cancel)?;
            if let Some(difference) = file.as_ref().and_then(CacheFile::read) {
                let outcome = VerificationOutcome::Compared { difference, is_remembered: true };
                self.note(verification(model, opening, outcome), cancel, observer)?;
                continue;
            }
            let verification = self.verify_graph(model, opening, file.as_ref(), stay, cancel, observer)?;
            match &verification.outcome {
                _ if verification.is_wrong() => return verification.error().map_or(Ok(()), Err),
                VerificationOutcome::Skipped { .. } => {
                    report(observer, cancel, ExecutionEvent::Warning(verification.to_line()))?;
                }
                VerificationOutcome::Compared { .. } => {}
            }
        }
        Ok(())
    }

    /// Compares a graph, remembers a difference within the tolerance, and leaves the graph open if it `stays`.
    fn verify_graph(
        &mut self,
        model: &ExecutionPlan,
        opening: &Opening<'_>,
        file: Option<&CacheFile<Difference>>,
        stays: bool,
        cancel: &Cancel,
        observer: &mut Observer<'_>,
    ) -> Result<ComponentVerification> {
        let Opening { kind: component, is_shallow, .. } = *opening;
        let opener = &mut Opener::new(model, &self.runtime, &mut self.pool, cancel, observer);
        let (key, mut session) = opener.session(opening)?;
        report(observer, cancel, ExecutionEvent::Verifying { component, is_shallow })?;
        let verification = verify_session(model, opening, &mut session, &self.runtime, cancel)?;
        if stays {
            self.pool.put(key, session);
        }
        if let (Some(file), VerificationOutcome::Compared { difference, .. }) = (file, &verification.outcome)
            && !verification.is_wrong()
        {
            file.write(*difference);
        }
        self.note(verification.clone(), cancel, observer)?;
        Ok(verification)
    }

    fn note(
        &mut self,
        verification: ComponentVerification,
        cancel: &Cancel,
        observer: &mut Observer<'_>,
    ) -> Result<()> {
        report(observer, cancel, ExecutionEvent::Verified(&verification))?;
        self.verifications.retain(|own| !own.is_same_graph(&verification));
        self.verifications.push(verification);
        Ok(())
    }
}

fn providers(model: &ExecutionPlan, opening: &Opening<'_>) -> String {
    model.device.providers_of(opening.kind).join(", ")
}

fn verification(model: &ExecutionPlan, opening: &Opening<'_>, outcome: VerificationOutcome) -> ComponentVerification {
    ComponentVerification {
        component: opening.name(),
        path: opening.graph.path.clone(),
        provider: providers(model, opening),
        precision: model.compute_precision(opening),
        outcome,
    }
}

/// The file that remembers the comparison of a graph, if the plan has a cache.
fn remembered(
    model: &ExecutionPlan,
    runtime: &Runtime,
    opening: &Opening<'_>,
    cancel: &Cancel,
) -> Result<Option<CacheFile<Difference>>> {
    let Some(cache) = &model.graph_cache else { return Ok(None) };
    let options = session_options(model, opening, cancel);
    cache.verified(runtime, opening.graph, &SessionKey::new(model, opening).passes, &options).map(Some)
}

/// The reason why a graph cannot be compared, if there is one that is known before it is opened.
fn obstacle(model: &ExecutionPlan, opening: &Opening<'_>) -> Result<Option<String>> {
    if opening.graph.draws_noise() {
        return Ok(Some("it draws random numbers of its own".to_owned()));
    }
    let found = footprint(opening.graph, &changes(opening), &model.axes(opening))?.unwrap_or_default();
    let need = found.activations.saturating_add(opening.weight_bytes);
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    Ok(memory::available().filter(|free| need > *free).map(|free| {
        format!(
            "the CPU needs {:.2} GB for it, and {:.2} GB are free (make smaller images, or compare on a machine with more memory)",
            gigabytes(need),
            gigabytes(free)
        )
    }))
}

/// The passes of a graph that make it compute something else, or without which the CPU does not run it either.
fn changes(opening: &Opening<'_>) -> Vec<Pass> {
    opening.passes.iter().copied().filter(|pass| pass.cuts() || matches!(pass, Pass::Float32 | Pass::Angles)).collect()
}

/// Runs an open graph and the same graph on the CPU. A graph that does not run on the CPU is no error.
fn compare(
    model: &ExecutionPlan,
    opening: &Opening<'_>,
    session: &mut Session,
    runtime: &Runtime,
    cancel: &Cancel,
) -> Result<VerificationOutcome> {
    let residuals = match residual_shapes(model, opening, runtime, cancel) {
        Err(error @ Error::Interrupted { .. }) => return Err(error),
        Err(error) => {
            return Ok(VerificationOutcome::Skipped {
                reason: format!("its ControlNet does not run on the CPU: {error}"),
            });
        }
        Ok(shapes) => shapes,
    };
    let probes = match model.probes(opening, session.inputs(), &residuals) {
        Ok(probes) => probes,
        Err(reason) => return Ok(VerificationOutcome::Skipped { reason }),
    };
    let names: Vec<String> = session.outputs().iter().map(|output| output.name.clone()).collect();
    let got = run(session, &probes, &names, cancel)?;
    let want = reference(model, opening, runtime, cancel).and_then(|mut own| run(&mut own, &probes, &names, cancel));
    Ok(match want {
        Err(error @ Error::Interrupted { .. }) => return Err(error),
        Err(error) => VerificationOutcome::Skipped { reason: format!("it does not run on the CPU: {error}") },
        Ok(want) if want.iter().flatten().any(|value| !value.is_finite()) => {
            VerificationOutcome::Skipped { reason: "the CPU's own output is not finite".to_owned() }
        }
        Ok(want) => VerificationOutcome::Compared { difference: worst(&got, &want), is_remembered: false },
    })
}

/// Runs a graph on the values of `probes`, and returns its outputs of these names.
fn run(session: &mut Session, probes: &[Probe], outputs: &[String], cancel: &Cancel) -> Result<Vec<ArrayD<f32>>> {
    let inputs: Vec<_> = probes.iter().enumerate().map(|(seed, probe)| values(probe, seed as u64)).collect();
    let inputs = probes.iter().zip(&inputs).map(|(probe, own)| (probe.name.as_str(), TensorView::F32(own.view())));
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    session.run(&inputs.collect::<Vec<_>>(), &outputs, cancel)
}

/// The shapes of a denoiser's inputs for residuals, which only running its ControlNet tells.
fn residual_shapes(
    model: &ExecutionPlan,
    opening: &Opening<'_>,
    runtime: &Runtime,
    cancel: &Cancel,
) -> Result<Vec<(String, Vec<usize>)>> {
    let residuals = &model.model.model.denoiser.residuals;
    let control = model.model.controls.first().filter(|_| opening.kind == model.model.denoiser.kind);
    let Some(part) = control.map(|control| &control.part) else { return Ok(Vec::new()) };
    let opening = model.opening(part);
    let mut session = reference(model, &opening, runtime, cancel)?;
    let Ok(probes) = model.probes(&opening, session.inputs(), &[]) else { return Ok(Vec::new()) };
    let outputs = part.signature.down.iter().chain([&part.signature.mid]);
    let outputs: Vec<String> = outputs.map(|output| output.name.clone()).collect();
    let made = run(&mut session, &probes, &outputs, cancel)?;
    let inputs = residuals.down.iter().chain(&residuals.mid).map(|input| input.name.clone());
    Ok(inputs.zip(made.iter().map(|residual| residual.shape().to_vec())).collect())
}

/// Opens a graph on the CPU with ONNX Runtime's own operators, as exported.
fn reference(model: &ExecutionPlan, opening: &Opening<'_>, runtime: &Runtime, cancel: &Cancel) -> Result<Session> {
    let mut options = SessionOptions {
        providers: Vec::new(),
        threads: model.threads(),
        callers: 1,
        optimization: Optimization::None,
        axes: Vec::new(),
        ..session_options(model, opening, cancel)
    };
    options.config.push((UNPACKED.to_owned(), "1".to_owned()));
    let mut weights = lora::merge(&model.model.loras, opening.kind, opening.graph)?;
    weights.extend(model.model.added_weight(opening.kind, opening.graph)?);
    graph_cache::open_uncached(runtime, opening.graph, &changes(opening), &options, weights)
}

/// The values of an input, the same for the same shape and seed. Integers and booleans are whole numbers.
fn values(probe: &Probe, seed: u64) -> ArrayD<f32> {
    let shape = IxDyn(&probe.shape);
    let mut values = vec![0.0; shape.size()];
    let mut generator = TorchCpu::new(seed);
    match &probe.values {
        ProbeValues::Normal => generator.normal(&mut values),
        ProbeValues::Uniform(low, high) => {
            generator.uniform(&mut values);
            values.iter_mut().for_each(|value| *value = low + (high - low) * *value);
        }
        ProbeValues::Below(end) => {
            generator.uniform(&mut values);
            values
                .iter_mut()
                .for_each(|value| *value = (*value * *end as f32).floor().min(end.saturating_sub(1) as f32));
        }
        ProbeValues::Rows(row) => {
            let length = probe.shape.last().copied().unwrap_or(1).clamp(1, row.len().max(1));
            values.iter_mut().zip(row.iter().take(length).cycle()).for_each(|(value, own)| *value = *own);
        }
        ProbeValues::Positions(width) => {
            for (at, position) in values.chunks_exact_mut(3).enumerate() {
                position.copy_from_slice(&[0.0, (at / width) as f32, (at % width) as f32]);
            }
        }
    }
    ArrayD::from_shape_vec(shape.clone(), values).unwrap_or_else(|_| ArrayD::zeros(shape))
}
