//! The predicted original sample, compared with diffusers' `pred_original_sample`.

use crate::common::root;

use ldm_ort::scheduler::{self, Config, ScheduleRequest};
use serde_json::Value;

use super::golden::number;
use super::stream::{LENGTH, Stream};

fn numbers(row: &Value, key: &str) -> Vec<f32> {
    row[key].as_array().into_iter().flatten().filter_map(Value::as_f64).map(|v| v as f32).collect()
}

#[test]
fn every_x0_equals_diffusers() {
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
            let (sample, model_output, expected) =
                (numbers(row, "sample"), numbers(row, "answer"), numbers(row, "image"));
            let mut x0 = vec![0.0; sample.len()];
            scheduler.predict_x0(step, &model_output, &sample, &mut x0);
            let largest = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
            let error = x0.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(
                !expected.is_empty() && error <= 1e-5 * largest,
                "{name} {config:?} step {step}: {x0:?} {expected:?}"
            );
        }
    }
}

/// For every scheduler: if a sample mixes x0 and noise, and the model output is that noise, the predicted original
/// sample is x0. Predicting it does not change the run.
#[test]
fn every_scheduler_recovers_x0_from_its_samples() {
    for entry in scheduler::table().iter() {
        // Schedulers without prediction_type, and EDM's with scaled outputs, are only tested for not changing the run.
        let predicts_noise = entry.has_key("prediction_type") && entry.name != "scm" && !entry.name.starts_with("edm");
        let table: Config =
            predicts_noise.then(|| ("prediction_type".to_owned(), Value::from("epsilon"))).into_iter().collect();
        let mut scheduler =
            scheduler::build(entry.name, None, &table, &ScheduleRequest::new(6, 2)).expect("it is built");
        let calls = scheduler.timesteps().len();
        let mut stream = Stream::new(9);
        let (x0, noise) = (stream.take(LENGTH), stream.take(LENGTH));
        let mut sample = vec![0.0; LENGTH];
        let mut predicted = vec![0.0; LENGTH];
        for step in 0..calls {
            scheduler.add_noise(step, &x0, &noise, &mut sample);
            scheduler.predict_x0(step, &noise, &sample, &mut predicted);
            let mut factors = [0.0; 2];
            scheduler.add_noise(step, &[1.0, 0.0], &[0.0, 1.0], &mut factors);
            // The rounding error of x0 recovered from a noisy sample.
            let tolerance = 1e-5 * (1.0 + factors[1] / factors[0]);
            let error = predicted.iter().zip(&x0).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(!predicts_noise || error <= tolerance, "{} step {step}: {error} of {tolerance}", entry.name);
        }
        let mut other = scheduler::build(entry.name, None, &table, &ScheduleRequest::new(6, 2)).expect("it is built");
        let mut x = stream.take(LENGTH);
        let (mut y, model_output) = (x.clone(), stream.take(LENGTH));
        let mut streams = [Stream::new(3), Stream::new(3)];
        for step in 0..calls.min(3) {
            scheduler.predict_x0(step, &model_output, &x, &mut predicted);
            scheduler.step(step, &model_output, &mut x, &mut streams[0]).expect("it steps");
            other.step(step, &model_output, &mut y, &mut streams[1]).expect("it steps");
            assert_eq!(x, y, "{}", entry.name);
        }
    }
}
