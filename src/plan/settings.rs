//! The settings that a request had when it was run.

use sha2::{Digest, Sha256};

use super::model::ModelPlan;
use super::run_plan::RunPlan;
use super::scheduler::SchedulerChoice;
use crate::denoise::{RunInterval, StepCache};
use crate::files;
use crate::rng::Stream;
use crate::scheduler::{Config, CustomSchedule};
use crate::spec::{self, DecodeTile, Listed, Spec};
use crate::task::Task;
use crate::tiles::Tiles;

/// The settings of a request as it was run, for the records of its images. A [`RunPlan`] can be changed between planning
/// and running, and then no longer does what the plan's [`Spec`] says.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// The task's name in pipeline.toml.
    pub task_name: &'static str,
    /// The scheduler's name in pipeline.toml.
    pub scheduler_name: &'static str,
    /// The guidance scale.
    pub guidance_scale: f64,
    /// The share of the steps that is run, for a task that starts from an image and adds noise to it.
    pub strength: Option<f64>,
    /// The user's number of steps.
    pub steps: usize,
    /// The share of the schedule that another run has done.
    pub denoising_start: Option<f64>,
    /// As a pipeline file has it, if it can.
    task: Option<Box<dyn Task>>,
    scheduler: SchedulerChoice,
    seed: u64,
    guidance_interval: Option<RunInterval>,
    cache: Option<StepCache>,
    custom: Option<CustomSchedule>,
    planned_strength: Option<f64>,
    mu: Option<f64>,
    denoising_end: Option<f64>,
    noise: Stream,
    images: usize,
    size: (usize, usize),
    /// The sha256 of the noise that was given.
    latents: Option<String>,
    tiles: Option<Tiles>,
    decode_tile: DecodeTile,
}

const IN_MEMORY: &str = "the image was given in memory, and not as a file";

/// A request's settings as they were planned.
#[derive(Debug)]
pub(crate) struct PlannedSettings {
    settings: RunSettings,
    /// The side in pixels of the patches that the denoiser reads.
    patch: usize,
}

impl PlannedSettings {
    pub(super) fn new(request: &RunPlan, model: &ModelPlan, patch: usize) -> Self {
        Self { settings: RunSettings::of(request, model), patch: patch.max(1) }
    }
}

impl RunSettings {
    /// The settings of this request to this model.
    pub fn of(request: &RunPlan, model: &ModelPlan) -> Self {
        let latents = request.latents.as_ref().map(|latents| {
            let mut hash = Sha256::new();
            latents.iter().for_each(|value| hash.update(value.to_le_bytes()));
            files::hexadecimal(hash)
        });
        Self {
            task_name: request.task.name(),
            scheduler_name: request.scheduler.entry.name,
            guidance_scale: request.task.guidance_scale(&model.model),
            strength: request.task.strength().filter(|_| request.denoising_start.is_none()),
            steps: request.steps,
            denoising_start: request.denoising_start,
            task: request.task.entry().map(|_| request.task.clone()),
            scheduler: request.scheduler.clone(),
            seed: request.seed,
            guidance_interval: request.guidance_interval,
            cache: request.cache.clone(),
            custom: request.custom.clone(),
            planned_strength: request.planned_strength,
            mu: request.mu,
            denoising_end: request.denoising_end,
            noise: request.noise,
            images: request.images,
            size: (request.width, request.height),
            latents,
            tiles: request.tiles,
            decode_tile: request.decode_tile,
        }
    }

    /// The same of an image that was decoded in tiles of this side, in latents.
    pub(crate) fn with_decode_tile(&self, side: usize) -> Self {
        Self { decode_tile: DecodeTile::Side(side), ..self.clone() }
    }

    /// Writes into `spec`, the one that was `planned`, what differs from the plan. Returns what no pipeline file can say,
    /// a sentence each.
    pub(crate) fn put_into(&self, planned: &PlannedSettings, spec: &mut Spec) -> Vec<String> {
        let mut lost = Vec::new();
        let then = &planned.settings;
        self.put_task(then, spec, &mut lost);
        self.put_scheduler(then, spec, &mut lost);
        put(&mut spec.cache, &self.cache, &then.cache);
        put(&mut spec.run.denoising_start, &self.denoising_start, &then.denoising_start);
        put(&mut spec.run.denoising_end, &self.denoising_end, &then.denoising_end);
        put(&mut spec.run.noise, &self.noise, &then.noise);
        put(&mut spec.run.images, &self.images, &then.images);
        put(&mut spec.run.tiles, &self.tiles, &then.tiles);
        put(&mut spec.run.decode_tile, &self.decode_tile, &then.decode_tile);
        put(&mut spec.run.seed, &Some(self.seed), &Some(then.seed));
        put(&mut spec.run.width, &Some(self.size.0), &Some(then.size.0));
        put(&mut spec.run.height, &Some(self.size.1), &Some(then.size.1));
        match &self.latents {
            None => put(&mut spec.run.latents, &None, &then.latents.as_ref().map(Into::into)),
            latents if *latents == then.latents => {}
            Some(_) => lost.push("run.latents: the noise was given in memory, and not as a file".to_owned()),
        }
        self.put_schedule(planned, spec, &mut lost);
        let in_memory = spec.controls.iter().enumerate().filter(|(_, control)| control.image.is_in_memory());
        lost.extend(in_memory.map(|(at, _)| format!("control[{at}].image: {IN_MEMORY}")));
        lost
    }

    fn put_task(&self, then: &Self, spec: &mut Spec, lost: &mut Vec<String>) {
        let is_changed = self.task != then.task;
        for (key, _) in self.task.iter().flat_map(|task| task.images()).filter(|(_, image)| image.is_in_memory()) {
            lost.push(format!("task.{}.{key}: {IN_MEMORY}", self.task_name));
        }
        match &self.task {
            None => lost.push(format!("task: {} is not one of a pipeline file", self.task_name)),
            Some(_) if !is_changed => {}
            Some(task) => {
                let mut task = task.clone();
                if let Some(prompting) = task.prompting_mut() {
                    prompting.guidance_scale = Some(self.guidance_scale);
                }
                if let Some(strength) = task.strength_mut().filter(|_| self.denoising_start.is_none()) {
                    *strength = self.strength;
                }
                spec.task = task;
            }
        }
        if is_changed || self.guidance_interval != then.guidance_interval {
            let interval = self.guidance_interval.map(|share| [share.start, share.end]);
            spec.task.set_guidance_interval(interval);
        }
    }

    fn put_scheduler(&self, then: &Self, spec: &mut Spec, lost: &mut Vec<String>) {
        let now = &self.scheduler;
        if is_same(now, &then.scheduler) {
            return;
        }
        // Another class has the model's configuration as that class takes it over.
        let other = then.scheduler.another(&now.name).filter(|_| now.name != then.scheduler.name);
        let then = other.as_ref().unwrap_or(&then.scheduler);
        if now.falls_evenly != then.falls_evenly {
            lost.push("scheduler: the model's own noise levels were switched".to_owned());
        }
        let mut table = Config::new();
        for (key, value) in now.model.iter().filter(|(key, value)| then.model.get(*key) != Some(value)) {
            if now.entry.keys.iter().any(|known| known.name == key) {
                table.insert(key.clone(), value.clone());
            } else {
                lost.push(format!("scheduler: {key} was changed in the model's configuration"));
            }
        }
        if let Some(key) = then.model.keys().find(|key| !now.model.contains_key(*key)) {
            lost.push(format!("scheduler: {key} was removed from the model's configuration"));
        }
        table.extend(now.table.clone());
        spec.scheduler = Some(spec::SchedulerSpec { name: now.name.clone(), table });
    }

    /// Steps, a schedule that is given outright, and what follows from size and strength.
    fn put_schedule(&self, planned: &PlannedSettings, spec: &mut Spec, lost: &mut Vec<String>) {
        let then = &planned.settings;
        put(&mut spec.run.steps, &Some(self.steps), &Some(then.steps));
        let is_other = !is_same(&self.scheduler, &then.scheduler);
        if is_other || self.steps != then.steps || self.custom != then.custom {
            let of_family = || self.scheduler.of_family(self.steps);
            if self.custom != spec.run.schedule(self.scheduler.entry, self.steps).1.or_else(of_family) {
                (spec.run.timesteps, spec.run.sigmas) = match &self.custom {
                    Some(CustomSchedule::Timesteps(list)) => (Some(Listed::Numbers(list.clone())), None),
                    Some(CustomSchedule::Sigmas(list)) => (None, Some(Listed::Numbers(list.clone()))),
                    None => (None, None),
                };
                if self.custom.is_none() && of_family().is_some() {
                    lost.push("run.sigmas: the noise levels of the model's family were switched off".to_owned());
                }
            }
        }
        let (width, height) = self.size;
        let tokens = (width / planned.patch).saturating_mul(height / planned.patch);
        let may_shift = is_other || self.size != then.size || self.mu != then.mu;
        if may_shift && self.mu != self.scheduler.mu(tokens) {
            lost.push("the shift of the schedule is not the one that goes with the image's size".to_owned());
        }
        let strength = then.planned_strength.and(self.strength);
        if (self.task != then.task || self.planned_strength != then.planned_strength)
            && self.planned_strength != strength
        {
            lost.push("the schedule was planned for another strength than the task's".to_owned());
        }
    }
}

/// Puts a value where it differs from the planned one; else what was written stays as it is.
fn put<T: PartialEq + Clone>(place: &mut T, now: &T, then: &T) {
    if now != then {
        place.clone_from(now);
    }
}

fn is_same(one: &SchedulerChoice, other: &SchedulerChoice) -> bool {
    one.name == other.name
        && one.table == other.table
        && one.model == other.model
        && one.falls_evenly == other.falls_evenly
}
