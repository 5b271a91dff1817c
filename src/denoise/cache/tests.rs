//! Methods before a model that counts how often it is asked.

use super::*;

/// Remembers at which calls it was asked.
struct Model {
    asked: Vec<usize>,
    /// At which calls its shallow layers alone were asked, where it has such.
    shallow: Option<Vec<usize>>,
    changes_at: Option<usize>,
    /// What it answers to a value of the sample at a share of the run.
    answer: fn(f32, f32) -> f32,
}

impl Denoiser for Model {
    fn predict(&mut self, sample: &[f32], call: Call, prediction: &mut [f32]) -> Result<()> {
        self.asked.push(call.index);
        for (out, x) in prediction.iter_mut().zip(sample) {
            *out = (self.answer)(*x, call.index as f32 / call.of as f32);
        }
        Ok(())
    }

    fn predict_shallow(&mut self, sample: &[f32], call: Call, prediction: &mut [f32]) -> Result<bool> {
        let Some(shallow) = &mut self.shallow else { return Ok(false) };
        shallow.push(call.index);
        for (out, x) in prediction.iter_mut().zip(sample) {
            *out = (self.answer)(*x, call.index as f32 / call.of as f32);
        }
        Ok(true)
    }

    fn evaluations(&self) -> usize {
        self.asked.len()
    }

    fn changes_at(&self, call: Call) -> bool {
        self.changes_at == Some(call.index)
    }
}

fn cache(name: &str, given: &[(&str, Value)]) -> StepCache {
    let entry = table().iter().find(|entry| entry.name == name).expect("a row of the table");
    StepCache::new(entry, |key| given.iter().find(|(name, _)| *name == key.name).map(|(_, value)| *value))
}

/// The calls at which the model was asked in a run in which the sample moves a little with each call.
fn asked(cache: &StepCache, calls: usize, order: usize, changes_at: Option<usize>) -> Vec<usize> {
    answered(cache, calls, order, changes_at, |x, time| (x + time).sin()).0
}

/// The same, and the largest difference of an answer from the model's.
fn answered(
    cache: &StepCache,
    calls: usize,
    order: usize,
    changes_at: Option<usize>,
    answer: fn(f32, f32) -> f32,
) -> (Vec<usize>, f32) {
    let shallow = cache.branch().map(|_| Vec::new());
    let mut model = Model { asked: Vec::new(), shallow, changes_at, answer };
    let mut apart = 0.0_f32;
    let mut cached = Cached::new(&mut model, cache);
    let mut prediction = [0.0; 4];
    for index in 0..calls {
        let sample = [0.3, -0.2, 0.9, 0.1].map(|x: f32| x + 0.05 * index as f32);
        let call = Call { index, of: calls, order, timestep: 0.0 };
        cached.predict(&sample, call, &mut prediction).expect("the model answers");
        let told = sample.iter().map(|&x| answer(x, index as f32 / calls as f32));
        apart = prediction.iter().zip(told).map(|(a, b)| (a - b).abs()).fold(apart, f32::max);
    }
    let mut calls_made = [model.asked.clone(), model.shallow.clone().unwrap_or_default()].concat();
    calls_made.sort_unstable();
    assert!(model.shallow.is_none() || calls_made == (0..calls).collect::<Vec<_>>(), "{calls_made:?}");
    (model.asked, apart)
}

const DEFAULTS: [&str; 4] = ["easycache", "ucache", "spectrum", "deepcache"];

#[test]
fn every_row_builds_with_its_defaults_within_its_ranges() {
    assert_eq!(table().iter().map(|entry| entry.name).collect::<Vec<_>>(), DEFAULTS);
    for entry in table() {
        StepCache::new(entry, |_| None).build();
        for key in entry.keys {
            match key.kind {
                Kind::Number { default, low, high } => assert!((low..=high).contains(&default), "{}", key.name),
                Kind::Whole { default, low, high } => assert!((low..=high).contains(&default), "{}", key.name),
                Kind::Switch { .. } => {}
            }
        }
    }
}

#[test]
fn steps_are_skipped_and_the_first_and_last_are_not() {
    let one = Value::Number(1.0);
    let zero = Value::Number(0.0);
    for (name, given) in [
        ("easycache", vec![("threshold", one), ("start", zero), ("end", one)]),
        ("ucache", vec![("threshold", one), ("start", zero), ("end", one)]),
        ("spectrum", vec![]),
    ] {
        let asked = asked(&cache(name, &given), 20, 1, None);
        assert!(asked.len() < 16, "{name}: {asked:?}");
        assert!(asked.starts_with(&[0, 1]) && asked.ends_with(&[19]), "{name}: {asked:?}");
    }
}

/// Where what a method takes for granted holds, its answers are the model's: a model that adds the same to every sample,
/// and one whose answer moves evenly in time.
#[test]
fn answers_are_exact_where_what_a_method_takes_for_granted_holds() {
    let threshold = Value::Number(1.0);
    let line = cache("spectrum", &[("w", Value::Number(0.0))]);
    for (cache, answer) in [
        (cache("easycache", &[("threshold", threshold)]), (|x, _| x + 0.7) as fn(f32, f32) -> f32),
        (cache("ucache", &[("threshold", threshold)]), |x, _| x + 0.7),
        (line, |_, time| 3.0 * time - 1.0),
    ] {
        let (asked, apart) = answered(&cache, 20, 1, None, answer);
        assert!(asked.len() < 16, "{}: {asked:?}", cache.entry().name);
        assert!(apart < 1e-5, "{}: {apart}", cache.entry().name);
    }
}

#[test]
fn a_threshold_of_nothing_skips_nothing() {
    for name in ["easycache", "ucache"] {
        let asked = asked(&cache(name, &[("threshold", Value::Number(0.0))]), 20, 1, None);
        assert_eq!(asked, (0..20).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn spectrum_computes_the_steps_that_its_windows_say() {
    let given = [("stop", Value::Number(1.0))];
    assert_eq!(asked(&cache("spectrum", &given), 20, 1, None), [0, 1, 2, 3, 4, 6, 8, 11, 15]);
    assert_eq!(asked(&cache("spectrum", &[]), 20, 1, None), [0, 1, 2, 3, 4, 6, 8, 11, 15, 18, 19]);
}

#[test]
fn deepcache_computes_one_step_of_each_interval() {
    let asked_of = |given: &[(&str, Value)], changes_at| asked(&cache("deepcache", given), 10, 1, changes_at);
    assert_eq!(asked_of(&[], None), [0, 3, 6, 9]);
    assert_eq!(asked_of(&[("interval", Value::Whole(4))], Some(5)), [0, 4, 5, 9]);
    let share = [("start", Value::Number(0.3)), ("end", Value::Number(0.8))];
    assert_eq!(asked_of(&share, None), [0, 1, 2, 5, 8, 9]);
}

/// With two calls a step both of them are computed, or neither; the last step has one.
#[test]
fn a_step_of_two_calls_is_decided_as_one() {
    for name in DEFAULTS {
        let given = [("threshold", Value::Number(0.5))];
        let asked = asked(&cache(name, &given), 39, 2, None);
        assert!(asked.len() < 35, "{name}: {asked:?}");
        let steps = |stage| asked.iter().filter(|call| *call % 2 == stage).map(|call| call / 2).collect::<Vec<_>>();
        let (first, mut second) = (steps(0), steps(1));
        second.extend(first.contains(&19).then_some(19));
        assert_eq!(first, second, "{name}");
    }
}

/// What was answered before guidance began says nothing of what comes after it.
#[test]
fn nothing_is_reused_across_a_change_of_kind() {
    for name in DEFAULTS {
        let given = [("threshold", Value::Number(0.5))];
        let asked = asked(&cache(name, &given), 20, 1, Some(9));
        // What goes by differences needs two.
        let next = asked.contains(&10) || name == "deepcache";
        assert!(asked.contains(&9) && next, "{name}: {asked:?}");
        assert!(asked.len() < 18, "{name}: {asked:?}");
    }
}

/// A model that predicts variances too: they stand behind the prediction and are kept as they are.
#[test]
fn variances_are_not_mixed_with_the_sample() {
    let mut differences = change::Differences::default();
    differences.keep(0, &[1.0, 2.0], &[1.5, 2.5, 7.0, 8.0]);
    let mut out = [0.0; 4];
    assert!(differences.add(0, &[10.0, 20.0], &mut out));
    assert_eq!(out, [10.5, 20.5, 7.0, 8.0]);
    assert!(!differences.add(1, &[10.0, 20.0], &mut out));
}
