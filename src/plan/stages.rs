//! Models in a row: what a stage is handed by the one before it, and whether the two go together.

use super::sources::ModelSources;
use super::{Plan, ResolvedStage, RunPlan, Wrong, settle};
use crate::bundle::{Autoencoder, Bundle, ComponentKind, DenoiserSignature, Role};
use crate::error::{Error, Result};
use crate::graph_cache::GraphCache;
use crate::plan::ModelPlan;
use crate::spec::{Spec, StageInput, StageSpec};

/// A `[[stage]]`, checked.
#[derive(Debug)]
pub struct StagePlan {
    /// The key of its table, such as `stage[0]`.
    pub key: String,
    /// In which form it is handed what the stage before it made.
    pub hand: StageInput,
    /// What is opened.
    pub model: ModelPlan,
    /// What is made of each image that it is handed.
    pub request: RunPlan,
    /// What is worth knowing of how it goes with the stage before it.
    pub warnings: Vec<String>,
}

/// What latents are to a model: two models of one such space can go on with each other's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LatentSpace {
    autoencoder: Autoencoder,
    channels: usize,
    scaling_factor: f64,
    shift_factor: f64,
    spatial_factor: usize,
}

impl LatentSpace {
    pub(super) fn of(bundle: &Bundle) -> Self {
        let facts = &bundle.facts;
        Self {
            autoencoder: facts.autoencoder,
            channels: facts.latent_channels.value,
            scaling_factor: facts.scaling_factor.value,
            shift_factor: facts.shift_factor.value,
            spatial_factor: facts.spatial_factor.value,
        }
    }
}

impl std::fmt::Display for LatentSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { autoencoder, channels, scaling_factor, shift_factor, spatial_factor } = self;
        write!(f, "{autoencoder}, {channels} channels, 1/{spatial_factor} of a side, scaled by {scaling_factor}")?;
        if *shift_factor == 0.0 { Ok(()) } else { write!(f, " after {shift_factor} is subtracted") }
    }
}

/// What a stage is offered by those before it, as far as they could be planned.
#[derive(Debug, Default)]
pub(super) struct Offer {
    /// The form that the pipeline file asks for.
    asked: Option<StageInput>,
    /// Whether the stage's prompts are the file's own.
    shares_prompts: bool,
    /// The latents of the stage before.
    space: Option<LatentSpace>,
    /// Width and height of its images.
    pub(super) size: Option<(usize, usize)>,
    /// The seed of the file's own run.
    pub(super) seed: Option<u64>,
}

impl Offer {
    /// Decides how the stage is handed what it is offered, and writes that into its task.
    pub(super) fn take(&self, spec: &mut Spec, bundle: &Bundle) -> Result<StageInput> {
        self.leave_prompts_out(spec, bundle);
        let obstacle = self.obstacle(spec, bundle);
        let hand = match (self.asked, obstacle) {
            (Some(StageInput::Latents), Some(obstacle)) => {
                return Err(Error::input("input", obstacle, "leave it out, or set input = \"image\""));
            }
            (Some(asked), _) => asked,
            (None, None) => StageInput::Latents,
            (None, Some(_)) => StageInput::Image,
        };
        spec.task.start_from_stage(hand == StageInput::Latents);
        Ok(hand)
    }

    /// What keeps the stage from going on with latents.
    fn obstacle(&self, spec: &Spec, bundle: &Bundle) -> Option<String> {
        if !spec.task.accepts_latents() {
            return Some(format!("{} begins with an image, and not with latents", spec.task.name()));
        }
        let own = LatentSpace::of(bundle);
        if let Some(space) = self.space.as_ref().filter(|space| **space != own) {
            return Some(format!("the latents before it ({space}) are not those of its model ({own})"));
        }
        let (width, height) = self.size?;
        let wanted = (spec.run.width.unwrap_or(width), spec.run.height.unwrap_or(height));
        if wanted != (width, height) {
            let (w, h) = wanted;
            return Some(format!(
                "latents keep their size, and {w}×{h} is asked for where {width}×{height} is handed on"
            ));
        }
        let step = bundle.facts.size_multiple();
        let fits = width % step == 0 && height % step == 0;
        (!fits).then(|| format!("{width}×{height} is handed on, and its model needs multiples of {step}"))
    }

    /// Leaves out prompts that the stage has from the file's own task, where its model reads none and the task does
    /// without.
    fn leave_prompts_out(&self, spec: &mut Spec, bundle: &Bundle) {
        let reads_none = || {
            let signature = bundle.denoiser().and_then(DenoiserSignature::resolve);
            signature.is_ok_and(|signature| !signature.takes(Role::Context))
        };
        if !self.shares_prompts || !reads_none() {
            return;
        }
        let images = spec.task.groups() * spec.run.images;
        if spec.task.remove_prompt() {
            spec.run.images = images;
        }
    }
}

impl Plan {
    /// Has the graphs of all stages kept in `cache` once they were optimized for this machine.
    pub fn set_graph_cache(&mut self, cache: Option<&GraphCache>) {
        let models = std::iter::once(&mut self.model).chain(self.stages.iter_mut().map(|stage| &mut stage.model));
        models.for_each(|model| model.prepared = cache.cloned());
    }

    /// Requires a cache for optimized graphs where a memory budget is set.
    ///
    /// # Errors
    /// As [`ModelPlan::require_cache`], within [`Error::Stage`] where it is about a `[[stage]]`.
    pub fn require_cache(&self) -> Result<()> {
        self.model.require_cache()?;
        self.stages.iter().try_for_each(|stage| stage.model.require_cache().map_err(|e| e.in_stage(&stage.key)))
    }

    /// Opens the model directories that `spec` names and makes every choice that it leaves open.
    ///
    /// # Errors
    /// [`Error::Model`] where a directory cannot do the task, [`Error::Input`] where a size, an image or given
    /// latents do not fit, [`Error::Scheduler`] and [`Error::Provider`] where those cannot be had, each within
    /// [`Error::Stage`] where it is about a `[[stage]]`; [`Error::Several`] where more than one thing is wrong.
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
        let mut wrong = Wrong::default();
        let mut base = wrong.unless(settle(spec, None, sources));
        let seed = base.as_ref().map(|base| base.request.seed);
        let mut done: Vec<(StagePlan, StageSpec)> = Vec::new();
        let mut before = base.as_ref().map(|base| (base.space.clone(), Seam::of(&base.request)));
        for (at, stage) in stages.into_iter().enumerate() {
            let key = format!("stage[{at}]");
            let offer = Offer {
                asked: stage.input,
                shares_prompts: stage.shares_prompts(&as_written),
                space: before.as_ref().map(|(space, _)| space.clone()),
                size: before.as_ref().map(|(_, seam)| seam.size),
                seed,
            };
            let settled = wrong.unless(settle(stage.spec, Some(&offer), sources).map_err(|error| error.in_stage(&key)));
            let Some(ResolvedStage { spec, model, request, space, hand }) = settled else {
                before = None;
                continue;
            };
            let hand = hand.unwrap_or(StageInput::Image);
            let own = Seam::of(&request);
            let warnings = before.map(|(_, theirs)| theirs.warnings(hand, &own)).unwrap_or_default();
            before = Some((space, own));
            done.push((StagePlan { key, hand, model, request, warnings }, StageSpec { input: Some(hand), spec }));
        }
        let Some(ResolvedStage { mut spec, mut model, request, .. }) = base.take().filter(|_| wrong.0.is_empty())
        else {
            return Err(wrong.into_error());
        };
        // Images that nobody sees are not decoded, and their decoders not opened.
        let mut keeps = spec.output.save_intermediate;
        let mut decoder = &mut model.decoder;
        for (plan, stage) in &mut done {
            if plan.hand == StageInput::Latents && !keeps {
                *decoder = None;
            }
            keeps = stage.spec.output.save_intermediate;
            decoder = &mut plan.model.decoder;
        }
        tell_idle(&spec, &mut model, &mut done);
        let (stages, written) = done.into_iter().unzip();
        spec.stages = written;
        Ok(Self { spec, model, request, stages })
    }
}

/// Finds the tables about components that nothing opens. A `[device]` that a stage has from the file's own tables is in
/// use where any of them opens the component.
fn tell_idle(spec: &Spec, model: &mut ModelPlan, stages: &mut [(StagePlan, StageSpec)]) {
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
    let shares = |stage: &StageSpec| stage.spec.device == spec.device;
    let devices = |spec: &Spec, users: &[&ModelPlan]| -> Vec<String> {
        let idle = spec.device.components.keys().filter(|kind| !users.iter().any(|model| opens(model, **kind)));
        idle.map(|kind| sentence("device", *kind)).collect()
    };
    let sharing = stages.iter().filter(|(_, stage)| shares(stage)).map(|(plan, _)| &plan.model);
    let users: Vec<&ModelPlan> = std::iter::once(&*model).chain(sharing).collect();
    let idle = [models(spec, model), devices(spec, &users)].concat();
    model.remarks.extend(idle);
    for (plan, stage) in stages {
        let own = if shares(stage) { Vec::new() } else { devices(&stage.spec, &[&plan.model]) };
        let idle = models(&stage.spec, &plan.model);
        plan.model.remarks.extend(idle.into_iter().chain(own));
    }
}

/// Where two stages meet.
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

    /// What is odd about going on from here with `after`.
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
