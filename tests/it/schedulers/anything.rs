//! Nothing that a file or a user can write makes a scheduler panic or hang.

use super::stream::{LENGTH, Stream, model};
use ldm_ort::scheduler::{self, Config, Key, Kind, Noise, ScheduleRequest};
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};

const RUNS: u64 = 4000;

/// Whole numbers drawn at random.
struct Dice(Stream);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        let mut value = [0.0];
        self.0.fill(&mut value);
        // The digits far behind the point are as good as any.
        ((f64::from(value[0]).abs() * 1e4).fract() * n as f64) as usize % n
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// What may stand in a file: sometimes sensible, sometimes not.
fn value(dice: &mut Dice, key: &Key) -> Value {
    if dice.below(8) == 0 {
        let huge = 9_223_372_036_854_775_807_i64;
        return dice.one(&[
            Value::Null,
            json!(0),
            json!(-1),
            json!(huge),
            json!(100_000),
            json!(-huge),
            json!(1e300),
            json!(-1e300),
            json!(1e-300),
            json!(0.5),
            json!("Infinity"),
            json!("-Infinity"),
            json!("anything"),
            json!(true),
            json!([]),
            json!([0.5]),
            json!({}),
        ]);
    }
    match key.kind {
        Kind::Count(_) => json!(dice.one(&[1, 2, 3, 10, 50, 50, 1000, 1001])),
        Kind::Order { .. } => json!(dice.one(&[1, 2, 3, 4, 5, 6, 7])),
        Kind::Integer(_) => json!(dice.one(&[0_i64, 1, -1, 5, 1000, -1000, 1 << 40])),
        Kind::Float(_) | Kind::MaybeFloat => {
            json!(dice.one(&[0.0, 1e-4, 0.02, 0.3, 0.5, 0.995, 1.0, 1.5, 3.0, 80.0, 1e4, -0.5, -5.1]))
        }
        Kind::MaybeFloats => dice.one(&[
            Value::Null,
            json!([0.02]),
            json!([0.1, 0.2]),
            json!([0.1, 0.2, 0.3, 0.5, 0.9]),
            json!([0.0, 1.0, 2.0, -1.0]),
            json!([0, 1, -7, 1e18]),
        ]),
        Kind::Switch(_) | Kind::MaybeSwitch => json!(dice.below(2) == 0),
        Kind::Choice { valid, foreign, .. } | Kind::MaybeChoice { valid, foreign } => {
            json!(dice.one(&valid.iter().chain(foreign).copied().collect::<Vec<_>>()))
        }
        Kind::MaybeScheduler => {
            let entry = &scheduler::table()[dice.below(scheduler::table().len())];
            let mut table = keys(dice, entry, 4);
            table.insert("_class_name".to_owned(), entry.class.into());
            Value::Object(table)
        }
        _ => Value::Null,
    }
}

/// About one in `rarity` of the keys.
fn keys(dice: &mut Dice, entry: &scheduler::SchedulerEntry, rarity: usize) -> Config {
    let mut table = Config::new();
    for key in entry.keys {
        if dice.below(rarity) == 0 {
            table.insert(key.name.to_owned(), value(dice, key));
        }
    }
    table
}

#[test]
fn no_configuration_panics_or_hangs() {
    let (mut ran, mut refused, mut not_finite, mut failures) = (0, 0, 0, Vec::new());
    for run in 0..RUNS {
        let mut dice = Dice(Stream::new(run));
        let entry = &scheduler::table()[run as usize % scheduler::table().len()];
        let rarity = dice.one(&[2, 4, 8, 12]);
        let (config, table) = (keys(&mut dice, entry, rarity), keys(&mut dice, entry, rarity * 2));
        let steps = match dice.below(50) {
            0 => dice.one(&[999, 1000, 1001, 10_000, 10_001, usize::MAX]),
            _ => dice.one(&[0, 1, 1, 2, 3, 4, 5, 10, 20, 51]),
        };
        let mut request = ScheduleRequest::new(steps, dice.one(&[0, 1, 2, 5, 100]));
        request.mu = dice.one(&[None, None, Some(0.9), Some(-1e300), Some(f64::NAN), Some(f64::INFINITY)]);
        let (from, learned) = (dice.below(4), dice.below(6) == 0);
        let outcome = catch_unwind(AssertUnwindSafe(|| -> Result<bool, ldm_ort::Error> {
            let mut scheduler = scheduler::build(entry.name, Some(&config), &table, &request)?;
            let (calls, order) = (scheduler.timesteps().len(), scheduler.order());
            let begin = if from == 0 { calls / order / 2 * order } else { 0 };
            let mut stream = Stream::new(run);
            let (x0, noise) = (stream.take(LENGTH), stream.take(LENGTH));
            let (mut x, mut input) = (vec![0.0; LENGTH], vec![0.0; LENGTH]);
            scheduler.add_noise(begin, &x0, &noise, &mut x);
            for step in begin..calls {
                scheduler.scale_input(step, &x, &mut input);
                let output = model(&input, scheduler.timesteps()[step], learned);
                scheduler.step(step, &output, &mut x, &mut stream)?;
                // The loop refuses to go on from here, naming the step.
                if x.iter().any(|v| !v.is_finite()) {
                    return Ok(false);
                }
            }
            Ok(true)
        }));
        match outcome {
            Ok(Ok(true)) => ran += 1,
            Ok(Ok(false)) => not_finite += 1,
            Ok(Err(_)) => refused += 1,
            Err(_) => failures.push(format!("{}: {config:?} {table:?} {request:?}", entry.name)),
        }
    }
    println!("{RUNS} runs: {ran} to the end, {refused} refused, {not_finite} stopped at what is not finite");
    assert!(failures.is_empty(), "{} panics\n{}", failures.len(), failures.join("\n"));
    assert!(ran > RUNS / 5 && refused > RUNS / 20, "the draw is of no use");
}
