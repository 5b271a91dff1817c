//! Steps as linear combinations: whole runs made of them equal those of the schedulers themselves.

use super::stream::{IMAGES, LENGTH, Stream, difference, model};
use super::table_of;
use ldm_ort::scheduler::{self, Config, LinearSteps, ScheduleRequest, Scheduler, SchedulerEntry};
use serde_json::json;
use std::ops::Range;

/// Configurations beside each scheduler's own. Keys that a class does not have are left out.
fn tables() -> Vec<Config> {
    let mut tables = vec![table_of(&[])];
    for order in [1, 3] {
        tables.push(table_of(&[
            ("solver_order", json!(order)),
            ("order", json!(order)),
            ("use_karras_sigmas", json!(true)),
        ]));
    }
    tables.push(table_of(&[
        ("prediction_type", json!("v_prediction")),
        ("skip_prk_steps", json!(true)),
        ("eta", json!(0.7)),
    ]));
    tables.push(table_of(&[("algorithm_type", json!("sde-dpmsolver++"))]));
    tables
}

/// The table without clipping and with the keys that the class has; `None` for values that it does not take.
fn fitted(entry: &SchedulerEntry, table: &Config, steps: usize) -> Option<Config> {
    let mut table: Config = table.clone().into_iter().filter(|(key, _)| entry.has_key(key)).collect();
    if entry.has_key("clip_sample") {
        table.insert("clip_sample".into(), false.into());
    }
    scheduler::build(entry.name, None, &table, &ScheduleRequest::new(steps, IMAGES)).ok()?;
    Some(table)
}

fn built(entry: &SchedulerEntry, table: &Config, steps: usize, images: usize) -> Box<dyn Scheduler> {
    scheduler::build(entry.name, None, table, &ScheduleRequest::new(steps, images)).expect("it builds")
}

/// Runs the scheduler itself over `span`, with a mask that keeps some values of the sample at a constant.
fn own_run(scheduler: &mut dyn Scheduler, span: Range<usize>, mut x: Vec<f32>, mut noise: Stream) -> Vec<f32> {
    for step in span {
        let mut input = vec![0.0; x.len()];
        scheduler.scale_model_input(step, &x, &mut input);
        let output = model(&input, scheduler.timesteps()[step], false);
        scheduler.step(step, &output, &mut x, &mut noise).expect("it steps");
        x.iter_mut().step_by(5).for_each(|value| *value = 0.25);
    }
    x
}

/// Runs its combinations over the same.
fn combined_run(found: &LinearSteps, added: &[Vec<f32>], mut x: Vec<f32>) -> Vec<f32> {
    let (mut samples, mut outputs, mut unchanged) = (Vec::new(), Vec::new(), x.clone());
    for (step, added) in found.steps.iter().zip(added) {
        let input: Vec<f32> = x.iter().map(|value| value * step.input_scale).collect();
        outputs.insert(0, model(&input, step.timestep, false));
        samples.insert(0, x.clone());
        let terms: Vec<(&f32, &Vec<f32>)> =
            step.samples.iter().zip(&samples).chain(step.outputs.iter().zip(&outputs)).collect();
        for (i, value) in x.iter_mut().enumerate() {
            let sum: f32 = terms.iter().map(|(weight, values)| *weight * values[i]).sum();
            *value = sum + step.unchanged * unchanged[i] + added[i];
        }
        unchanged.clone_from(&x);
        x.iter_mut().step_by(5).for_each(|value| *value = 0.25);
    }
    x
}

#[test]
fn combinations_make_the_runs_of_every_scheduler() {
    let mut compared = 0;
    for entry in scheduler::table() {
        for (table, steps) in tables().iter().flat_map(|table| [5, 20].map(|steps| (table, steps))) {
            let Some(table) = fitted(entry, table, steps) else { continue };
            let calls = built(entry, &table, steps, 1).timesteps().len();
            for begin in [0, entry.order * 2] {
                let span = begin..calls;
                let start = Stream::new(1).take(LENGTH);
                let fresh = |images| built(entry, &table, steps, images);
                let own = own_run(fresh(IMAGES).as_mut(), span.clone(), start.clone(), Stream::new(9));
                if own.iter().any(|value| !value.is_finite()) {
                    // A combination of keys that diffusers' class cannot compute either.
                    continue;
                }
                let found = LinearSteps::find(|| Ok(fresh(1)), span.clone(), 1).expect("it steps");
                let Some(found) = found else {
                    // A run from an image begins where the signal is thousands of times the noise.
                    assert!(entry.inverse, "{} with {table:?} is not linear", entry.name);
                    continue;
                };
                let mut added = Vec::new();
                let take = |term: &[f32]| {
                    added.push(term.to_vec());
                    Ok(())
                };
                found.noise_terms(fresh(IMAGES).as_mut(), span, LENGTH, &mut Stream::new(9), take).expect("it steps");
                let combined = combined_run(&found, &added, start);
                let off = difference(&combined, &own);
                assert!(off < 2e-5, "{} with {table:?}, {steps} steps from {begin}: {off}", entry.name);
                compared += 1;
            }
        }
        let table = fitted(entry, &Config::new(), 5).expect("it builds");
        let found = LinearSteps::find(|| Ok(built(entry, &table, 5, 1)), 0..5, 1).expect("it steps");
        assert!(found.is_none_or(|found| found.draws_noise || !entry.stochastic), "{}", entry.name);
    }
    assert!(compared > 250, "{compared}");
}

#[test]
fn clipping_is_not_linear() {
    for (name, keys, span) in [
        ("ddim", vec![("clip_sample", true.into())], 0..8),
        ("ddpm", vec![("clip_sample", true.into())], 0..8),
        // Late steps, at which the predicted original sample is near the sample.
        ("ddim", vec![("clip_sample", true.into()), ("clip_sample_range", json!(9.0))], 7..8),
        ("dpm-multistep", vec![("thresholding", true.into())], 0..8),
        ("dpm-multistep", vec![("thresholding", true.into()), ("sample_max_value", json!(50.0))], 6..8),
    ] {
        let table = table_of(&keys);
        let entry = scheduler::find(name).expect("it is known");
        let found = LinearSteps::find(|| Ok(built(entry, &table, 8, 1)), span, 1).expect("it steps");
        assert_eq!(found, None, "{name} {table:?}");
    }
}

#[test]
fn noise_that_depends_on_predicted_variances_is_not_linear() {
    for (kind, is_linear) in [("learned_range", false), ("learned", false), ("fixed_small", true)] {
        let table = table_of(&[("variance_type", kind.into()), ("clip_sample", false.into())]);
        let entry = scheduler::find("ddpm").expect("it is known");
        let found = LinearSteps::find(|| Ok(built(entry, &table, 8, 1)), 0..8, 2).expect("it steps");
        assert_eq!(found.is_some(), is_linear, "{kind}");
    }
}
