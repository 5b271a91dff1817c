//! Caching methods with a model that records its evaluations.

use super::*;

/// Records the evaluations.
struct Model {
    evaluated: Vec<usize>,
    /// The evaluations of its shallow layers alone, if it has any.
    shallow: Option<Vec<usize>>,
    changes_at: Option<usize>,
    /// The output for a value of the sample at a fraction of the run.
    output: fn(f32, f32) -> f32,
}

impl Denoiser for Model {
    fn predict(&mut self, sample: &[f32], call: Call, prediction: &mut [f32]) -> Result<()> {
        self.evaluated.push(call.index);
        for (out, x) in prediction.iter_mut().zip(sample) {
            *out = (self.output)(*x, call.index as f32 / call.total as f32);
        }
        Ok(())
    }

    fn predict_shallow(&mut self, sample: &[f32], call: Call, prediction: &mut [f32]) -> Result<bool> {
        let Some(shallow) = &mut self.shallow else { return Ok(false) };
        shallow.push(call.index);
        for (out, x) in prediction.iter_mut().zip(sample) {
            *out = (self.output)(*x, call.index as f32 / call.total as f32);
        }
        Ok(true)
    }

    fn evaluations(&self) -> usize {
        self.evaluated.len()
    }

    fn changes_at(&self, call: Call) -> bool {
        self.changes_at == Some(call.index)
    }
}

fn cache(name: &str, parameters: &[(&str, CacheParameterValue)]) -> StepCache {
    let entry = table().iter().find(|entry| entry.name == name).expect("a row of the table");
    StepCache::new(entry, |key| parameters.iter().find(|(name, _)| *name == key.name).map(|(_, value)| *value))
}

/// Returns the indices of the model evaluations in a run whose sample changes slightly at each one.
fn evaluated(cache: &StepCache, calls: usize, order: usize, changes_at: Option<usize>) -> Vec<usize> {
    run(cache, calls, order, changes_at, |x, time| (x + time).sin()).0
}

/// Returns the same, and the largest difference of a prediction from the model's output.
fn run(
    cache: &StepCache,
    calls: usize,
    order: usize,
    changes_at: Option<usize>,
    output: fn(f32, f32) -> f32,
) -> (Vec<usize>, f32) {
    let shallow = cache.branch().map(|_| Vec::new());
    let mut model = Model { evaluated: Vec::new(), shallow, changes_at, output };
    let mut difference = 0.0_f32;
    let mut cached = CachedDenoiser::new(&mut model, cache);
    let mut prediction = [0.0; 4];
    for index in 0..calls {
        let sample = [0.3, -0.2, 0.9, 0.1].map(|x: f32| x + 0.05 * index as f32);
        let call = Call { index, total: calls, order, timestep: 0.0 };
        cached.predict(&sample, call, &mut prediction).expect("the model runs");
        let expected = sample.iter().map(|&x| output(x, index as f32 / calls as f32));
        difference = prediction.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(difference, f32::max);
    }
    let mut computed = [model.evaluated.clone(), model.shallow.clone().unwrap_or_default()].concat();
    computed.sort_unstable();
    assert!(model.shallow.is_none() || computed == (0..calls).collect::<Vec<_>>(), "{computed:?}");
    (model.evaluated, difference)
}

const DEFAULTS: [&str; 4] = ["easycache", "ucache", "spectrum", "deepcache"];

#[test]
fn every_row_builds_with_its_defaults_within_its_ranges() {
    assert_eq!(table().iter().map(|entry| entry.name).collect::<Vec<_>>(), DEFAULTS);
    for entry in table() {
        StepCache::new(entry, |_| None).build();
        for key in entry.keys {
            match key.kind {
                CacheParameterType::Number { default, low, high } => {
                    assert!((low..=high).contains(&default), "{}", key.name)
                }
                CacheParameterType::Integer { default, low, high } => {
                    assert!((low..=high).contains(&default), "{}", key.name)
                }
                CacheParameterType::Switch { .. } => {}
            }
        }
    }
}

#[test]
fn steps_are_skipped_and_the_first_and_last_are_not() {
    let one = CacheParameterValue::Number(1.0);
    let zero = CacheParameterValue::Number(0.0);
    for (name, parameters) in [
        ("easycache", vec![("threshold", one), ("start", zero), ("end", one)]),
        ("ucache", vec![("threshold", one), ("start", zero), ("end", one)]),
        ("spectrum", vec![]),
    ] {
        let evaluated = evaluated(&cache(name, &parameters), 20, 1, None);
        assert!(evaluated.len() < 16, "{name}: {evaluated:?}");
        assert!(evaluated.starts_with(&[0, 1]) && evaluated.ends_with(&[19]), "{name}: {evaluated:?}");
    }
}

/// Forecasts equal the model's output if the method's assumption holds: for a model that adds the same to every sample,
/// and for one whose output changes linearly in time.
#[test]
fn forecasts_are_exact_if_the_assumption_holds() {
    let threshold = CacheParameterValue::Number(1.0);
    let line = cache("spectrum", &[("w", CacheParameterValue::Number(0.0))]);
    for (cache, output) in [
        (cache("easycache", &[("threshold", threshold)]), (|x, _| x + 0.7) as fn(f32, f32) -> f32),
        (cache("ucache", &[("threshold", threshold)]), |x, _| x + 0.7),
        (line, |_, time| 3.0 * time - 1.0),
    ] {
        let (evaluated, difference) = run(&cache, 20, 1, None, output);
        assert!(evaluated.len() < 16, "{}: {evaluated:?}", cache.entry().name);
        assert!(difference < 1e-5, "{}: {difference}", cache.entry().name);
    }
}

#[test]
fn a_threshold_of_zero_skips_nothing() {
    for name in ["easycache", "ucache"] {
        let evaluated = evaluated(&cache(name, &[("threshold", CacheParameterValue::Number(0.0))]), 20, 1, None);
        assert_eq!(evaluated, (0..20).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn spectrum_computes_the_last_step_of_each_window() {
    let parameters = [("stop", CacheParameterValue::Number(1.0))];
    assert_eq!(evaluated(&cache("spectrum", &parameters), 20, 1, None), [0, 1, 2, 3, 4, 6, 8, 11, 15]);
    assert_eq!(evaluated(&cache("spectrum", &[]), 20, 1, None), [0, 1, 2, 3, 4, 6, 8, 11, 15, 18, 19]);
}

#[test]
fn deepcache_computes_one_step_of_each_interval() {
    let evaluations = |parameters: &[(&str, CacheParameterValue)], changes_at| {
        evaluated(&cache("deepcache", parameters), 10, 1, changes_at)
    };
    assert_eq!(evaluations(&[], None), [0, 3, 6, 9]);
    assert_eq!(evaluations(&[("interval", CacheParameterValue::Integer(4))], Some(5)), [0, 4, 5, 9]);
    let range = [("start", CacheParameterValue::Number(0.3)), ("end", CacheParameterValue::Number(0.8))];
    assert_eq!(evaluations(&range, None), [0, 1, 2, 5, 8, 9]);
}

/// Both evaluations of a second-order step are computed, or neither; the last step has one.
#[test]
fn a_second_order_step_is_decided_once() {
    for name in DEFAULTS {
        let parameters = [("threshold", CacheParameterValue::Number(0.5))];
        let evaluated = evaluated(&cache(name, &parameters), 39, 2, None);
        assert!(evaluated.len() < 35, "{name}: {evaluated:?}");
        let steps = |evaluation| {
            evaluated.iter().filter(|call| *call % 2 == evaluation).map(|call| call / 2).collect::<Vec<_>>()
        };
        let (first, mut second) = (steps(0), steps(1));
        second.extend(first.contains(&19).then_some(19));
        assert_eq!(first, second, "{name}");
    }
}

/// Predictions from before guidance starts are not used after it.
#[test]
fn nothing_is_reused_after_the_evaluation_changes() {
    for name in DEFAULTS {
        let parameters = [("threshold", CacheParameterValue::Number(0.5))];
        let evaluated = evaluated(&cache(name, &parameters), 20, 1, Some(9));
        // Methods based on differences need two predictions.
        let next = evaluated.contains(&10) || name == "deepcache";
        assert!(evaluated.contains(&9) && next, "{name}: {evaluated:?}");
        assert!(evaluated.len() < 18, "{name}: {evaluated:?}");
    }
}

/// Variances follow the prediction and are stored unchanged.
#[test]
fn variances_are_not_mixed_with_the_sample() {
    let mut residuals = residuals::OutputResiduals::default();
    residuals.store(0, &[1.0, 2.0], &[1.5, 2.5, 7.0, 8.0]);
    let mut out = [0.0; 4];
    assert!(residuals.add_to(0, &[10.0, 20.0], &mut out));
    assert_eq!(out, [10.5, 20.5, 7.0, 8.0]);
    assert!(!residuals.add_to(1, &[10.0, 20.0], &mut out));
}
