//! Random configurations, none of which may panic or hang.

use super::stream::{LENGTH, Stream, model};
use ldm_ort::scheduler::{self, Config, Noise, ScheduleRequest, SchedulerKey, SchedulerKeyKind};
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};

const RUNS: u64 = 4000;

/// A source of random integers.
struct Dice(Stream);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        let mut value = [0.0];
        self.0.fill(&mut value);
        // Uses the low decimal digits as random ones.
        ((f64::from(value[0]).abs() * 1e4).fract() * n as f64) as usize % n
    }

    fn choose<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// Returns a random value for a key, sometimes valid, sometimes not.
fn random_value(dice: &mut Dice, key: &SchedulerKey) -> Value {
    if dice.below(8) == 0 {
        let huge = 9_223_372_036_854_775_807_i64;
        return dice.choose(&[
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
        SchedulerKeyKind::Count(_) => json!(dice.choose(&[1, 2, 3, 10, 50, 50, 1000, 1001])),
        SchedulerKeyKind::Order { .. } => json!(dice.choose(&[1, 2, 3, 4, 5, 6, 7])),
        SchedulerKeyKind::Integer(_) => json!(dice.choose(&[0_i64, 1, -1, 5, 1000, -1000, 1 << 40])),
        SchedulerKeyKind::Float(_) | SchedulerKeyKind::MaybeFloat => {
            json!(dice.choose(&[0.0, 1e-4, 0.02, 0.3, 0.5, 0.995, 1.0, 1.5, 3.0, 80.0, 1e4, -0.5, -5.1]))
        }
        SchedulerKeyKind::MaybeFloats => dice.choose(&[
            Value::Null,
            json!([0.02]),
            json!([0.1, 0.2]),
            json!([0.1, 0.2, 0.3, 0.5, 0.9]),
            json!([0.0, 1.0, 2.0, -1.0]),
            json!([0, 1, -7, 1e18]),
        ]),
        SchedulerKeyKind::Switch(_) | SchedulerKeyKind::MaybeSwitch => json!(dice.below(2) == 0),
        SchedulerKeyKind::Choice { valid, foreign, .. } | SchedulerKeyKind::MaybeChoice { valid, foreign } => {
            json!(dice.choose(&valid.iter().chain(foreign).copied().collect::<Vec<_>>()))
        }
        SchedulerKeyKind::MaybeScheduler => {
            let entry = &scheduler::table()[dice.below(scheduler::table().len())];
            let mut table = random_table(dice, entry, 4);
            table.insert("_class_name".to_owned(), entry.class.into());
            Value::Object(table)
        }
        _ => Value::Null,
    }
}

/// Returns random values for about one in `rarity` of the keys.
fn random_table(dice: &mut Dice, entry: &scheduler::SchedulerEntry, rarity: usize) -> Config {
    let mut table = Config::new();
    for key in entry.keys {
        if dice.below(rarity) == 0 {
            table.insert(key.name.to_owned(), random_value(dice, key));
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
        let rarity = dice.choose(&[2, 4, 8, 12]);
        let (config, table) = (random_table(&mut dice, entry, rarity), random_table(&mut dice, entry, rarity * 2));
        let steps = match dice.below(50) {
            0 => dice.choose(&[999, 1000, 1001, 10_000, 10_001, usize::MAX]),
            _ => dice.choose(&[0, 1, 1, 2, 3, 4, 5, 10, 20, 51]),
        };
        let mut request = ScheduleRequest::new(steps, dice.choose(&[0, 1, 2, 5, 100]));
        request.mu = dice.choose(&[None, None, Some(0.9), Some(-1e300), Some(f64::NAN), Some(f64::INFINITY)]);
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
                scheduler.scale_model_input(step, &x, &mut input);
                let output = model(&input, scheduler.timesteps()[step], learned);
                scheduler.step(step, &output, &mut x, &mut stream)?;
                // The denoising loop rejects non-finite values.
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
    println!("{RUNS} runs: {ran} completed, {refused} rejected, {not_finite} stopped at non-finite values");
    assert!(failures.is_empty(), "{} panics\n{}", failures.len(), failures.join("\n"));
    assert!(ran > RUNS / 5 && refused > RUNS / 20, "expected a mix of valid and invalid configurations");
}
