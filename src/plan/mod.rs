//! A pipeline file checked against its model directory: every choice made.
//!
//! [`Plan::new`] joins a [`Spec`] with the [`Bundle`] it names. What comes out holds no option that means "not checked
//! yet": sizes are known and fit the graphs, the scheduler builds, the signature of every graph the task needs is
//! resolved. `ldm-ort check` stops here; [`Execution::load`](crate::execution::Execution::load) goes on.

mod classes;
mod conditions;
mod control;
mod defaults;
mod evaluations;
mod free_memory;
mod inputs;
mod memory_budget;
mod model;
mod opening;
mod output_sizes;
mod packed;
mod preview;
mod requirements;
mod runtime;
mod scheduler;
mod scheduler_config;
mod settings;
mod shallow;
mod shapes;
mod size;
mod sizes;
mod sources;
mod stages;
mod text;

use std::ops::Range;
use std::sync::Arc;

use ndarray::ArrayD;

use crate::bundle::Bundle;
use crate::denoise::{RunInterval, StepCache};
use crate::error::{Error, Result, count_of};
use crate::image::InputLimit;
use crate::rng::Stream;
use crate::scheduler::CustomSchedule;
use crate::session::find_provider;
use crate::spec::{Batching, Spec, StageInput};
use crate::task::{Rounding, Task};
use crate::tiles::Tiles;
use defaults::{Filling, planned_strength};
use inputs::read_latents;
use scheduler::schedule;
use size::{size, tiles};
use stages::{LatentSpace, Offer};

pub use conditions::ConditionPart;
pub use control::ControlPart;
pub use defaults::DefaultValue;
pub use free_memory::MemoryNeed;
pub use memory_budget::MemoryBudget;
pub use model::{ModelPlan, Part};
pub use opening::Opening;
pub(crate) use opening::{fastest, name};
pub use preview::{PreviewPlan, PreviewSource};
pub use scheduler::SchedulerChoice;
pub use scheduler_config::AppliedCorrection;
pub(crate) use settings::Planned;
pub use settings::RunSettings;
pub use shallow::ShallowPlan;
pub use sizes::Sizes;
pub use sources::ModelSources;
pub use stages::StagePlan;
pub use text::{TextPart, TextPlan};

/// What is to be made with an open pipeline.
#[derive(Debug)]
pub struct RunPlan {
    /// The task.
    pub task: Box<dyn Task>,
    /// The scheduler.
    pub scheduler: SchedulerChoice,
    /// The number of steps.
    pub steps: usize,
    /// The part of the run in which guidance is at work, where it is not all of it.
    pub guidance_interval: Option<RunInterval>,
    /// How the denoiser is asked at fewer steps, where it is.
    pub cache: Option<StepCache>,
    /// The schedule itself, where it is given outright.
    pub custom: Option<CustomSchedule>,
    /// The strength, where the schedule is planned for it and run from its first step on.
    pub planned_strength: Option<f64>,
    /// The shift of the schedule that goes with the image's size, where the scheduler asks for one.
    pub mu: Option<f64>,
    /// The share of the schedule that another run has done already.
    pub denoising_start: Option<f64>,
    /// The share of the schedule after which the run stops.
    pub denoising_end: Option<f64>,
    /// The seed of the first image; image i has `seed + i`.
    pub seed: u64,
    /// The stream that each image draws its noise from.
    pub noise: Stream,
    /// Images a prompt.
    pub images: usize,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Unit normal noise to start from, `[n, c, h/f, w/f]`.
    pub latents: Option<ArrayD<f32>>,
    /// The largest image that is read as an input.
    pub input_limit: InputLimit,
    /// The tiles in which denoiser and decoder work, where they do.
    pub tiles: Option<Tiles>,
    /// Images denoised at once.
    pub batch: usize,
    /// Where set, the only image of these that is made.
    pub only: Option<usize>,
    /// These settings as they were planned.
    pub(crate) planned: Option<Arc<Planned>>,
}

impl RunPlan {
    /// The images that are made, by their indices: all of them, or the one that is asked for.
    ///
    /// # Errors
    /// [`Error::Input`] where that one is not there.
    pub fn indices(&self) -> Result<Range<usize>> {
        let total = self.total_images();
        match self.only {
            None => Ok(0..total),
            Some(index) if index < total => Ok(index..index + 1),
            Some(index) => Err(Error::input(
                "index",
                format!("{index} is asked for, and the run makes {}", count_of(total, "image")),
                "the record that names it does not fit this pipeline",
            )),
        }
    }

    /// What the scheduler of a batch of `images` images is built for.
    pub fn schedule(&self, images: usize) -> crate::scheduler::ScheduleRequest {
        scheduler::request(self.steps, self.custom.clone(), self.planned_strength, self.mu, images)
    }

    /// Images in all.
    pub fn total_images(&self) -> usize {
        self.task.labels().len() * self.images
    }

    /// The seed of image `index`.
    pub fn seed_of(&self, index: usize) -> u64 {
        self.seed.wrapping_add(index as u64)
    }

    /// What the images of prompt `prompt` are steered away from.
    pub fn negative_prompt(&self, prompt: usize) -> &str {
        self.task.prompting().and_then(|p| p.negative_prompts.get(prompt)).map_or("", String::as_str)
    }
}

/// A pipeline, checked.
#[derive(Debug)]
pub struct Plan {
    /// The pipeline as written, with the seed and the sizes that were chosen where it left them open.
    pub spec: Spec,
    /// What is opened. Where a stage goes on with the latents and nobody keeps the image, there is no decoder.
    pub model: ModelPlan,
    /// What is made.
    pub request: RunPlan,
    /// The `[[stage]]` tables: what goes on with what is made.
    pub stages: Vec<StagePlan>,
}

/// One model's part of a plan.
struct ResolvedStage {
    spec: Spec,
    model: ModelPlan,
    request: RunPlan,
    space: LatentSpace,
    /// How it is handed what the stage before made, where there is one.
    hand: Option<StageInput>,
}

/// Opens the model directory that `spec` names and makes every choice that it leaves open, save its stages. `offer` is
/// what it is handed, where it is a stage itself.
fn settle(mut spec: Spec, offer: Option<&Offer>, sources: &ModelSources) -> Result<ResolvedStage> {
    let directory = sources.directory(&spec)?;
    let bundle = &directory.bundle;
    bundle.family()?;
    let mut wrong = Wrong::default();
    let hand = offer.and_then(|offer| wrong.unless(offer.take(&mut spec, bundle)));
    let own_seed = spec.run.seed;
    spec.run.seed = own_seed.or(offer.and_then(|offer| offer.seed));
    let mut filling = Filling::of(&mut spec, bundle);
    let defaults = filling.call.values;
    let task = spec.task.clone();
    for name in spec.device.providers.iter().chain(spec.device.components.values().flatten()) {
        wrong.unless(find_provider(name));
    }
    let mut model = wrong.unless(ModelPlan::new(&spec, (&directory, sources), task.as_ref(), defaults));
    let chosen = wrong.unless(SchedulerChoice::new(&spec, bundle, defaults.eta));
    let size = size(&spec, bundle, task.as_ref(), offer.and_then(|offer| offer.size), &defaults);
    let size = wrong.unless(size).map(|size| {
        filling.add_size(&spec, &size);
        size.value
    });
    let mu = chosen.as_ref().and_then(|scheduler| {
        let (width, height) = size.unwrap_or(bundle.facts.default_size.value);
        scheduler.mu(bundle.facts.patches(width, height))
    });
    if let (Some(scheduler), Some(_)) = (&chosen, &model) {
        let is_flow = bundle.known_family().is_some_and(|family| family.row().is_flow);
        wrong.unless(scheduler.fits(is_flow));
    }
    let schedule = chosen.and_then(|scheduler| {
        let planned_strength = planned_strength(&spec, bundle, model.as_ref(), task.as_ref());
        let rounding = model.as_ref().map_or(Rounding::Down, |model| model.model.rounding);
        let steps = defaults.steps;
        wrong.unless(schedule(&spec, scheduler, task.as_ref(), (steps, planned_strength), mu, rounding))
    });
    if let Some(model) = &mut model {
        if wrong.unless(model.check_prompts(task.as_ref())).is_some() {
            let of_prompts = model.text.as_ref().zip(task.prompting()).map(|(text, prompting)| text.remarks(prompting));
            let of_prompts = of_prompts.and_then(|remarks| wrong.unless(remarks));
            model.remarks.extend(of_prompts.into_iter().flatten());
        }
        if let Some(size) = size {
            wrong.unless(model.check_shapes(size, spec.run.tiles));
        }
        let of_loras = model.loras.iter().map(|lora| sources.check_lora(lora, &model.graphs()));
        let of_loras: Vec<_> = of_loras.filter_map(|checked| wrong.unless(checked)).collect();
        model.remarks.extend(of_loras.iter().flat_map(|warnings| warnings.iter().cloned()));
    }
    if spec.device.batching == Batching::Split && model.as_ref().is_some_and(|model| !model.denoises_on_cpu()) {
        wrong.0.push(Error::input(
            "device.batching",
            "\"split\" makes several runs at the same time, and only the CPU stands that",
            "choose \"auto\", or provider = \"cpu\"",
        ));
    }
    let total_images = task.labels().len() * spec.run.images;
    let seed = wrong.unless(seed(&spec, total_images));
    wrong.unless(tiles(&spec, bundle));
    let guidance_interval = model.as_ref().and_then(|model| wrong.unless(evaluations::guidance_interval(&spec, model)));
    let latents = match (&spec.run.latents, &model, size) {
        (Some(path), Some(model), Some((width, height))) => {
            wrong.unless(read_latents(path, total_images, model.sample_shape(width, height)))
        }
        _ => None,
    };
    let (Some(mut model), Some((scheduler, steps, custom, planned_strength)), Some((width, height)), Some(seed)) =
        (model, schedule, size, seed)
    else {
        return Err(wrong.into_error());
    };
    if !wrong.0.is_empty() {
        return Err(wrong.into_error());
    }

    let (denoising_start, denoising_end) = (spec.run.denoising_start, spec.run.denoising_end);
    filling.add_planned(&spec, &model, &scheduler);
    model.defaults = filling.filled;
    model.remarks.extend(old_names(&spec, bundle));
    spec.run.steps = Some(steps);
    if offer.is_none() {
        spec.run.seed = Some(seed);
        spec.run.width = Some(width);
        spec.run.height = Some(height);
    } else {
        // What follows from the stage before it goes on to do so when a flag changes that one.
        spec.run.seed = own_seed;
    }
    let on_cpu = model.denoises_on_cpu();
    let mut request = RunPlan {
        task,
        scheduler,
        steps,
        guidance_interval: guidance_interval.flatten(),
        cache: spec.cache.clone(),
        custom,
        planned_strength,
        mu,
        denoising_start,
        denoising_end,
        seed,
        noise: spec.run.noise,
        images: spec.run.images,
        width,
        height,
        latents,
        tiles: spec.run.tiles,
        input_limit: spec.run.input_limit(),
        // A processor is kept busy by one image; a GPU is not. An image that is handed on has a batch to itself.
        batch: if on_cpu || hand == Some(StageInput::Image) {
            1
        } else {
            evaluations::largest_batch(&spec, total_images)
        },
        only: None,
        planned: None,
    };
    let sizes = Sizes::of(&request, &model.model);
    request.planned = Some(Arc::new(Planned::new(&request, &model, bundle.facts.size_multiple())));
    model.sizes = Some(sizes);
    model.check_output_sizes(sizes, sources)?;
    if let Some(budget) = spec.device.memory_budget {
        model.keep_within(budget, sources)?;
    }
    Ok(ResolvedStage { spec, model, request, space: LatentSpace::of(bundle), hand })
}

/// Warnings about old names, in the pipeline file and of folders in the model directory.
fn old_names(spec: &Spec, bundle: &Bundle) -> Vec<String> {
    let is_given = |kind| spec.model.components.get(&kind).is_some_and(|component| component.graph.is_some());
    let found = bundle.components.iter().filter(|(kind, _)| !is_given(**kind));
    let of_folders = found.filter_map(|(_, component)| component.old_name_warning());
    spec.old_names.warnings().map(str::to_owned).chain(of_folders).collect()
}

/// What was found wrong so far, so that all of it is told at once.
#[derive(Default)]
struct Wrong(Vec<Error>);

impl Wrong {
    /// Takes down what is wrong with a result, or gives its value.
    fn unless<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    fn into_error(self) -> Error {
        let mut flat = Vec::new();
        for error in self.0 {
            match error {
                Error::Several(errors) => flat.extend(errors),
                one => flat.push(one),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { Error::Several(flat) }
    }
}

/// The seed of the first image: the user's, or one nobody chose.
fn seed(spec: &Spec, total_images: usize) -> Result<u64> {
    let seed = spec.run.seed.unwrap_or_else(random_seed);
    let largest = spec.run.noise.last_seed().min(i64::MAX as u64);
    match seed.checked_add(total_images.saturating_sub(1) as u64) {
        Some(last) if last <= largest => Ok(seed),
        _ => Err(Error::input(
            "run.seed",
            format!(
                "the last of {total_images} images from seed {seed} on goes beyond {largest}, the largest of {} noise",
                spec.run.noise.name()
            ),
            "choose a smaller seed",
        )),
    }
}

/// A seed nobody chose: 31 bits from the hasher that the standard library seeds at random, so that a seed that every
/// stream takes comes after it for each of its images.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() & 0x7fff_ffff
}
