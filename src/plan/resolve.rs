//! Resolves one model's part of a pipeline: every choice that its tables leave open.

use ndarray::ArrayD;

use super::defaults::{Filling, planned_strength};
use super::evaluations;
use super::inputs::read_latents;
use super::model::ModelPlan;
use super::problems::Problems;
use super::run_plan::{RunPlan, seed};
use super::scheduler::{SchedulerChoice, schedule};
use super::settings::PlannedSettings;
use super::size::{size, tiles};
use super::sources::ModelSources;
use super::stage_input::{LatentSpace, PreviousStage};
use crate::bundle::Bundle;
use crate::denoise::RunInterval;
use crate::error::{Error, Result};
use crate::family::Defaults;
use crate::scheduler::CustomSchedule;
use crate::session::find_provider;
use crate::spec::{Batching, DeviceSpec, Spec, StageInput};
use crate::task::{Rounding, Task};

/// One model's part of a plan.
pub(super) struct ResolvedStage {
    pub(super) spec: Spec,
    pub(super) model: ModelPlan,
    pub(super) request: RunPlan,
    pub(super) settings: PlannedSettings,
    pub(super) space: LatentSpace,
    /// The form in which it gets the results of the stage before it, if there is one.
    pub(super) hand: Option<StageInput>,
}

/// A scheduler with its schedule.
struct ResolvedSchedule {
    scheduler: SchedulerChoice,
    steps: usize,
    custom: Option<CustomSchedule>,
    planned_strength: Option<f64>,
    mu: Option<f64>,
}

/// Resolves the model and the request of `spec`, but for its stages. `input` is what it gets from the stage before it, if it
/// is a stage itself.
///
/// # Errors
/// Everything that is wrong with it, as [`Error::Several`] if that is more than one thing.
pub(super) fn resolve_stage(
    mut spec: Spec,
    input: Option<&PreviousStage>,
    sources: &ModelSources,
) -> Result<ResolvedStage> {
    let directory = sources.directory(&spec)?;
    let bundle = &directory.bundle;
    bundle.family()?;
    let mut problems = Problems::default();
    let hand = input.and_then(|input| problems.unless(input.take(&mut spec, bundle)));
    let own_seed = spec.run.seed;
    spec.run.seed = own_seed.or(input.and_then(|input| input.seed));
    let mut filling = Filling::of(&mut spec, bundle);
    let defaults = filling.call.values;
    let task = spec.task.clone();
    check_provider_names(&spec.device, &mut problems);
    let mut model = problems.unless(ModelPlan::new(&spec, (&directory, sources), task.as_ref(), defaults));
    let chosen = problems.unless(SchedulerChoice::new(&spec, bundle, defaults.eta));
    let size = size(&spec, bundle, task.as_ref(), input.and_then(|input| input.size), &defaults);
    let size = problems.unless(size).map(|size| {
        filling.add_size(&spec, &size);
        size.value
    });
    let chosen = chosen.and_then(|scheduler| {
        let of_model = (bundle, model.as_ref());
        resolve_schedule(&spec, of_model, task.as_ref(), (scheduler, size), &defaults, &mut problems)
    });
    if let Some(model) = &mut model {
        check_model(model, &spec, task.as_ref(), size, sources, &mut problems);
    }
    let total_images = task.labels().len() * spec.run.images;
    let seed = problems.unless(seed(&spec, total_images));
    problems.unless(tiles(&spec, bundle));
    let interval = model.as_ref().and_then(|model| problems.unless(evaluations::guidance_interval(&spec, model)));
    let latents = match (&spec.run.latents, &model, size) {
        (Some(path), Some(model), Some((width, height))) => {
            problems.unless(read_latents(path, total_images, model.sample_shape(width, height)))
        }
        _ => None,
    };
    let (Some(mut model), Some(chosen), Some((width, height)), Some(seed)) = (model, chosen, size, seed) else {
        return Err(problems.into_error());
    };
    problems.check()?;

    filling.add_planned(&spec, &model, &chosen.scheduler);
    model.defaults = filling.filled;
    model.remarks.extend(old_names(&spec, bundle));
    spec.run.steps = Some(chosen.steps);
    // What follows from the stage before it goes on to do so when a flag changes that one.
    spec.run.seed = if input.is_none() { Some(seed) } else { own_seed };
    if input.is_none() {
        (spec.run.width, spec.run.height) = (Some(width), Some(height));
    }
    let request =
        Choices { task, schedule: chosen, interval: interval.flatten(), seed, size: (width, height), latents };
    let request = request.into_run(&spec, &model, hand);
    let settings = PlannedSettings::new(&request, &model, bundle.facts.size_multiple());
    Ok(ResolvedStage { spec, model, request, settings, space: LatentSpace::of(bundle), hand })
}

/// Requires that the providers are known. The names of plugin providers are so once their libraries are registered.
fn check_provider_names(device: &DeviceSpec, problems: &mut Problems) {
    if device.provider_libraries.is_empty() {
        for name in device.providers.iter().chain(device.components.values().flatten()) {
            problems.unless(find_provider(name));
        }
    }
}

/// Warnings about old names, in the pipeline file and of folders in the model directory.
fn old_names(spec: &Spec, bundle: &Bundle) -> Vec<String> {
    let is_given = |kind| spec.model.components.get(&kind).is_some_and(|component| component.graph.is_some());
    let found = bundle.components.iter().filter(|(kind, _)| !is_given(**kind));
    let of_folders = found.filter_map(|(_, component)| component.old_name_warning());
    spec.old_names.warnings().map(str::to_owned).chain(of_folders).collect()
}

/// The choices of a run that its tables leave open.
struct Choices {
    task: Box<dyn Task>,
    schedule: ResolvedSchedule,
    interval: Option<RunInterval>,
    seed: u64,
    size: (usize, usize),
    latents: Option<ArrayD<f32>>,
}

impl Choices {
    /// The run of a request with these choices.
    fn into_run(self, spec: &Spec, model: &ModelPlan, hand: Option<StageInput>) -> RunPlan {
        let total_images = self.task.labels().len() * spec.run.images;
        // The CPU is kept busy by one image; a GPU is not. An image that is handed on has a batch to itself.
        let is_alone = spec.device.is_on_cpu(model.denoiser.kind) || hand == Some(StageInput::Image);
        RunPlan {
            task: self.task,
            scheduler: self.schedule.scheduler,
            steps: self.schedule.steps,
            guidance_interval: self.interval,
            cache: spec.cache.clone(),
            custom: self.schedule.custom,
            planned_strength: self.schedule.planned_strength,
            mu: self.schedule.mu,
            denoising_start: spec.run.denoising_start,
            denoising_end: spec.run.denoising_end,
            seed: self.seed,
            noise: spec.run.noise,
            images: spec.run.images,
            width: self.size.0,
            height: self.size.1,
            latents: self.latents,
            tiles: spec.run.tiles,
            decode_tile: spec.run.decode_tile,
            input_limit: spec.run.input_limit(),
            batch: if is_alone { 1 } else { evaluations::largest_batch(spec, total_images) },
            only: None,
        }
    }
}

/// Resolves the schedule of a scheduler for a size, if that is known.
fn resolve_schedule(
    spec: &Spec,
    (bundle, model): (&Bundle, Option<&ModelPlan>),
    task: &dyn Task,
    (scheduler, size): (SchedulerChoice, Option<(usize, usize)>),
    defaults: &Defaults,
    problems: &mut Problems,
) -> Option<ResolvedSchedule> {
    let (width, height) = size.unwrap_or(bundle.facts.default_size.value);
    let mu = scheduler.mu(bundle.facts.patches(width, height));
    if model.is_some() {
        let is_flow = bundle.known_family().is_some_and(|family| family.row().is_flow);
        problems.unless(scheduler.fits(is_flow));
    }
    let planned_strength = planned_strength(spec, bundle, model, task);
    let rounding = model.map_or(Rounding::Down, |model| model.model.rounding);
    let resolved = schedule(spec, scheduler, task, (defaults.steps, planned_strength), mu, rounding);
    let (scheduler, steps, custom, planned_strength) = problems.unless(resolved)?;
    Some(ResolvedSchedule { scheduler, steps, custom, planned_strength, mu })
}

/// Checks prompts, sizes, LoRAs and batching on a model, and adds remarks on them to it.
fn check_model(
    model: &mut ModelPlan,
    spec: &Spec,
    task: &dyn Task,
    size: Option<(usize, usize)>,
    sources: &ModelSources,
    problems: &mut Problems,
) {
    if problems.unless(model.check_prompts(task)).is_some() {
        let of_prompts = model.text.as_ref().zip(task.prompting()).map(|(text, prompting)| text.remarks(prompting));
        let of_prompts = of_prompts.and_then(|remarks| problems.unless(remarks));
        model.remarks.extend(of_prompts.into_iter().flatten());
    }
    if let Some(size) = size {
        problems.unless(model.check_shapes(size, spec.run.tiles, spec.run.decode_tile));
    }
    let of_loras = model.loras.iter().map(|lora| sources.check_lora(lora, &model.graphs()));
    let of_loras: Vec<_> = of_loras.filter_map(|checked| problems.unless(checked)).collect();
    model.remarks.extend(of_loras.iter().flat_map(|warnings| warnings.iter().cloned()));
    if spec.device.batching == Batching::Split && !spec.device.is_on_cpu(model.denoiser.kind) {
        problems.push(Error::input(
            "device.batching",
            "\"split\" makes several runs at the same time, and only the CPU stands that",
            "choose \"auto\", or provider = \"cpu\"",
        ));
    }
}
