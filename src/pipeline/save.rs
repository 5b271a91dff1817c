//! Finished pictures on disk, with the record they can be made again from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use sha2::{Digest, Sha256};

use super::Picture;
use crate::denoise::Evaluations;
use crate::denoise::cache::Value;
use crate::error::{Error, Result};
use crate::image::save_png;
use crate::metadata::{self, CacheRecord, FewerEvaluations, Record};
use crate::plan::{ModelPlan, Plan};
use crate::prepared;
use crate::session::Runtime;
use crate::spec::{Output, Run, Spec};

/// Writes pictures into a folder.
#[derive(Debug, Clone)]
pub struct Saver {
    dir: PathBuf,
    suffix: &'static str,
}

impl Saver {
    /// Makes the folder where there is none, so that a wrong path is known before the work is done.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Input`] where there can be no such folder.
    pub fn new(dir: &Path) -> Result<Self> {
        Self::check(dir)?;
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, "making the folder", e))?;
        Ok(Self { dir: dir.to_path_buf(), suffix: "" })
    }

    /// The same folder, with this at the end of every name.
    pub fn with_suffix(&self, suffix: &'static str) -> Self {
        Self { dir: self.dir.clone(), suffix }
    }

    /// Requires that `dir` is a folder or can become one, and makes none.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file that stands in the place of it or of a folder above it.
    pub fn check(dir: &Path) -> Result<()> {
        match dir.ancestors().find(|path| path.exists()) {
            Some(there) if !there.is_dir() => Err(Error::input(
                "output.dir",
                format!("{} is a file, and pictures need a folder", there.display()),
                "choose another folder, or move the file away",
            )),
            _ => Ok(()),
        }
    }

    /// Writes a picture, whole or not at all, and returns its path.
    ///
    /// The name is made of the prompt and the seed. A file of that name with other contents is kept, and the new one
    /// gets a number.
    ///
    /// # Errors
    /// [`Error::Io`] where the picture cannot be written, the disk being full for example.
    pub fn save(&self, picture: &Picture, record: &Record) -> Result<PathBuf> {
        let stem = format!("{}-{}{}", slug(&picture.prompt), picture.seed, self.suffix);
        let png = crate::image::encode_png(&picture.pixels, &record.chunks()?)?;
        let mut path = self.dir.join(format!("{stem}.png"));
        let mut number = 2;
        while path.exists() && std::fs::read(&path).map_or(true, |there| there != png) {
            path = self.dir.join(format!("{stem}-{number}.png"));
            number += 1;
        }
        save_png(&path, &png)?;
        Ok(path)
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
    runtime: String,
    task: &'static str,
    scheduler: &'static str,
    strength: Option<f64>,
    guidance_scale: f64,
    /// The digests of the files that the pipeline begins with, once they are known.
    inputs: Option<BTreeMap<String, String>>,
    /// Reads every file of the model, which for a large one takes seconds that the run need not wait for.
    digest: Digesting,
}

enum Digesting {
    Working(JoinHandle<Result<String>>),
    Done(String),
}

impl Recorder {
    /// Takes down what all pictures of a plan have in common, and begins to digest the model's files in a thread of
    /// its own.
    pub fn new(plan: &Plan, runtime: &Runtime) -> Self {
        let model = plan.model.clone();
        let digest = Digesting::Working(std::thread::spawn(move || model_digest(&model)));
        Self::with(plan, runtime.version().to_owned(), digest)
    }

    /// The same for another plan on the same model, runtime and files.
    pub fn of(self, plan: &Plan) -> Self {
        Self { inputs: self.inputs, ..Self::with(plan, self.runtime, self.digest) }
    }

    fn with(plan: &Plan, runtime: String, digest: Digesting) -> Self {
        Self {
            spec: plan.spec.clone(),
            runtime,
            task: plan.request.task.name(),
            scheduler: plan.request.scheduler.entry.name,
            strength: plan.request.task.strength().filter(|_| plan.request.denoising_start.is_none()),
            guidance_scale: plan.request.task.guidance_scale(),
            inputs: None,
            digest,
        }
    }

    /// The user's number of steps.
    pub fn steps(&self) -> usize {
        self.spec.run.steps.unwrap_or(Run::DEFAULT_STEPS)
    }

    /// The record of one picture.
    ///
    /// # Errors
    /// [`Error::Io`] where a file of the model cannot be read.
    pub fn record(&mut self, picture: &Picture) -> Result<Record> {
        let model_digest = self.model_digest()?;
        if self.inputs.is_none() {
            self.inputs = Some(self.spec.input_digests()?);
        }
        let (pipeline, index) = self.own_spec(picture);
        let model = &self.spec.model.path;
        Ok(Record {
            schema: metadata::SCHEMA,
            engine: concat!("ldm-ort ", env!("CARGO_PKG_VERSION")).to_owned(),
            runtime: self.runtime.clone(),
            providers: self.spec.device.providers.clone(),
            model: model.file_name().unwrap_or(model.as_os_str()).to_string_lossy().into_owned(),
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
            inputs: self.inputs.clone().unwrap_or_default(),
            fewer_evaluations: self.fewer_evaluations(picture),
        })
    }

    fn fewer_evaluations(&self, picture: &Picture) -> Option<FewerEvaluations> {
        if !self.spec.asks_for_fewer_evaluations() {
            return None;
        }
        let Evaluations { made, of } = picture.evaluations;
        let json = |value| match value {
            Value::Number(value) => value.into(),
            Value::Whole(value) => value.into(),
            Value::Switch(value) => value.into(),
        };
        let cache = self.spec.cache.as_ref().map(|cache| CacheRecord {
            method: cache.entry().name.to_owned(),
            parameters: cache.parameters().map(|(name, value)| (name.to_owned(), json(value))).collect(),
        });
        Some(FewerEvaluations { made, of, guidance_interval: self.spec.task.guidance_interval(), cache })
    }

    fn model_digest(&mut self) -> Result<String> {
        if let Digesting::Done(digest) = &self.digest {
            return Ok(digest.clone());
        }
        let digest = match std::mem::replace(&mut self.digest, Digesting::Done(String::new())) {
            Digesting::Done(digest) => digest,
            Digesting::Working(thread) => thread
                .join()
                .map_err(|_| Error::model(&self.spec.model.path, "digesting the model's files failed", ""))??,
        };
        self.digest = Digesting::Done(digest.clone());
        Ok(digest)
    }

    /// The pipeline that makes one picture of a request by itself: its prompt alone, its seed. Where noise or latents
    /// were given for all pictures the whole pipeline is kept, and the index tells which of its pictures this one is.
    fn own_spec(&self, picture: &Picture) -> (Spec, usize) {
        let mut own = self.spec.clone();
        own.output = Output::default();
        if own.shares_a_file() {
            return (own, picture.index);
        }
        own.run.seed = Some(picture.seed);
        own.run.images = 1;
        own.task.keep_only(picture.index / self.spec.run.images.max(1));
        (own, 0)
    }
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
