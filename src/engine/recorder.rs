//! The records of images: what each was made with, so that it can be made again.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::digests::{KnownDigests, ModelDigests};
use crate::denoise::Evaluations;
use crate::denoise::cache::CacheParameterValue;
use crate::error::{Error, Result};
use crate::execution::{ComponentVerification, FinishedImage};
use crate::files;
use crate::graph_cache;
use crate::metadata::{self, CacheRecord, FewerEvaluations, Record, StageRecord};
use crate::plan::{ExecutionPlan, FLOAT32, ModelPlan, Plan, PlannedSettings};
use crate::session::Runtime;
use crate::spec::{RecordNames, Spec};
use crate::threads::{self, BackgroundTask};

/// Makes the records of the images of a plan's models. A record says what was really run, also if the request was changed
/// after planning.
pub struct Recorder {
    spec: Spec,
    /// The settings that `spec` stands for, one a stage.
    planned: Vec<Arc<PlannedSettings>>,
    /// Those of the file's list that can be used here.
    providers: Vec<String>,
    runtime: String,
    /// True if graphs are optimized ahead.
    is_optimized: bool,
    /// The comparisons of providers with the CPU.
    verifications: Vec<ComponentVerification>,
    /// The names that files keep in records.
    names: RecordNames,
    /// The digests of the files that images begin with, as far as they are known.
    inputs: HashMap<PathBuf, String>,
    /// For each stage the component that decodes, where it is not the VAE's own decoder.
    decoders: Vec<Option<String>>,
    /// The form in which each stage receives the output of the one before it.
    inputs_of_stages: Vec<&'static str>,
    /// Reads every file of the models, which for a large one takes seconds that the run need not wait for.
    digests: Digesting,
}

/// One a stage, that of the file's own tables first.
enum Digesting {
    Working(BackgroundTask<Result<Vec<ModelDigests>>>),
    Done(Vec<ModelDigests>),
}

impl Recorder {
    /// Starts to digest the model's files in a thread of its own.
    pub fn new(plan: &Plan, runtime: &Runtime, known: KnownDigests) -> Self {
        let models: Vec<_> = plan.executions().cloned().collect();
        let digests = move || models.iter().map(|model| ModelDigests::known(model, &known)).collect();
        let digests = Digesting::Working(threads::background("digests", digests));
        Self::with(plan, runtime.version().to_owned(), digests)
    }

    /// The same for images made again from a record, which keep its names for files.
    pub fn with_names(self, names: RecordNames) -> Self {
        Self { names, ..self }
    }

    /// Adds the comparison of a component with the CPU.
    pub(super) fn add_verification(&mut self, verification: &ComponentVerification) {
        self.verifications.retain(|own| !own.is_same_graph(verification));
        self.verifications.push(verification.clone());
    }

    fn with(plan: &Plan, runtime: String, digests: Digesting) -> Self {
        let stages = plan.stages.iter().map(|stage| &stage.settings);
        Self {
            spec: plan.spec.clone(),
            planned: std::iter::once(&plan.settings).chain(stages).cloned().collect(),
            providers: plan.execution.device.providers.clone(),
            runtime,
            is_optimized: is_optimized(plan.executions()),
            verifications: Vec::new(),
            names: RecordNames::default(),
            inputs: HashMap::new(),
            decoders: plan.executions().map(|own| decoder(&own.model)).collect(),
            inputs_of_stages: plan.stages.iter().map(|stage| stage.hand.name()).collect(),
            digests,
        }
    }

    /// The record of one image.
    ///
    /// # Errors
    /// [`Error::Io`] if a file of the model cannot be read.
    pub fn record(&mut self, image: &FinishedImage) -> Result<Record> {
        let digests = self.model_digests()?;
        let (Some((own, of_stages)), Some(settings)) = (digests.split_first(), image.settings.first()) else {
            return Err(Error::internal("record", "the image does not tell what it was made with"));
        };
        let (whole, unrecorded) = self.as_run(image);
        let stages = self.stage_records(image, &whole, of_stages);
        let (pipeline, index) = own_spec(&whole, image);
        let inputs = self.input_digests(&pipeline)?;
        Ok(Record {
            schema: metadata::SCHEMA,
            engine: metadata::ENGINE.to_owned(),
            runtime: self.runtime.clone(),
            arithmetic: arithmetic(self.is_optimized, &image.precisions),
            providers: self.providers.clone(),
            model: name_of(&self.spec.model.path),
            model_digest: own.whole.clone(),
            weights: own.weights.clone(),
            files: own.files.clone(),
            task: settings.task_name.to_owned(),
            prompt: image.prompt.clone(),
            negative_prompt: image.negative_prompt.clone(),
            scheduler: settings.scheduler_name.to_owned(),
            steps: settings.steps,
            guidance_scale: settings.guidance_scale,
            strength: settings.strength,
            seed: image.seed,
            width: image.pixels.width(),
            height: image.pixels.height(),
            pipeline: pipeline.to_record(self.spec.output.record_paths, &self.names),
            index,
            precision: image.precisions.first().filter(|precision| *precision != FLOAT32).cloned(),
            verified: self.verifications.iter().map(ComponentVerification::to_line).collect(),
            decoder: self.decoders.first().cloned().flatten(),
            decode_tile: image.decode_tile,
            inputs,
            fewer_evaluations: fewer_evaluations(&whole, image.evaluations.first()),
            stages,
            unrecorded,
        })
    }

    /// The plan's pipeline as it was run for this image, and what no pipeline file can say of that.
    fn as_run(&self, image: &FinishedImage) -> (Spec, Vec<String>) {
        let mut whole = self.spec.clone();
        let mut unrecorded = Vec::new();
        whole.stages.truncate(image.stages);
        for (at, (settings, planned)) in image.settings.iter().zip(&self.planned).enumerate() {
            let stage = at.checked_sub(1);
            let spec = match stage {
                None => Some(&mut whole),
                Some(at) => whole.stages.get_mut(at).map(|stage| &mut stage.spec),
            };
            if let Some(spec) = spec {
                let lost = settings.put_into(planned, spec).into_iter();
                unrecorded.extend(lost.map(|lost| stage.map_or(lost.clone(), |at| format!("stage[{at}]: {lost}"))));
            }
        }
        (whole, unrecorded)
    }

    /// The records of the stages that an image went through.
    fn stage_records(&self, image: &FinishedImage, whole: &Spec, digests: &[ModelDigests]) -> Vec<StageRecord> {
        let settings = image.settings.iter().skip(1);
        let own = whole.stages.iter().zip(settings).zip(digests).zip(&self.inputs_of_stages).take(image.stages);
        let own = own.enumerate().map(|(at, (((stage, settings), digests), input))| StageRecord {
            input: (*input).to_owned(),
            model: name_of(&stage.spec.model.path),
            model_digest: digests.whole.clone(),
            weights: digests.weights.clone(),
            files: digests.files.clone(),
            task: settings.task_name.to_owned(),
            scheduler: settings.scheduler_name.to_owned(),
            steps: settings.steps,
            guidance_scale: settings.guidance_scale,
            strength: settings.strength,
            denoising_start: settings.denoising_start,
            decoder: self.decoders.get(at + 1).cloned().flatten(),
            fewer_evaluations: fewer_evaluations(&stage.spec, image.evaluations.get(at + 1)),
        });
        own.collect()
    }

    /// sha256 of each file that this pipeline begins with, by its key. Each file is read once.
    fn input_digests(&mut self, pipeline: &Spec) -> Result<BTreeMap<String, String>> {
        let mut digests = BTreeMap::new();
        for (key, path) in pipeline.inputs() {
            let digest = match self.inputs.get(path) {
                Some(known) => known.clone(),
                None => {
                    let digest = files::digest(path)?;
                    self.inputs.insert(path.to_path_buf(), digest.clone());
                    digest
                }
            };
            digests.insert(key, digest);
        }
        Ok(digests)
    }

    fn model_digests(&mut self) -> Result<Vec<ModelDigests>> {
        if let Digesting::Done(digests) = &self.digests {
            return Ok(digests.clone());
        }
        let digests = match std::mem::replace(&mut self.digests, Digesting::Done(Vec::new())) {
            Digesting::Done(digests) => digests,
            Digesting::Working(thread) => thread.join()??,
        };
        self.digests = Digesting::Done(digests.clone());
        Ok(digests)
    }
}

/// True if any model's graphs are optimized ahead.
pub fn is_optimized<'a>(mut models: impl Iterator<Item = &'a ExecutionPlan>) -> bool {
    models.any(|own| own.graph_cache.is_some() && own.device.optimize)
}

/// The causes of rounding besides ONNX Runtime's version: the CPU's instructions, if graphs were optimized ahead, and the
/// precision of the first denoiser that is not in float32.
pub fn arithmetic(is_optimized: bool, precisions: &[String]) -> String {
    let graphs = if is_optimized { "optimized graphs" } else { "graphs as stored" };
    let own = precisions.iter().find(|precision| *precision != FLOAT32);
    let precision = own.map_or(String::new(), |precision| format!(", {precision}"));
    format!("{}, {graphs}{precision}", graph_cache::processor())
}

/// The pipeline that makes one image of a request by itself: its prompt alone, its seed. If noise or latents for all
/// images are in one file the whole pipeline is kept, and the index tells which of its images this one is.
fn own_spec(whole: &Spec, image: &FinishedImage) -> (Spec, usize) {
    let mut own = whole.clone();
    own.go_through(image.stages);
    if own.shares_a_file() {
        return (own, image.index);
    }
    own.keep_only(image.index, image.seed);
    (own, 0)
}

/// The component that decodes, where it is not the VAE's own decoder.
fn decoder(model: &ModelPlan) -> Option<String> {
    model.decoder.as_ref().filter(|_| model.decodes_tiny()).map(|part| part.kind.name().to_owned())
}

fn name_of(model: &Path) -> String {
    model.file_name().unwrap_or(model.as_os_str()).to_string_lossy().into_owned()
}

/// The evaluations that a `[cache.NAME]` or a `guidance_interval` of these tables left, if there is one.
fn fewer_evaluations(spec: &Spec, evaluations: Option<&Evaluations>) -> Option<FewerEvaluations> {
    let &Evaluations { made, shallow, total } = evaluations.filter(|_| spec.asks_for_fewer_evaluations())?;
    let json = |value| match value {
        CacheParameterValue::Number(value) => value.into(),
        CacheParameterValue::Integer(value) => value.into(),
        CacheParameterValue::Switch(value) => value.into(),
    };
    let cache = spec.cache.as_ref().map(|cache| CacheRecord {
        method: cache.entry().name.to_owned(),
        parameters: cache.parameters().map(|(name, value)| (name.to_owned(), json(value))).collect(),
    });
    Some(FewerEvaluations { made, shallow, total, guidance_interval: spec.task.guidance_interval(), cache })
}
