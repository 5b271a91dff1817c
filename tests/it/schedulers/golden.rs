//! Comparison of every step of every recorded configuration: one value of each image, in turn, and the whole last sample.

use super::stream::{IMAGES, LENGTH, Stream, difference, model};
use crate::common::root;
use ldm_ort::scheduler::{self, Config, CustomSchedule, ScheduleRequest, SchedulerEntry, SchedulerKeyKind};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest difference from diffusers, relative to the largest magnitude of a tensor.
const TOLERANCE: f64 = 1e-5;

/// Recorded runs whose result in diffusers depends on the CPU, each with its scheduler, its seed and the difference (as
/// reported by the recording script's `--against`). torch computes square roots with MKL, which rounds one in 150
/// incorrectly with AVX-512, one in six with `MKL_CBWR=COMPATIBLE` and none with `ATEN_CPU_CAPABILITY=default`. That
/// unit in the last place matters where numbers cancel: with cosine betas the last timestep has an alpha of 2.4e-9, and
/// PNDM of a velocity multiplies by its inverse root before taking the difference. (SA-Solver's fourth order cancels
/// too: one run in forty of a wider grid moves by more than the tolerance between those three.)
const UNSTEADY: &[(&str, u64, f64)] = &[("pndm", 2_042_959_697, 2.4e-3)];

fn section(case: &Value, name: &str) -> Config {
    case.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
}

pub fn number(case: &Value, name: &str) -> usize {
    case.get(name).and_then(Value::as_u64).unwrap_or(0) as usize
}

/// Of the values of an image, the one in so many that is recorded of all samples but the last: another each time.
const EACH: usize = LENGTH / IMAGES;

/// The largest difference of some values of a sample, relative to the largest magnitude of the sample.
fn apart_of(sample: &[f32], got: &[f32], expected: &[f32]) -> f64 {
    let largest =
        |values: &[f32]| values.iter().map(|v| f64::from(v.abs())).fold(f64::from(f32::MIN_POSITIVE), f64::max);
    difference(got, expected) * largest(expected) / largest(sample).max(largest(expected))
}

/// Replays one recorded run and returns the worst difference, relative to the largest magnitude of its tensor.
fn replay(case: &Value, recorded: &[f32]) -> Result<f64, String> {
    let mut table = section(case, "table");
    table.extend(section(case, "arguments"));
    let name = case["name"].as_str().ok_or("no name")?;
    let mut request = ScheduleRequest::new(number(case, "steps"), IMAGES);
    request.mu = case.get("mu").and_then(Value::as_f64);
    let list = |key: &str| Some(case.get(key)?.as_array()?.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
    request.custom =
        list("timesteps").map(CustomSchedule::Timesteps).or_else(|| list("sigmas").map(CustomSchedule::Sigmas));
    let built = scheduler::build(name, Some(&section(case, "config")), &table, &request);
    let mut scheduler = built.map_err(|error| error.to_string())?;
    let learned = case.get("learned").and_then(Value::as_bool).unwrap_or(false);
    let mut stream = Stream::new(case["seed"].as_u64().ok_or("no seed")?);
    let begin = number(case, "begin");
    let calls = scheduler.timesteps().len();

    let mut x = if begin > 0 {
        let x0: Vec<f32> = stream.take(LENGTH).into_iter().map(|v| v * 0.5).collect();
        let noise = stream.take(LENGTH);
        let mut x = vec![0.0; LENGTH];
        scheduler.add_noise(begin, &x0, &noise, &mut x);
        x
    } else {
        let sigma = scheduler.init_noise_sigma() as f32;
        stream.take(LENGTH).into_iter().map(|v| v * sigma).collect()
    };
    if case.get("refused").is_some() {
        let mut input = vec![0.0; LENGTH];
        for step in begin..calls {
            scheduler.scale_model_input(step, &x, &mut input);
            let output = model(&input, scheduler.timesteps()[step], learned);
            scheduler.step(step, &output, &mut x, &mut stream).map_err(|error| error.to_string())?;
        }
        return Ok(0.0);
    }
    if calls != number(case, "calls") {
        return Err(format!("expected {} evaluations, found {calls}", number(case, "calls")));
    }

    let mut at = 0;
    let mut next = |n: usize| {
        at += n;
        &recorded[at - n..at]
    };
    let sigma = next(1)[0];
    let mut worst = difference(&[scheduler.init_noise_sigma() as f32], &[sigma]);
    let timesteps: Vec<f32> = scheduler.timesteps().iter().map(|t| *t as f32).collect();
    let expected = next(calls);
    for (got, expected) in timesteps.iter().zip(expected) {
        if (got - expected).abs() > 1e-5 * expected.abs().max(1.0) {
            return Err(format!("timesteps {timesteps:?} are not {expected:?}"));
        }
    }
    let mut apart = |sample: usize, x: &[f32]| {
        let is_last = sample == calls - begin;
        let part: Vec<f32> =
            if is_last { x.to_vec() } else { x.iter().skip(sample % EACH).step_by(EACH).copied().collect() };
        if x.iter().any(|v| !v.is_finite()) { f64::INFINITY } else { apart_of(x, &part, next(part.len())) }
    };
    worst = worst.max(apart(0, &x));
    let mut input = vec![0.0; LENGTH];
    for step in begin..calls {
        scheduler.scale_model_input(step, &x, &mut input);
        let output = model(&input, scheduler.timesteps()[step], learned);
        scheduler.step(step, &output, &mut x, &mut stream).map_err(|error| error.to_string())?;
        let error = apart(step + 1 - begin, &x);
        if error.is_infinite() {
            return Err(format!("not finite after step {step}"));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

/// Returns the folder of recordings, which an environment variable can override.
fn folder() -> PathBuf {
    std::env::var_os("LDM_ORT_GOLDEN_SCHEDULERS").map_or_else(|| root().join("tests/golden/schedulers"), PathBuf::from)
}

/// Reads the recording of a scheduler: the runs, one JSON object per line, and the values of all runs one after the
/// other.
fn read_recording(folder: &Path, name: &str) -> Option<(String, Vec<f32>)> {
    let file = std::fs::File::open(folder.join(format!("{name}.zip"))).ok()?;
    let mut archive = zip::ZipArchive::new(file).expect("a recording is a zip file");
    let mut member = |name: &str| {
        let mut bytes = Vec::new();
        archive.by_name(name).expect("a recording has two members").read_to_end(&mut bytes).expect("it unpacks");
        bytes
    };
    let lines = String::from_utf8(member("runs.jsonl")).expect("JSON is text");
    let planes = member("values.planes");
    let count = planes.len() / 4;
    let value = |at: usize| f32::from_le_bytes([0, 1, 2, 3].map(|byte| planes[byte * count + at]));
    Some((lines, (0..count).map(value).collect()))
}

/// The results for one scheduler.
#[derive(Default)]
struct SchedulerResults {
    configurations: usize,
    refused: usize,
    unsteady: usize,
    values: usize,
    worst: f64,
    failures: Vec<String>,
}

fn check(folder: &Path, name: &str) -> SchedulerResults {
    let mut row = SchedulerResults::default();
    let Some((lines, values)) = read_recording(folder, name) else {
        row.failures.push(format!("{name}: no recording"));
        return row;
    };
    let mut at = 0;
    for line in lines.lines() {
        let case: Value = serde_json::from_str(line).expect("a line of JSON");
        let outcome = replay(&case, &values[at..]);
        row.configurations += 1;
        if case.get("refused").is_some() {
            row.refused += 1;
            if outcome.is_ok() {
                row.failures.push(format!("not refused: {line}"));
            }
            continue;
        }
        let calls = number(&case, "calls");
        at += 1 + calls + IMAGES * (calls - number(&case, "begin")) + LENGTH;
        match outcome {
            Ok(error) => {
                let unsteady = UNSTEADY.iter().find(|(scheduler, seed, _)| *scheduler == name && case["seed"] == *seed);
                if unsteady.is_some() {
                    row.unsteady += 1;
                } else {
                    row.worst = row.worst.max(error);
                }
                if error > unsteady.map_or(TOLERANCE, |(_, _, error)| *error) {
                    row.failures.push(format!("{error:.1e} off: {line}"));
                }
            }
            Err(problem) => row.failures.push(format!("{problem}: {line}")),
        }
    }
    assert_eq!(at, values.len(), "{name}: the recording's two members do not match");
    row.values = at;
    row
}

#[test]
fn every_step_equals_diffusers() {
    compare_with(&folder(), |_| true);
}

#[test]
fn every_step_of_a_custom_schedule_equals_diffusers() {
    let folder = root().join("tests/golden/custom-schedules");
    // diffusers does not accept lists for these schedulers.
    let ours_alone = ["lms", "euler-ancestral", "kdpm2", "kdpm2-ancestral", "dpm-sde"];
    compare_with(&folder, |entry| {
        (entry.custom_schedules.timesteps || entry.custom_schedules.sigmas.is_some())
            && !ours_alone.contains(&entry.name)
    });
}

/// Compares the selected schedulers with the recordings in a folder and prints a table of results.
fn compare_with(folder: &Path, chosen: impl Fn(&SchedulerEntry) -> bool) {
    let (mut failures, mut configurations, mut values) = (Vec::new(), 0, 0);
    println!(
        "{:<24}{:>16}{:>10}{:>10}{:>10}{:>12}",
        "scheduler", "configurations", "refused", "unsteady", "values", "worst"
    );
    for entry in scheduler::table().iter().filter(|entry| chosen(entry)) {
        let row = check(folder, entry.name);
        println!(
            "{:<24}{:>16}{:>10}{:>10}{:>10}{:>12.1e}",
            entry.name, row.configurations, row.refused, row.unsteady, row.values, row.worst
        );
        configurations += row.configurations;
        values += row.values;
        failures.extend(row.failures);
    }
    println!("{:<24}{configurations:>16}{:>10}{:>10}{values:>10}", "all", "", "");
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

/// Constructor arguments that are not keys here, with the reason.
const NOT_KEYS: &[(&str, &str)] = &[("tau_func", "a function; the keys tau, tau_start and tau_end replace it")];

/// Keys that are not in a constructor's signature: older names that it still accepts.
const OLDER_KEYS: &[&str] = &["set_alpha_to_zero"];

#[test]
fn every_key_of_every_class_is_there_with_its_default() {
    let text = std::fs::read_to_string(folder().join("keys.json")).expect("keys.json is recorded");
    let classes: BTreeMap<String, Config> = serde_json::from_str(&text).expect("keys.json is JSON");
    for entry in scheduler::table() {
        let expected = &classes[entry.class];
        for (name, default) in expected {
            if NOT_KEYS.iter().any(|(key, _)| key == name) {
                continue;
            }
            let key = entry.keys.iter().find(|key| key.name == name && !key.argument);
            let key = key.unwrap_or_else(|| panic!("{} lacks {name}", entry.class));
            let ours = match key.kind {
                SchedulerKeyKind::Count(n) | SchedulerKeyKind::Order { default: n, .. } => n.into(),
                SchedulerKeyKind::Integer(n) => n.into(),
                SchedulerKeyKind::Float(f) if f.is_infinite() => {
                    Value::from(if f > 0.0 { "Infinity" } else { "-Infinity" })
                }
                SchedulerKeyKind::Float(f) => f.into(),
                SchedulerKeyKind::Switch(on) => on.into(),
                SchedulerKeyKind::Choice { default, .. } => default.into(),
                // An empty list is none.
                SchedulerKeyKind::MaybeFloats if default.is_array() => Value::Array(Vec::new()),
                _ => Value::Null,
            };
            assert_eq!(&ours, default, "{} {name}", entry.class);
        }
        for key in entry.keys.iter().filter(|key| !key.argument && !OLDER_KEYS.contains(&key.name)) {
            assert!(expected.contains_key(key.name), "{} has no {}", entry.class, key.name);
        }
    }
}
