//! Finished pictures on disk, with the record they can be made again from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Picture;
use crate::denoise::Evaluations;
use crate::denoise::cache::Value;
use crate::error::{Error, Result};
use crate::files;
use crate::metadata::{self, CacheRecord, FewerEvaluations, Record, StageRecord};
use crate::plan::{ModelPlan, Plan, Request};
use crate::prepared;
use crate::session::Runtime;
use crate::spec::Spec;
use crate::threads::{self, Background};

/// Writes pictures into a folder.
#[derive(Debug, Clone)]
pub struct Saver {
    dir: PathBuf,
}

impl Saver {
    /// Creates the folder if there is none, so that a wrong path is known before the work is done.
    ///
    /// # Errors
    /// As [`Saver::check`]; [`Error::Io`] if the folder cannot be created.
    pub fn new(dir: &Path) -> Result<Self> {
        Self::check(dir)?;
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, "creating the folder", e))?;
        Ok(Self { dir: dir.to_path_buf() })
    }

    /// Requires that images can be written to `dir`, and creates nothing.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file that is in the way, a folder that cannot be written, or a name such as
    /// `image.png`, which is a file's.
    pub fn check(dir: &Path) -> Result<()> {
        const KEY: &str = "output.dir";
        files::require_writable_folder(KEY, dir)?;
        files::require_format(KEY, dir, "", "images are written to a folder, each under a name of its own")
    }

    /// The names that a preview may have of the image that will be saved with this prompt, seed and suffix, in order.
    pub fn preview_names(&self, prompt: &str, seed: u64, suffix: &str) -> impl Iterator<Item = PathBuf> {
        self.names(format!("{}-{seed}{suffix}", slug(prompt)), ".preview.png")
    }

    /// Writes an image, whole or not at all, and returns its path.
    ///
    /// The name is made of the prompt, the seed, and `suffix`, which may be empty. A file of that name with other
    /// contents is kept, and the new one gets a number: also where several processes write to one folder at once.
    ///
    /// # Errors
    /// [`Error::Io`] if the image cannot be written, for example because the disk is full.
    pub fn save(&self, picture: &Picture, suffix: &str, record: &Record) -> Result<PathBuf> {
        let stem = format!("{}-{}{suffix}", slug(&picture.prompt), picture.seed);
        let png = crate::image::encode_png(&picture.pixels, &record.chunks()?)?;
        files::write_new_or_same(self.names(stem, ".png"), &png)
    }

    /// The names that a file with this stem may have, the plain one first.
    fn names(&self, stem: String, extension: &'static str) -> impl Iterator<Item = PathBuf> {
        let numbered = (2..).map(move |number| format!("-{number}"));
        let dir = &self.dir;
        std::iter::once(String::new()).chain(numbered).map(move |number| dir.join(format!("{stem}{number}{extension}")))
    }
}

/// The part of a file name that tells pictures apart at a glance: words of the prompt, joined by hyphens.
fn slug(prompt: &str) -> String {
    const LONGEST: usize = 60;
    let mut slug = String::new();
    for word in prompt.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
        let word = word.to_lowercase();
        if !slug.is_empty() && slug.len() + word.len() >= LONGEST {
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        for c in word.chars().filter(|c| c.is_alphanumeric()) {
            if slug.len() + c.len_utf8() > LONGEST {
                break;
            }
            slug.push(c);
        }
    }
    if slug.is_empty() { "picture".to_owned() } else { slug }
}

/// A digest over all files a plan opens: sha256, in hexadecimal.
///
/// # Errors
/// [`Error::Io`] where one of them cannot be read.
pub fn model_digest(plan: &ModelPlan) -> Result<String> {
    let mut all = Sha256::new();
    for (kind, graph) in plan.graphs() {
        all.update(kind.name());
        all.update(prepared::digest(plan.prepared.as_ref(), graph)?);
    }
    for inversion in plan.text.iter().flat_map(|text| &text.inversions) {
        all.update("embedding");
        all.update(inversion.digest());
    }
    for lora in &plan.loras {
        all.update("lora");
        all.update(lora.digest()?);
    }
    Ok(all.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes the records of a request's pictures.
pub struct Recorder {
    spec: Spec,
    /// Those of the file's list that can be used here.
    providers: Vec<String>,
    runtime: String,
    task: &'static str,
    scheduler: &'static str,
    strength: Option<f64>,
    guidance_scale: f64,
    steps: usize,
    /// The digests of the files that the pipeline begins with, once they are known.
    inputs: Option<BTreeMap<String, String>>,
    /// The component that decodes, where it is not the first stage's own.
    decoder: Option<String>,
    /// Reads every file of the models, which for a large one takes seconds that the run need not wait for.
    digests: Digesting,
    /// What stages do with the pictures, but for their digests.
    stages: Vec<StageRecord>,
}

/// One digest a stage, that of the file's own tables first.
enum Digesting {
    Working(Background<Result<Vec<String>>>),
    Done(Vec<String>),
}

impl Recorder {
    /// Takes down what all pictures of a plan have in common, and begins to digest the model's files in a thread of
    /// its own.
    pub fn new(plan: &Plan, runtime: &Runtime) -> Self {
        let models: Vec<_> =
            std::iter::once(&plan.model).chain(plan.stages.iter().map(|stage| &stage.model)).cloned().collect();
        let digests =
            Digesting::Working(threads::background("digests", move || models.iter().map(model_digest).collect()));
        Self::with(plan, runtime.version().to_owned(), digests)
    }

    /// The same for another plan on the same models, runtime and files.
    pub fn of(self, plan: &Plan) -> Self {
        Self { inputs: self.inputs, ..Self::with(plan, self.runtime, self.digests) }
    }

    fn with(plan: &Plan, runtime: String, digests: Digesting) -> Self {
        let stages = plan.stages.iter().map(|stage| StageRecord {
            hand: stage.hand.name().to_owned(),
            model: name_of(&stage.model.dir),
            model_digest: String::new(),
            task: stage.request.task.name().to_owned(),
            scheduler: stage.request.scheduler.entry.name.to_owned(),
            steps: stage.request.steps,
            guidance_scale: stage.request.task.guidance_scale(&stage.model.model),
            strength: strength(&stage.request),
            denoising_start: stage.request.denoising_start,
            decoder: decoder(&stage.model),
            fewer_evaluations: None,
        });
        Self {
            spec: plan.spec.clone(),
            providers: plan.model.device.providers.clone(),
            runtime,
            task: plan.request.task.name(),
            scheduler: plan.request.scheduler.entry.name,
            strength: strength(&plan.request),
            guidance_scale: plan.request.task.guidance_scale(&plan.model.model),
            steps: plan.request.steps,
            inputs: None,
            decoder: decoder(&plan.model),
            digests,
            stages: stages.collect(),
        }
    }

    /// The user's number of steps.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The record of one picture.
    ///
    /// # Errors
    /// [`Error::Io`] where a file of the model cannot be read.
    pub fn record(&mut self, picture: &Picture) -> Result<Record> {
        let mut digests = self.model_digests()?.into_iter();
        let model_digest = digests.next().unwrap_or_default();
        let stages = self.stage_records(picture, digests);
        if self.inputs.is_none() {
            self.inputs = Some(self.spec.input_digests()?);
        }
        let (pipeline, index) = self.own_spec(picture);
        Ok(Record {
            schema: metadata::SCHEMA,
            engine: concat!("ldm-ort ", env!("CARGO_PKG_VERSION")).to_owned(),
            runtime: self.runtime.clone(),
            providers: self.providers.clone(),
            model: name_of(&self.spec.model.path),
            model_digest,
            task: self.task.to_owned(),
            prompt: picture.prompt.clone(),
            negative_prompt: picture.negative_prompt.clone(),
            scheduler: self.scheduler.to_owned(),
            steps: self.steps(),
            guidance_scale: self.guidance_scale,
            strength: self.strength,
            seed: picture.seed,
            width: picture.pixels.width(),
            height: picture.pixels.height(),
            pipeline: pipeline.to_toml(),
            index,
            decoder: self.decoder.clone(),
            inputs: self.inputs.clone().unwrap_or_default(),
            fewer_evaluations: fewer_evaluations(&self.spec, picture.evaluations.first()),
            stages,
        })
    }

    /// The records of the stages that a picture went through.
    fn stage_records(&self, picture: &Picture, digests: impl Iterator<Item = String>) -> Vec<StageRecord> {
        let specs = self.spec.stages.iter().map(|stage| &stage.spec);
        let own = self.stages.iter().zip(specs).zip(digests).take(picture.stages);
        let own = own.enumerate().map(|(at, ((stage, spec), model_digest))| StageRecord {
            model_digest,
            fewer_evaluations: fewer_evaluations(spec, picture.evaluations.get(at + 1)),
            ..stage.clone()
        });
        own.collect()
    }

    fn model_digests(&mut self) -> Result<Vec<String>> {
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

    /// The pipeline that makes one picture of a request by itself: its prompt alone, its seed. Where noise or latents
    /// were given for all pictures the whole pipeline is kept, and the index tells which of its pictures this one is.
    fn own_spec(&self, picture: &Picture) -> (Spec, usize) {
        let mut own = self.spec.clone();
        own.go_through(picture.stages);
        if own.shares_a_file() {
            return (own, picture.index);
        }
        own.keep_only(picture.index, picture.seed);
        (own, 0)
    }
}

/// The component that decodes, where it is not the first stage's own.
fn decoder(model: &ModelPlan) -> Option<String> {
    model.decoder.as_ref().filter(|_| model.decodes_small()).map(|part| part.kind.name().to_owned())
}

fn name_of(model: &Path) -> String {
    model.file_name().unwrap_or(model.as_os_str()).to_string_lossy().into_owned()
}

/// What came of a `[cache.NAME]` or a `guidance_interval` of these tables, where there is one.
fn fewer_evaluations(spec: &Spec, evaluations: Option<&Evaluations>) -> Option<FewerEvaluations> {
    let &Evaluations { made, outer, of } = evaluations.filter(|_| spec.asks_for_fewer_evaluations())?;
    let json = |value| match value {
        Value::Number(value) => value.into(),
        Value::Whole(value) => value.into(),
        Value::Switch(value) => value.into(),
    };
    let cache = spec.cache.as_ref().map(|cache| CacheRecord {
        method: cache.entry().name.to_owned(),
        parameters: cache.parameters().map(|(name, value)| (name.to_owned(), json(value))).collect(),
    });
    Some(FewerEvaluations { made, outer, of, guidance_interval: spec.task.guidance_interval(), cache })
}

/// The strength that a run goes by.
fn strength(request: &Request) -> Option<f64> {
    request.task.strength().filter(|_| request.denoising_start.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_short_and_readable() {
        assert_eq!(slug("A red circle, above: a blue square!"), "a-red-circle-above-a-blue-square");
        assert_eq!(slug("  "), "picture");
        assert_eq!(slug("../../etc/passwd"), "etc-passwd");
        assert!(slug(&"long ".repeat(50)).len() <= 60);
        assert!(slug(&"x".repeat(500)).len() <= 60);
        assert!(slug(&"𝒳".repeat(500)).len() <= 60);
    }
}
