//! `ldm-ort run --from`: an image again from its record.

use std::path::Path;

use super::output;
use crate::error::{Error, Problem, Result};
use crate::execution::{Recorder, arithmetic, configuration_digests};
use crate::metadata::{self, Record, differing_files};
use crate::plan::Plan;
use crate::session::Runtime;
use crate::spec::{Overrides, RecordNames, RecordedSpec, Spec};

/// The record of an image that is made again, held against the run that makes it.
pub(super) struct Replay {
    record: Record,
    names: RecordNames,
}

impl Replay {
    /// Reads the record in an image and the pipeline in the record, with flags over it. Says what of it is ignored.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no record or no run can follow it; [`Error::Spec`] for everything in it that reaches
    /// outside of the current directory or is not there, with the flag that gives it anew.
    pub(super) fn read(image: &Path, overrides: &Overrides) -> Result<(Self, Spec)> {
        let record = metadata::read_png(image)?;
        if !record.unrecorded.is_empty() {
            return Err(Error::input(
                image.display().to_string(),
                format!("cannot be made again by --from: {}", record.unrecorded.join("; ")),
                "run the program that made it",
            ));
        }
        let RecordedSpec { spec, names, ignored } = Spec::from_record(&record.pipeline, image, overrides)?;
        warn(ignored.iter().map(String::as_str).chain(record.untold()));
        let missing: Vec<_> = spec.paths().into_iter().filter(|(_, path)| !path.exists()).collect();
        if missing.is_empty() {
            return Ok((Self { record, names }, spec));
        }
        let problem = |(key, path): (String, &Path)| {
            let anew = if key == "model.path" { "--model DIR".to_owned() } else { format!("--input {key}=PATH") };
            let message = format!("there is no {} here; give it anew: {anew}", path.display());
            Problem { file: Some(image.to_path_buf()), line: None, key, message }
        };
        Err(Error::Spec(missing.into_iter().map(problem).collect()))
    }

    /// Has the plan make the one image, and says which of its files, weights aside, are not those of the record.
    ///
    /// # Errors
    /// [`Error::Io`] if one of them cannot be read.
    pub(super) fn prepare(&self, plan: &mut Plan) -> Result<()> {
        let record = &self.record;
        // If the images share a file, the record holds the whole pipeline, and this is one of its images.
        plan.request.only = plan.spec.shares_a_file().then_some(record.index);
        warn(differing_files("", &record.inputs, &plan.spec.input_digests()?));
        if record.untold().is_none() {
            warn(differing_files("", &record.files, &configuration_digests(&plan.model)?));
            for (then, stage) in record.stages.iter().zip(&plan.stages) {
                warn(differing_files(&stage.key, &then.files, &configuration_digests(&stage.model)?));
            }
        }
        Ok(())
    }

    /// A recorder whose records have this one's names for files.
    pub(super) fn recorder(&self, recorder: Recorder) -> Recorder {
        recorder.with_names(self.names.clone())
    }

    /// Says what of the program and the machine is not as it was.
    pub(super) fn compare_engine(&self, plan: &Plan, runtime: &Runtime) {
        warn(self.record.differing_engine(runtime.version(), &arithmetic(plan), &plan.model.device.providers));
    }

    /// A sentence for each of the weights that are not those of the record. They are known late: reading them all takes
    /// its time.
    pub(super) fn differing_weights(&self, now: &Record) -> Vec<String> {
        let then = &self.record;
        let mut models = vec![("", &then.model_digest, &now.model_digest, &then.weights, &now.weights)];
        let keys: Vec<_> = (0..now.stages.len()).map(|at| format!("stage[{at}]")).collect();
        for ((then, now), key) in then.stages.iter().zip(&now.stages).zip(&keys) {
            models.push((key, &then.model_digest, &now.model_digest, &then.weights, &now.weights));
        }
        let mut told = Vec::new();
        for (key, then_whole, now_whole, then, now) in models {
            if !then.is_empty() {
                told.extend(differing_files(key, then, now));
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

/// Says warnings, a line each.
pub(super) fn warn(warnings: impl IntoIterator<Item = impl AsRef<str>>) {
    warnings.into_iter().for_each(|warning| output::say(&format!("warning: {}", warning.as_ref())));
}
