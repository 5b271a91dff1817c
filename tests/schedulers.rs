//! Every scheduler against whole tensors recorded from diffusers by scripts/golden_schedulers.py, and what must hold
//! for all of them.

use ldm_ort::rng::{Generator, TorchCpu};
use ldm_ort::scheduler::{self, Config, Custom, NAMED, Noise, Request};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const IMAGES: usize = 2;
const LENGTH: usize = 12;

/// The stream of the recording script: sums of twelve uniform numbers, less six.
struct Stream {
    seed: u64,
    drawn: u64,
}

impl Noise for Stream {
    fn fill(&mut self, out: &mut [f32]) {
        for value in out {
            let total: f64 = (1..=12_u64)
                .map(|j| {
                    let counter = (self.drawn * 12 + j).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    let mut z = self.seed.wrapping_add(counter);
                    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                    z ^= z >> 31;
                    (z >> 11) as f64 * 2.0_f64.powi(-53)
                })
                .sum();
            self.drawn += 1;
            *value = (total - 6.0) as f32;
        }
    }

    fn seed(&self, image: usize) -> u64 {
        self.seed + image as u64
    }

    fn fill_seeded(&self, seed: u64, out: &mut [f32]) {
        TorchCpu::new(seed).normal(out);
    }
}

impl Stream {
    fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    fn take(&mut self, n: usize) -> Vec<f32> {
        let mut values = vec![0.0; n];
        self.fill(&mut values);
        values
    }
}

/// The recording script's formula in place of a model; `learned` appends each picture's variances.
fn model(x: &[f32], t: f64, learned: bool) -> Vec<f32> {
    let u = f64::from(t.abs() as f32) / 1000.0;
    let answer = |i: usize, x: f32| {
        let x = f64::from(x);
        let pattern = ((i * 5 % 7) as f64 - 3.0) / 3.0;
        (0.6 * x + 0.3 * x / (1.0 + x * x) + 0.2 * pattern / (1.0 + u)) as f32
    };
    let variance = |x: f32| {
        let a = f64::from(x).abs();
        (a / (1.0 + a)) as f32
    };
    let size = x.len() / IMAGES;
    let mut out = Vec::new();
    for (image, picture) in x.chunks(size).enumerate() {
        out.extend(picture.iter().enumerate().map(|(i, x)| answer(image * size + i, *x)));
        if learned {
            out.extend(picture.iter().map(|x| variance(*x)));
        }
    }
    out
}

fn section(case: &Value, name: &str) -> Config {
    case.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
}

fn number(case: &Value, name: &str) -> usize {
    case.get(name).and_then(Value::as_u64).unwrap_or(0) as usize
}

fn difference(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().map(|v| v.abs()).fold(0.0, f32::max);
    let apart = got
        .iter()
        .zip(expected)
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, |worst, d| if d.is_nan() { f64::INFINITY } else { d.max(worst) });
    apart / f64::from(largest.max(f32::MIN_POSITIVE))
}

/// Replays one recorded run and returns how many values it held and the worst relative difference.
fn replay(case: &Value, recorded: &[f32]) -> Result<(usize, f64), String> {
    let mut table = section(case, "table");
    table.extend(section(case, "arguments"));
    let name = case["name"].as_str().ok_or("no name")?;
    let mut request = Request::new(number(case, "steps"), IMAGES);
    request.mu = case.get("mu").and_then(Value::as_f64);
    let list = |key: &str| Some(case.get(key)?.as_array()?.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
    request.custom = list("timesteps").map(Custom::Timesteps).or_else(|| list("sigmas").map(Custom::Sigmas));
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
        let sigma = scheduler.initial_noise_sigma() as f32;
        stream.take(LENGTH).into_iter().map(|v| v * sigma).collect()
    };
    if case.get("refused").is_some() {
        let mut input = vec![0.0; LENGTH];
        for step in begin..calls {
            scheduler.scale_input(step, &x, &mut input);
            let output = model(&input, scheduler.timesteps()[step], learned);
            scheduler.step(step, &output, &mut x, &mut stream).map_err(|error| error.to_string())?;
        }
        return Ok((0, 0.0));
    }
    if calls != number(case, "calls") {
        return Err(format!("{calls} calls of the model, not {}", number(case, "calls")));
    }

    let mut at = 0;
    let mut next = |n: usize| {
        at += n;
        &recorded[at - n..at]
    };
    let sigma = next(1)[0];
    let mut worst = difference(&[scheduler.initial_noise_sigma() as f32], &[sigma]);
    let timesteps: Vec<f32> = scheduler.timesteps().iter().map(|t| *t as f32).collect();
    let expected = next(calls);
    for (got, expected) in timesteps.iter().zip(expected) {
        if (got - expected).abs() > 1e-5 * expected.abs().max(1.0) * 10.0 {
            return Err(format!("timesteps {timesteps:?} are not {expected:?}"));
        }
    }
    worst = worst.max(difference(&x, next(LENGTH)));
    let mut input = vec![0.0; LENGTH];
    for step in begin..calls {
        scheduler.scale_input(step, &x, &mut input);
        let output = model(&input, scheduler.timesteps()[step], learned);
        scheduler.step(step, &output, &mut x, &mut stream).map_err(|error| error.to_string())?;
        let apart = difference(&x, next(LENGTH));
        if apart.is_infinite() {
            return Err(format!("not finite after step {step}"));
        }
        worst = worst.max(apart);
    }
    Ok((at, worst))
}

/// The folder of recordings, or another one (with more of them) named by the environment.
fn folder() -> PathBuf {
    std::env::var_os("LDM_ORT_GOLDEN_SCHEDULERS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schedulers"), PathBuf::from)
}

#[test]
fn every_step_is_that_of_diffusers() {
    hold_to(&folder(), &|_| true);
}

#[test]
fn every_step_of_a_schedule_given_outright_is_that_of_diffusers() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/custom-schedules");
    // diffusers gives no list to the others that take one here.
    let ours_alone = ["lms", "euler-ancestral", "kdpm2", "kdpm2-ancestral", "dpm-sde"];
    hold_to(&folder, &|entry| {
        (entry.accepts.timesteps || entry.accepts.sigmas.is_some()) && !ours_alone.contains(&entry.name)
    });
}

/// Holds the schedulers chosen to the recordings in a folder.
fn hold_to(folder: &Path, chosen: &dyn Fn(&scheduler::Entry) -> bool) {
    let mut failures = Vec::new();
    let mut rows = BTreeMap::new();
    for entry in scheduler::table().iter().filter(|entry| chosen(entry)) {
        let lines = std::fs::read_to_string(folder.join(format!("{}.jsonl", entry.name)));
        let values = std::fs::read(folder.join(format!("{}.f32", entry.name)));
        let (Ok(lines), Ok(values)) = (lines, values) else {
            failures.push(format!("{}: no recording", entry.name));
            continue;
        };
        let values: Vec<f32> = values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let (mut at, mut runs, mut refused, mut worst) = (0, 0, 0, 0.0_f64);
        for line in lines.lines() {
            let case: Value = serde_json::from_str(line).expect("a line of JSON");
            let recorded = &values[at..];
            let outcome = replay(&case, recorded);
            if case.get("refused").is_some() {
                refused += 1;
                if outcome.is_ok() {
                    failures.push(format!("not refused: {line}"));
                }
                continue;
            }
            let calls = number(&case, "calls");
            at += 1 + calls + LENGTH * (1 + calls - number(&case, "begin"));
            runs += 1;
            match outcome {
                Ok((_, apart)) => {
                    worst = worst.max(apart);
                    if apart > 1e-5 {
                        failures.push(format!("{apart:.1e} apart: {line}"));
                    }
                }
                Err(problem) => failures.push(format!("{problem}: {line}")),
            }
        }
        assert_eq!(at, values.len(), "{}: the recording's two files do not belong together", entry.name);
        rows.insert(entry.name, (runs, refused, worst));
    }
    println!("{:<24}{:>8}{:>9}{:>12}", "scheduler", "runs", "refused", "worst");
    for (name, (runs, refused, worst)) in rows {
        println!("{name:<24}{runs:>8}{refused:>9}{worst:>12.1e}");
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

fn table_of(pairs: &[(&str, Value)]) -> Config {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn run(name: &str, table: &Config, steps: usize, begin: usize, seed: u64) -> (usize, Vec<f32>) {
    let mut scheduler = scheduler::build(name, None, table, &Request::new(steps, IMAGES)).expect("it builds");
    let mut stream = Stream::new(seed);
    let mut x: Vec<f32> = if begin > 0 {
        vec![0.25; LENGTH]
    } else {
        let sigma = scheduler.initial_noise_sigma() as f32;
        stream.take(LENGTH).into_iter().map(|v| v * sigma).collect()
    };
    let mut input = vec![0.0; LENGTH];
    for step in begin..scheduler.timesteps().len() {
        scheduler.scale_input(step, &x, &mut input);
        let output = model(&input, scheduler.timesteps()[step], false);
        scheduler.step(step, &output, &mut x, &mut stream).expect("it steps");
    }
    (scheduler.timesteps().len(), x)
}

#[test]
fn every_scheduler_is_finite_and_repeats_itself() {
    for entry in scheduler::table() {
        for steps in [4, 5, 20, 50] {
            let (calls, x) = run(entry.name, &Config::new(), steps, 0, 7);
            let extra = match entry.name {
                "pndm" => 9,
                _ if entry.order == 2 => steps - 1,
                _ => 0,
            };
            assert_eq!(calls, steps + extra, "{} at {steps} steps", entry.name);
            assert!(x.iter().all(|v| v.is_finite()), "{} at {steps} steps: {x:?}", entry.name);
            let (_, again) = run(entry.name, &Config::new(), steps, 0, 7);
            assert_eq!(x, again, "{} at {steps} steps", entry.name);
        }
    }
}

#[test]
fn a_start_in_the_middle_is_the_tail_of_a_full_run() {
    for name in ["ddim", "euler"] {
        let request = Request::new(10, IMAGES);
        let mut whole = scheduler::build(name, None, &Config::new(), &request).expect("it builds");
        let mut tail = scheduler::build(name, None, &Config::new(), &request).expect("it builds");
        let mut stream = Stream::new(3);
        let mut x = stream.take(LENGTH);
        let mut y = Vec::new();
        let mut input = vec![0.0; LENGTH];
        for step in 0..10 {
            if step == 4 {
                y = x.clone();
            }
            for (scheduler, x) in [(&mut whole, &mut x), (&mut tail, &mut y)] {
                if !x.is_empty() {
                    scheduler.scale_input(step, x, &mut input);
                    let output = model(&input, scheduler.timesteps()[step], false);
                    scheduler.step(step, &output, x, &mut stream).expect("it steps");
                }
            }
        }
        assert_eq!(x, y, "{name}");
    }
}

/// The samplers of the latent diffusion paper's own code, recorded by scripts/golden_compvis.py, are configurations.
#[test]
fn the_papers_own_samplers_are_configurations() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let lines = std::fs::read_to_string(golden.join("compvis.jsonl")).expect("the recording's lines");
    let values = std::fs::read(golden.join("compvis.f32")).expect("the recording's values");
    let values: Vec<f32> = values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let mut rest = values.as_slice();
    for line in lines.lines() {
        let case: Value = serde_json::from_str(line).expect("a line of JSON");
        let plms = case["name"] == "plms";
        let mut table = table_of(&[
            ("beta_start", 0.00085.into()),
            ("beta_end", 0.012.into()),
            ("beta_schedule", "scaled_linear".into()),
            ("set_alpha_to_one", false.into()),
            ("timestep_spacing", "compvis".into()),
        ]);
        let (more, name) =
            if plms { (("skip_prk_steps", true.into()), "pndm") } else { (("clip_sample", false.into()), "ddim") };
        table.extend(table_of(&[more]));
        if !plms {
            table.insert("eta".to_owned(), case["eta"].clone());
        }
        let request = Request::new(number(&case, "steps"), IMAGES);
        let mut scheduler = scheduler::build(name, None, &table, &request).expect("it builds");
        let asked = rest.split_off(..number(&case, "calls")).expect("timesteps");
        assert_eq!(scheduler.timesteps().iter().map(|t| *t as f32).collect::<Vec<_>>(), asked, "{line}");
        let mut stream = Stream::new(case["seed"].as_u64().expect("a seed"));
        let mut x = stream.take(LENGTH);
        assert_eq!(rest.split_off(..LENGTH), Some(&x[..]));
        for step in 0..asked.len() {
            let output = model(&x, scheduler.timesteps()[step], false);
            scheduler.step(step, &output, &mut x, &mut stream).expect("it steps");
            // The paper's PLMS asks twice in its first step, where diffusers counts two.
            if !(plms && step == 0) {
                let expected = rest.split_off(..LENGTH).expect("a sample");
                let apart = difference(&x, expected);
                assert!(apart < 1e-5, "{apart:.1e} apart after call {step}: {line}");
            }
        }
    }
    assert!(rest.is_empty());
}

#[test]
fn lists_that_are_no_schedule_are_refused_with_what_to_do() {
    let problem = |name: &str, steps: usize, custom: Custom, table: &[(&str, Value)]| {
        let mut request = Request::new(steps, 1);
        request.custom = Some(custom);
        match scheduler::build(name, None, &table_of(table), &request) {
            Ok(_) => panic!("{name} took {:?}", request.custom),
            Err(error) => error.to_string(),
        }
    };
    let times = |list: &[f64]| Custom::Timesteps(list.to_vec());
    let levels = |list: &[f64]| Custom::Sigmas(list.to_vec());
    for (message, part) in [
        (problem("ddim", 2, times(&[900.0, 100.0]), &[]), "choose one of ddpm, lms, euler"),
        (problem("heun", 2, times(&[100.0, 900.0]), &[]), "900 comes after 100; expected a falling list"),
        (problem("euler", 2, times(&[900.0, f64::NAN]), &[]), "NaN comes after 900"),
        (problem("euler", 3, times(&[900.0, 100.0]), &[]), "2 entries are 2 steps, and steps = 3"),
        (problem("euler", 2, levels(&[9.0, 1.0]), &[]), "2 entries are 1 steps, and steps = 2"),
        (problem("euler", 2, times(&[1000.0, 1.0]), &[]), "1000 is no timestep of training; expected 0 to 999"),
        (problem("flow-match-euler", 1, times(&[0.0]), &[]), "expected above 0 to 1000"),
        (problem("euler", 1, levels(&[1.0, -1.0]), &[]), "-1 is no noise level"),
        (problem("euler", 1, times(&[9.0]), &[("use_karras_sigmas", true.into())]), "set use_karras_sigmas = false"),
        (problem("unipc", 1, levels(&[1.0]), &[]), "set use_flow_sigmas = true"),
        (problem("ddim", 600, times(&[9.0]), &[("timestep_spacing", "compvis".into())]), "takes no such list"),
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_list_may_name_what_the_scheduler_would_choose() {
    for name in ["euler", "euler-ancestral", "lms", "heun", "kdpm2", "kdpm2-ancestral"] {
        let plain = scheduler::build(name, None, &Config::new(), &Request::new(8, IMAGES)).expect("it builds");
        let own: Vec<f64> = (0..8).rev().map(|i| f64::from((i as f64 * (999.0 / 7.0)) as f32)).collect();
        let mut request = Request::new(8, IMAGES);
        request.custom = Some(Custom::Timesteps(own));
        let listed = scheduler::build(name, None, &Config::new(), &request).expect("it builds");
        assert_eq!(plain.timesteps(), listed.timesteps(), "{name}");
        for named in NAMED {
            request.custom = Some(named.sigmas(8));
            let listed = scheduler::build(name, None, &Config::new(), &request).expect("it builds");
            assert_eq!(listed.timesteps().len(), plain.timesteps().len(), "{name}");
            assert!(listed.timesteps().iter().all(|t| t.is_finite()), "{name}: {:?}", listed.timesteps());
        }
    }
}

#[test]
fn the_orders_of_a_multistep_solver_differ() {
    let at_order = |order: u64| run("dpm-multistep", &table_of(&[("solver_order", order.into())]), 20, 0, 5).1;
    assert!(difference(&at_order(1), &at_order(2)) > 1e-4);
    assert!(difference(&at_order(2), &at_order(3)) > 1e-4);
}

#[test]
fn names_used_elsewhere_resolve() {
    for (name, expected) in [
        ("Euler a", "euler-ancestral"),
        ("DPM++ 2M Karras", "dpm-multistep"),
        ("DPMSolverMultistepScheduler", "dpm-multistep"),
        ("EulerDiscrete", "euler"),
        ("DDIM", "ddim"),
        ("dpm_multistep", "dpm-multistep"),
        ("Euler a Exponential", "euler-ancestral?"),
        ("dpmpp_2m_karras", "dpm-multistep"),
        ("DPM++ 3M SDE Karras", "dpm-multistep"),
        ("Heun SGM Uniform", "heun"),
        ("euler_k", "euler"),
        ("LMS Karras", "lms"),
    ] {
        // Ancestral Euler has no other spacing than by timesteps.
        if let Some(name_of_none) = expected.strip_suffix('?') {
            assert!(scheduler::find(name).is_none(), "{name} is no {name_of_none}");
            continue;
        }
        assert_eq!(scheduler::find(name).map(|entry| entry.name), Some(expected), "{name}");
    }
    assert!(scheduler::find("magic").is_none());
    assert_eq!(scheduler::suggest("eulr").first(), Some(&"euler"));
    let (entry, settings) = scheduler::find_alias("dpmpp 3m sde beta").expect("it is known");
    assert_eq!((entry.name, settings.len()), ("dpm-multistep", 3));
    let karras = scheduler::build("DPM++ 2M Karras", None, &Config::new(), &Request::new(10, 1)).expect("it builds");
    let table = table_of(&[("use_karras_sigmas", true.into())]);
    let spelled = scheduler::build("dpm-multistep", None, &table, &Request::new(10, 1)).expect("it builds");
    assert_eq!(karras.timesteps(), spelled.timesteps());
}

#[test]
fn names_do_not_collide() {
    let mut seen = BTreeMap::new();
    for entry in scheduler::table() {
        for name in [entry.name, entry.class].into_iter().chain(entry.aliases.iter().map(|alias| alias.name)) {
            if let Some(other) = seen.insert(name.to_lowercase(), entry.name) {
                panic!("{name} is both {other} and {}", entry.name);
            }
        }
        for alias in entry.aliases {
            let table = alias.settings.iter().map(|(key, value)| ((*key).to_owned(), value.value())).collect();
            assert_eq!(scheduler::check_table(entry, &table), [], "{}", alias.name);
        }
    }
}

#[test]
fn a_value_nobody_knows_is_refused_with_the_choices() {
    for (name, key, value, says) in [
        ("ddim", "beta_schedule", Value::from("cosine"), "squaredcos_cap_v2"),
        ("ddim", "prediction_type", Value::from("eps"), "did you mean \"epsilon\"?"),
        ("euler", "timestep_spacing", Value::from("even"), "linspace, leading, trailing"),
        ("ddpm", "num_train_timesteps", Value::from("1000"), "a whole number of at least 1"),
        ("ddpm", "variance_type", Value::from("fixed_large_log"), "fixed_large"),
        ("dpm-multistep", "solver_order", Value::from(4), "1, 2 or 3"),
        ("dpm-multistep", "algorithm_type", Value::from("dpmsolver"), "sigma_min"),
    ] {
        let config = table_of(&[(key, value)]);
        let Err(error) = scheduler::build(name, Some(&config), &Config::new(), &Request::new(5, 1)) else {
            panic!("{name} takes {key}");
        };
        let message = error.to_string();
        assert!(message.contains(says), "{message}");
    }
    let error = scheduler::build("ddim", None, &Config::new(), &Request::new(1001, 1)).err().map(|e| e.to_string());
    assert!(error.is_some_and(|message| message.contains("1001 steps")));
}

#[test]
fn a_pipelines_table_is_checked_whole() {
    let entry = scheduler::find("ddim").expect("ddim is there");
    let table = table_of(&[
        ("beta_strat", 0.1.into()),
        ("eta", "much".into()),
        ("clip_sample", 1.into()),
        ("timestep_spacing", "leadin".into()),
        ("steps_offset", 1.into()),
    ]);
    let problems = scheduler::check_table(entry, &table);
    let keys: Vec<&str> = problems.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["beta_strat", "clip_sample", "eta", "timestep_spacing"]);
    assert!(problems[0].1.contains("beta_start"), "{}", problems[0].1);
    assert!(problems[3].1.contains("\"leading\""), "{}", problems[3].1);
}

#[test]
fn another_classs_file_lends_its_keys() {
    let mut config = table_of(&[
        ("_class_name", "PNDMScheduler".into()),
        ("beta_schedule", "scaled_linear".into()),
        ("steps_offset", 1.into()),
        ("skip_prk_steps", true.into()),
        ("trained_betas", Value::Null),
    ]);
    let timesteps = |config: &Config| {
        let built = scheduler::build("ddim", Some(config), &Config::new(), &Request::new(10, 1));
        built.expect("it builds").timesteps().to_vec()
    };
    assert_eq!(timesteps(&config)[..2], [901.0, 801.0]);
    config.insert("_use_default_values".to_owned(), Value::from(vec!["steps_offset"]));
    assert_eq!(timesteps(&config)[..2], [900.0, 800.0]);
}
