//! Properties of every scheduler.

use super::stream::{LENGTH, Stream, build, run, step_once};
use super::table_of;
use ldm_ort::scheduler::{self, Config};

/// Returns the number of model evaluations in `steps` steps.
fn evaluations(entry: &scheduler::SchedulerEntry, steps: usize) -> usize {
    match entry.name {
        // Runge-Kutta has four evaluations in each of the first three steps.
        "pndm" => steps + 9,
        _ if entry.order == 2 => 2 * steps - 1,
        _ => steps,
    }
}

#[test]
fn every_scheduler_is_finite_and_deterministic() {
    for entry in scheduler::table() {
        for steps in [1, 2, 3, 4, 5, 20, 50] {
            if entry.name == "pndm" && steps < 4 {
                continue;
            }
            let (made, x) = run(entry.name, &Config::new(), steps, 7);
            assert_eq!(made, evaluations(entry, steps), "{} at {steps} steps", entry.name);
            assert!(x.iter().all(|v| v.is_finite()), "{} at {steps} steps: {x:?}", entry.name);
            let (_, again) = run(entry.name, &Config::new(), steps, 7);
            assert_eq!(x, again, "{} at {steps} steps", entry.name);
        }
    }
}

#[test]
fn only_stochastic_schedulers_depend_on_the_noise() {
    for entry in scheduler::table() {
        let last = |seed: u64| {
            let mut scheduler = build(entry.name, &Config::new(), 6);
            let sigma = scheduler.init_noise_sigma() as f32;
            let mut x: Vec<f32> = Stream::new(1).take(LENGTH).into_iter().map(|v| v * sigma).collect();
            let mut stream = Stream::new(seed);
            for step in 0..scheduler.timesteps().len() {
                step_once(scheduler.as_mut(), step, &mut x, &mut stream);
            }
            x
        };
        assert_eq!(last(2) != last(3), entry.stochastic, "{}", entry.name);
    }
}

#[test]
fn timesteps_fall_or_rise_monotonically() {
    // Runge-Kutta returns to the timestep at which its step started.
    for entry in scheduler::table().iter().filter(|entry| entry.name != "pndm") {
        let scheduler = build(entry.name, &Config::new(), 10);
        let steps: Vec<f64> = scheduler.timesteps().iter().step_by(entry.order).copied().collect();
        let ordered = |pair: &[f64]| if entry.inverse { pair[0] < pair[1] } else { pair[0] > pair[1] };
        assert!(steps.windows(2).all(ordered), "{}: {steps:?}", entry.name);
    }
}

/// Multistep schedulers, and the key that makes them single-step.
const MULTISTEP: &[(&str, Option<&str>)] = &[
    ("pndm", None),
    ("lms", None),
    ("ipndm", None),
    ("unipc", None),
    ("sa-solver", None),
    ("dpm-multistep", Some("solver_order")),
    ("dpm-multistep-inverse", Some("solver_order")),
    ("dpm-singlestep", Some("solver_order")),
    ("deis", Some("solver_order")),
    ("edm-dpm-multistep", Some("solver_order")),
];

#[test]
fn a_start_in_the_middle_is_the_tail_of_a_full_run() {
    for entry in scheduler::table() {
        let table = match MULTISTEP.iter().find(|(name, _)| *name == entry.name) {
            Some((_, None)) => continue,
            Some((_, Some(key))) => table_of(&[(key, 1.into())]),
            None => Config::new(),
        };
        for begin in [1, 4, 9] {
            let mut whole = build(entry.name, &table, 10);
            let mut stream = Stream::new(3);
            let mut x = stream.take(LENGTH);
            let calls = whole.timesteps().len();
            for step in 0..begin * entry.order {
                step_once(whole.as_mut(), step, &mut x, &mut stream);
            }
            let mut tail = build(entry.name, &table, 10);
            let (mut y, mut tail_stream) = (x.clone(), stream.clone());
            for step in begin * entry.order..calls {
                step_once(whole.as_mut(), step, &mut x, &mut stream);
                step_once(tail.as_mut(), step, &mut y, &mut tail_stream);
                assert_eq!(x, y, "{} from step {begin}", entry.name);
            }
        }
    }
}
