//! Proof that nothing is missing.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use toml::{Table, Value};

use super::definition::ImageBatch;
use super::key::Key;
use super::lines::InputLine;
use super::planner::{BatchPlanner, PlannedImage, PlannedRequest};
use super::whole::{EDGE, is_whole};
use crate::error::{Error, Result};
use crate::image::{InputLimit, Rgb8};
use crate::metadata::{self, Record};
use crate::session::Cancel;

/// The largest image that is decoded, in millions of pixels.
const MEGAPIXELS: usize = 4000;

/// Something that is missing or damaged.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The number of the input's line, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The index of the image in the request; absent if the line itself is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<usize>,
    /// The file of the image, below the batch's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The fault.
    pub problem: String,
}

/// The result of a verification, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Verification {
    /// Lines with a request, of all shards.
    pub lines: usize,
    /// Images of the shard; the same image in two lines counts once.
    pub images: usize,
    /// Images that are missing or damaged.
    pub faulty: usize,
    /// Lines that no image can be made for.
    pub failed: usize,
}

/// Checks every image of a batch's shard: it exists, decodes, and its record has the digests of the model and of input
/// files, the prompt, the seed, the steps and the scheduler of its request. Nothing is written, and ONNX Runtime isn't
/// needed.
///
/// # Errors
/// [`Error::Model`] for a model directory that cannot be read, [`Error::Io`] if the store cannot be read,
/// [`Error::Interrupted`], and the error of `report`.
pub fn verify(
    batch: &ImageBatch,
    lines: &[InputLine],
    cancel: &Cancel,
    report: &mut dyn FnMut(&Finding) -> Result<()>,
) -> Result<Verification> {
    let planner = BatchPlanner::new(&batch.engine, &batch.spec)?;
    let mut seen = HashSet::new();
    let mut result = Verification { lines: lines.len(), ..Verification::default() };
    for line in lines {
        let planned = match planner.plan(line) {
            Ok(planned) => planned,
            Err(error) if batch.shard.contains(Key::of(&line.identity())) => {
                result.failed += 1;
                report(&Finding { line: line.number, image: None, file: None, problem: error.to_string() })?;
                continue;
            }
            Err(_) => continue,
        };
        for image in planned.images.iter().filter(|image| batch.shard.contains(image.key)) {
            if cancel.is_cancelled() {
                return Err(Error::Interrupted { at_step: None });
            }
            if !seen.insert(image.key) {
                continue;
            }
            let file = image.key.file(batch.format);
            if let Some(problem) = problem_of(batch.store.get(&file)?, &file, &planned, image) {
                result.faulty += 1;
                report(&Finding { line: line.number, image: Some(image.image), file: Some(file), problem })?;
            }
        }
    }
    result.images = seen.len();
    Ok(result)
}

fn problem_of(bytes: Option<Vec<u8>>, file: &str, request: &PlannedRequest, image: &PlannedImage) -> Option<String> {
    let Some(bytes) = bytes else { return Some("is missing".to_owned()) };
    let edge = EDGE.min(bytes.len());
    if !is_whole(&bytes[..edge], &bytes[bytes.len() - edge..], bytes.len() as u64) {
        return Some("is truncated".to_owned());
    }
    let checked =
        Rgb8::decode(&bytes, InputLimit::new(MEGAPIXELS)).and_then(|_| metadata::record_in(&bytes, Path::new(file)));
    match checked {
        Ok(record) => difference(&record, request, image),
        Err(Error::Input { problem, .. }) => Some(problem),
        Err(error) => Some(error.to_string()),
    }
}

/// The first thing in a record that is not the request's.
fn difference(record: &Record, request: &PlannedRequest, image: &PlannedImage) -> Option<String> {
    let digests = |name: &str, expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>| {
        (expected != found).then(|| format!("its record has other digests of {name}"))
    };
    let of_stages = record.stages.iter().map(|stage| (&stage.weights, &stage.files));
    let models: Vec<_> = std::iter::once((&record.weights, &record.files)).chain(of_stages).collect();
    if models.len() != request.digests.len() {
        return Some(format!("its record has {} models, expected {}", models.len(), request.digests.len()));
    }
    for ((weights, files), own) in models.into_iter().zip(&request.digests) {
        let other = digests("the model's weights", &own.weights, weights);
        if let Some(problem) = other.or_else(|| digests("the model's files", &own.files, files)) {
            return Some(problem);
        }
    }
    let inputs = |inputs: &Table| -> BTreeMap<String, String> {
        let digest = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        inputs.iter().map(|(key, value)| (key.clone(), digest(value))).collect()
    };
    if let Some(problem) = digests("input files", &inputs(&request.inputs), &record.inputs) {
        return Some(problem);
    }
    let run = &request.plan.request;
    let prompts = run.task.prompting().map(|prompting| &prompting.prompts);
    let prompt = prompts.and_then(|prompts| prompts.get(image.image / run.images.max(1)));
    let facts = [
        ("seed", image.seed.to_string(), record.seed.to_string()),
        ("steps", run.steps.to_string(), record.steps.to_string()),
        ("scheduler", run.scheduler.entry.name.to_owned(), record.scheduler.clone()),
        ("prompt", prompt.unwrap_or(&record.prompt).clone(), record.prompt.clone()),
    ];
    let differs = |(_, expected, found): &&(&str, String, String)| expected != found;
    let (name, expected, found) = facts.iter().find(differs)?;
    Some(format!("its record has {name} {found}, expected {expected}"))
}
