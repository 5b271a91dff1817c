//! Plans models in a row: each gets the results of the one before it.

use std::sync::Arc;

use super::execution_plan::ExecutionPlan;
use super::model::ModelPlan;
use super::pipeline_plan::{Plan, StagePlan};
use super::problems::Problems;
use super::resolve::{ResolvedStage, resolve_stage};
use super::run_plan::RunPlan;
use super::sources::ModelSources;
use super::stage_input::PreviousStage;
use crate::bundle::ComponentKind;
use crate::error::Result;
use crate::spec::{Spec, StageInput, StageSpec};

impl Plan {
    /// Opens the model directories that `spec` names and makes every choice that it leaves open.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) if a directory cannot do the task, [`Error::Input`](crate::Error::Input) if a
    /// size, an image or given latents do not fit, [`Error::Scheduler`](crate::Error::Scheduler) and
    /// [`Error::Provider`](crate::Error::Provider) if those cannot be had, each within
    /// [`Error::Stage`](crate::Error::Stage) if it is about a `[[stage]]`; [`Error::Several`](crate::Error::Several) if more
    /// than one thing is wrong.
    pub fn new(spec: Spec) -> Result<Self> {
        Self::from_sources(spec, &ModelSources::default())
    }

    /// As [`Plan::new`], from what `sources` have read before: a plan that needs nothing else reads no files but the
    /// request's own inputs, and for images of another size the structure of the VAE's graphs.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn from_sources(mut spec: Spec, sources: &ModelSources) -> Result<Self> {
        let stages = std::mem::take(&mut spec.stages);
        let as_written = spec.clone();
        let mut problems = Problems::default();
        let base = problems.unless(resolve_stage(spec, None, sources));
        let seed = base.as_ref().map(|base| base.request.seed);
        let mut before = base.as_ref().map(|base| (base.space.clone(), Seam::of(&base.request)));
        let mut resolved = Vec::new();
        for (at, stage) in stages.into_iter().enumerate() {
            let input = PreviousStage {
                asked: stage.input,
                shares_prompts: stage.shares_prompts(&as_written),
                space: before.as_ref().map(|(space, _)| space.clone()),
                size: before.as_ref().map(|(_, seam)| seam.size),
                seed,
            };
            let own = resolve_stage(stage.spec, Some(&input), sources).map_err(|error| error.in_stage(&key(at)));
            let Some(own) = problems.unless(own) else {
                before = None;
                continue;
            };
            let (hand, seam) = (own.hand.unwrap_or(StageInput::Image), Seam::of(&own.request));
            let warnings = before.map(|(_, theirs)| theirs.warnings(hand, &seam)).unwrap_or_default();
            before = Some((own.space.clone(), seam));
            resolved.push((own, hand, warnings));
        }
        let Some(base) = base.filter(|_| problems.is_empty()) else { return Err(problems.into_error()) };
        finish(base, resolved, sources)
    }
}

fn key(at: usize) -> String {
    format!("stage[{at}]")
}

/// Makes the plan of resolved stages, each with its hand and its warnings.
fn finish(
    mut base: ResolvedStage,
    mut stages: Vec<(ResolvedStage, StageInput, Vec<String>)>,
    sources: &ModelSources,
) -> Result<Plan> {
    // Images that nobody sees are not decoded, and their decoders not opened.
    let mut keeps = base.spec.output.save_intermediate;
    let mut decoder = &mut base.model.decoder;
    for (stage, hand, _) in &mut stages {
        if *hand == StageInput::Latents && !keeps {
            *decoder = None;
        }
        keeps = stage.spec.output.save_intermediate;
        decoder = &mut stage.model.decoder;
    }
    remark_on_unused(&base.spec, &mut base.model, &mut stages);
    let mut problems = Problems::default();
    let (model, execution) = problems.unless(plan_execution(base.model, &base.request, &base.spec, sources)).unzip();
    let mut plans = Vec::new();
    for (at, (stage, hand, warnings)) in stages.into_iter().enumerate() {
        let ResolvedStage { spec, model, request, settings, .. } = stage;
        let planned = plan_execution(model, &request, &spec, sources).map_err(|error| error.in_stage(&key(at)));
        let Some((model, execution)) = problems.unless(planned) else { continue };
        base.spec.stages.push(StageSpec { input: Some(hand), spec });
        plans.push(StagePlan { key: key(at), hand, model, execution, request, settings: Arc::new(settings), warnings });
    }
    let (Some(model), Some(execution), true) = (model, execution, problems.is_empty()) else {
        return Err(problems.into_error());
    };
    let (spec, request, settings) = (base.spec, base.request, Arc::new(base.settings));
    Ok(Plan { spec, model, execution, request, settings, stages: plans })
}

/// Plans the execution of a model: its sizes, and the losses that its memory budget asks for.
fn plan_execution(
    model: ModelPlan,
    request: &RunPlan,
    spec: &Spec,
    sources: &ModelSources,
) -> Result<(Arc<ModelPlan>, ExecutionPlan)> {
    let model = Arc::new(model);
    let mut execution = ExecutionPlan::new(Arc::clone(&model), request, spec.device.clone());
    execution.check_output_sizes(sources)?;
    if let Some(budget) = spec.device.memory_budget {
        execution.keep_within(budget, request, sources)?;
    }
    Ok((model, execution))
}

/// Finds the tables about components that nothing opens. A `[device]` that a stage has from the file's own tables is in
/// use where any of them opens the component.
fn remark_on_unused(spec: &Spec, model: &mut ModelPlan, stages: &mut [(ResolvedStage, StageInput, Vec<String>)]) {
    // A small decoder is named once, and used where a preview is asked for.
    let opens = |model: &ModelPlan, kind: ComponentKind| {
        kind == ComponentKind::TinyVaeDecoder || model.graphs().iter().any(|(opened, _)| *opened == kind)
    };
    let sentence = |table: &str, kind: ComponentKind| {
        format!("[{table}.{kind}] stands for nothing, since no {kind} is opened in this pipeline; leave it out")
    };
    let models = |spec: &Spec, model: &ModelPlan| -> Vec<String> {
        let idle = spec.model.components.keys().filter(|kind| !opens(model, **kind));
        idle.map(|kind| sentence("model", *kind)).collect()
    };
    let shares = |stage: &ResolvedStage| stage.spec.device == spec.device;
    let devices = |spec: &Spec, users: &[&ModelPlan]| -> Vec<String> {
        let idle = spec.device.components.keys().filter(|kind| !users.iter().any(|model| opens(model, **kind)));
        idle.map(|kind| sentence("device", *kind)).collect()
    };
    let sharing = stages.iter().filter(|(stage, ..)| shares(stage)).map(|(stage, ..)| &stage.model);
    let users: Vec<&ModelPlan> = std::iter::once(&*model).chain(sharing).collect();
    let idle = [models(spec, model), devices(spec, &users)].concat();
    model.remarks.extend(idle);
    for (stage, ..) in stages {
        let own = if shares(stage) { Vec::new() } else { devices(&stage.spec, &[&stage.model]) };
        let idle = models(&stage.spec, &stage.model);
        stage.model.remarks.extend(idle.into_iter().chain(own));
    }
}

/// The values that two adjacent stages must agree on.
#[derive(Debug, Clone, Copy)]
struct Seam {
    size: (usize, usize),
    start: Option<f64>,
    end: Option<f64>,
}

impl Seam {
    fn of(request: &RunPlan) -> Self {
        Self { size: (request.width, request.height), start: request.denoising_start, end: request.denoising_end }
    }

    /// Returns warnings about going on from here with `after`.
    fn warnings(self, hand: StageInput, after: &Self) -> Vec<String> {
        let mut warnings = Vec::new();
        match (self.end, after.start) {
            (None, Some(start)) => warnings.push(format!(
                "it takes up the schedule at denoising_start = {start}, and the stage before it runs to the end; give that \
                 one denoising_end = {start}"
            )),
            (Some(end), None) => warnings.push(format!(
                "the stage before it stops at denoising_end = {end} and leaves noise in what it hands on; take it up with \
                 denoising_start = {end}"
            )),
            (Some(end), Some(start)) if end != start => warnings.push(format!(
                "it takes up the schedule at denoising_start = {start}, and the stage before it stops at denoising_end = {end}"
            )),
            _ => {}
        }
        if let (Some(end), StageInput::Image) = (self.end, hand) {
            warnings.push(format!(
                "the stage before it stops at denoising_end = {end}, and what it made is decoded with its noise to be handed \
                 on as an image"
            ));
        }
        warnings
    }
}
