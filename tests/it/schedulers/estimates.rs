//! The image that a model's answer stands for, as diffusers' `pred_original_sample` has it.

use crate::common::root;

use ldm_ort::scheduler::{self, Config, ScheduleRequest};
use serde_json::Value;

use super::golden::number;
use super::stream::{LENGTH, Stream};

fn numbers(row: &Value, key: &str) -> Vec<f32> {
    row[key].as_array().into_iter().flatten().filter_map(Value::as_f64).map(|v| v as f32).collect()
}

#[test]
fn every_estimate_is_that_of_diffusers() {
    let path = root().join("tests/golden/previews/estimates.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cases: Vec<Value> = serde_json::from_str(&text).expect("it is JSON");
    assert!(cases.len() >= 20, "{} cases", cases.len());
    for case in &cases {
        let (name, config) = (case["scheduler"].as_str().unwrap_or_default(), case["config"].as_object());
        let request = ScheduleRequest::new(number(case, "steps"), 1);
        let scheduler = scheduler::build(name, config, &Config::new(), &request).expect("it is built");
        let rows = case["rows"].as_array().expect("there are rows");
        assert_eq!(rows.len(), scheduler.timesteps().len(), "{name}");
        for (step, row) in rows.iter().enumerate() {
            let (sample, answer, wanted) = (numbers(row, "sample"), numbers(row, "answer"), numbers(row, "image"));
            let mut image = vec![0.0; sample.len()];
            scheduler.estimate(step, &answer, &sample, &mut image);
            let largest = wanted.iter().fold(0f32, |most, v| most.max(v.abs()));
            let apart = image.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(
                !wanted.is_empty() && apart <= 1e-5 * largest,
                "{name} {config:?} step {step}: {image:?} {wanted:?}"
            );
        }
    }
}

/// Whatever the scheduler: of a sample that is an image and noise, and an answer that is the truth about them, the
/// estimate is the image, and to ask for it changes nothing.
#[test]
fn every_scheduler_finds_the_image_in_its_own_samples() {
    for entry in scheduler::table().iter() {
        // Of those without a choice, and of EDM's, whose answers are scaled, only the second half of this is asked.
        let answers_noise = entry.has_key("prediction_type") && entry.name != "scm" && !entry.name.starts_with("edm");
        let table: Config =
            answers_noise.then(|| ("prediction_type".to_owned(), Value::from("epsilon"))).into_iter().collect();
        let mut scheduler =
            scheduler::build(entry.name, None, &table, &ScheduleRequest::new(6, 2)).expect("it is built");
        let calls = scheduler.timesteps().len();
        let mut stream = Stream::new(9);
        let (image, noise) = (stream.take(LENGTH), stream.take(LENGTH));
        let mut sample = vec![0.0; LENGTH];
        let mut estimate = vec![0.0; LENGTH];
        for step in 0..calls {
            scheduler.add_noise(step, &image, &noise, &mut sample);
            scheduler.estimate(step, &noise, &sample, &mut estimate);
            let mut level = [0.0; 2];
            scheduler.add_noise(step, &[1.0, 0.0], &[0.0, 1.0], &mut level);
            // What rounding of the sample leaves of an image that is drowned in noise.
            let lost = 1e-5 * (1.0 + level[1] / level[0]);
            let apart = estimate.iter().zip(&image).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(!answers_noise || apart <= lost, "{} step {step}: {apart} of {lost}", entry.name);
        }
        let mut other = scheduler::build(entry.name, None, &table, &ScheduleRequest::new(6, 2)).expect("it is built");
        let mut x = stream.take(LENGTH);
        let (mut y, answer) = (x.clone(), stream.take(LENGTH));
        let mut streams = [Stream::new(3), Stream::new(3)];
        for step in 0..calls.min(3) {
            scheduler.estimate(step, &answer, &x, &mut estimate);
            scheduler.step(step, &answer, &mut x, &mut streams[0]).expect("it steps");
            other.step(step, &answer, &mut y, &mut streams[1]).expect("it steps");
            assert_eq!(x, y, "{}", entry.name);
        }
    }
}
