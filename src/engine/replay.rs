//! An image again from its record.

use std::path::Path;

use super::digests::configuration_digests;
use super::recorder::{arithmetic, is_optimized};
use super::{Pipeline, Request};
use crate::error::{Error, Problem, Result};
use crate::metadata::{self, Record, compare_files};
use crate::plan::ExecutionPlan;
use crate::spec::{Overrides, RecordNames, RecordedSpec, Spec};

/// The record of an image that is made again, held against the run that makes it.
pub struct Replay {
    record: Record,
    names: RecordNames,
}

impl Replay {
    /// Reads the record in an image and the pipeline in the record, with flags over it. Says what of it is ignored.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no record or no run can follow it; [`Error::Spec`] for everything in it that reaches
    /// outside of the current directory or is not there, with the flag that gives it anew.
    pub fn read(image: &Path, overrides: &Overrides) -> Result<(Self, Spec, Vec<String>)> {
        let record = metadata::read_record(image)?;
        if !record.unrecorded.is_empty() {
            return Err(Error::input(
                image.display().to_string(),
                format!("cannot be made again by --from: {}", record.unrecorded.join("; ")),
                "run the program that made it",
            ));
        }
        let RecordedSpec { spec, names, ignored } = Spec::from_record(&record.pipeline, image, overrides)?;
        let warnings = ignored.into_iter().chain(record.missing_digests_warning().map(str::to_owned)).collect();
        let missing: Vec<_> = spec.paths().into_iter().filter(|(_, path)| !path.exists()).collect();
        if missing.is_empty() {
            return Ok((Self { record, names }, spec, warnings));
        }
        let problem = |(key, path): (String, &Path)| {
            let anew = if key == "model.path" { "--model DIR".to_owned() } else { format!("--input {key}=PATH") };
            let message = format!("there is no {} here; give it anew: {anew}", path.display());
            Problem { file: Some(image.to_path_buf()), line: None, key, message }
        };
        Err(Error::Spec(missing.into_iter().map(problem).collect()))
    }

    /// The request that makes the one image again.
    pub fn request(&self, spec: &Spec) -> Request {
        // If the images share a file, the record holds the whole pipeline, and this is one of its images.
        if spec.shares_a_file() { Request::new().only(self.record.index) } else { Request::new() }
    }

    /// Prepares an open pipeline for making the image: its records name files as this one does. Returns a sentence for each
    /// of its files, weights aside, and for each property of the machine that is not the record's.
    ///
    /// # Errors
    /// [`Error::Io`] if one of the files cannot be read.
    pub fn prepare(&self, pipeline: &mut Pipeline) -> Result<Vec<String>> {
        pipeline.set_record_names(self.names.clone());
        let (record, plan) = (&self.record, pipeline.plan());
        let mut warnings = compare_files("", &record.inputs, &plan.spec.input_digests()?);
        if record.missing_digests_warning().is_none() {
            warnings.extend(compare_files("", &record.files, &configuration_digests(&plan.model)?));
            for (then, stage) in record.stages.iter().zip(&plan.stages) {
                warnings.extend(compare_files(&stage.key, &then.files, &configuration_digests(&stage.model)?));
            }
        }
        let version = pipeline.runtime().version();
        let precisions: Vec<_> = pipeline.models().map(ExecutionPlan::precision).collect();
        let arithmetic = arithmetic(is_optimized(pipeline.models()), &precisions);
        warnings.extend(record.compare_engine(version, &arithmetic, &plan.execution.device.providers));
        Ok(warnings)
    }

    /// A sentence for each of the weights that are not those of the record. They are known late: reading them all takes
    /// its time.
    pub fn differing_weights(&self, now: &Record) -> Vec<String> {
        let then = &self.record;
        let mut models = vec![("", &then.model_digest, &now.model_digest, &then.weights, &now.weights)];
        let keys: Vec<_> = (0..now.stages.len()).map(|at| format!("stage[{at}]")).collect();
        for ((then, now), key) in then.stages.iter().zip(&now.stages).zip(&keys) {
            models.push((key, &then.model_digest, &now.model_digest, &then.weights, &now.weights));
        }
        let mut told = Vec::new();
        for (key, then_whole, now_whole, then, now) in models {
            if !then.is_empty() {
                told.extend(compare_files(key, then, now));
            } else if then_whole != now_whole {
                let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
                told.push(format!(
                    "{key}the weights are not those that the image was made with; it will be another image"
                ));
            }
        }
        told
    }
}
