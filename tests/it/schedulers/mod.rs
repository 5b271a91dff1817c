//! Schedulers: comparison with whole tensors that scripts/goldens/golden_schedulers.py recorded from diffusers, properties of
//! all schedulers, names and keys.

mod anything;
mod compvis;
mod estimates;
mod golden;
mod linear;
mod properties;
mod stream;

use ldm_ort::scheduler::{self, Config, CustomSchedule, NAMED_SCHEDULES, ScheduleRequest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use stream::{IMAGES, difference, run};

fn table_of(pairs: &[(&str, Value)]) -> Config {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

#[test]
fn the_orders_of_a_multistep_solver_differ() {
    let at_order = |order: u64| run("dpm-multistep", &table_of(&[("solver_order", order.into())]), 20, 5).1;
    assert!(difference(&at_order(1), &at_order(2)) > 1e-4);
    assert!(difference(&at_order(2), &at_order(3)) > 1e-4);
}

#[test]
fn invalid_custom_schedules_are_rejected_with_a_hint() {
    let problem = |name: &str, steps: usize, custom: CustomSchedule, table: &[(&str, Value)]| {
        let mut request = ScheduleRequest::new(steps, 1);
        request.custom = Some(custom);
        match scheduler::build(name, None, &table_of(table), &request) {
            Ok(_) => panic!("{name} accepted {:?}", request.custom),
            Err(error) => error.to_string(),
        }
    };
    let times = |list: &[f64]| CustomSchedule::Timesteps(list.to_vec());
    let sigmas = |list: &[f64]| CustomSchedule::Sigmas(list.to_vec());
    for (message, part) in [
        (problem("ddim", 2, times(&[900.0, 100.0]), &[]), "choose one of ddpm, lms, euler"),
        (problem("heun", 2, times(&[100.0, 900.0]), &[]), "900 comes after 100; expected a falling list"),
        (problem("euler", 2, times(&[900.0, f64::NAN]), &[]), "NaN comes after 900"),
        (problem("euler", 3, times(&[900.0, 100.0]), &[]), "a list of 2 entries gives 2 steps, but steps = 3"),
        (problem("euler", 2, sigmas(&[9.0, 1.0]), &[]), "a list of 2 entries gives 1 step, but steps = 2"),
        (problem("euler", 2, times(&[1000.0, 1.0]), &[]), "1000 is not a training timestep; expected 0 to 999"),
        (problem("flow-match-euler", 1, times(&[0.0]), &[]), "expected above 0 to 1000"),
        (problem("euler", 1, sigmas(&[1.0, -1.0]), &[]), "-1 is not a sigma"),
        (problem("euler", 1, times(&[9.0]), &[("use_karras_sigmas", true.into())]), "set use_karras_sigmas = false"),
        (problem("unipc", 1, sigmas(&[1.0]), &[]), "set use_flow_sigmas = true"),
        (
            problem("ddim", 600, times(&[9.0]), &[("timestep_spacing", "compvis".into())]),
            "does not accept a custom list",
        ),
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn custom_schedules_can_equal_the_default() {
    for name in ["euler", "euler-ancestral", "lms", "heun", "kdpm2", "kdpm2-ancestral"] {
        let plain = scheduler::build(name, None, &Config::new(), &ScheduleRequest::new(8, IMAGES)).expect("it builds");
        let own: Vec<f64> = (0..8).rev().map(|i| f64::from((i as f64 * (999.0 / 7.0)) as f32)).collect();
        let mut request = ScheduleRequest::new(8, IMAGES);
        request.custom = Some(CustomSchedule::Timesteps(own));
        let listed = scheduler::build(name, None, &Config::new(), &request).expect("it builds");
        assert_eq!(plain.timesteps(), listed.timesteps(), "{name}");
        for named in NAMED_SCHEDULES {
            request.custom = Some(named.sigmas(8));
            let listed = scheduler::build(name, None, &Config::new(), &request).expect("it builds");
            assert_eq!(listed.timesteps().len(), plain.timesteps().len(), "{name}");
            assert!(listed.timesteps().iter().all(|t| t.is_finite()), "{name}: {:?}", listed.timesteps());
        }
    }
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
        // Ancestral Euler has no use_*_sigmas.
        if let Some(name_of_none) = expected.strip_suffix('?') {
            assert!(scheduler::find(name).is_none(), "{name} is not {name_of_none}");
            continue;
        }
        assert_eq!(scheduler::find(name).map(|entry| entry.name), Some(expected), "{name}");
    }
    assert!(scheduler::find("magic").is_none());
    assert_eq!(scheduler::suggest("eulr").first(), Some(&"euler"));
    let (entry, settings) = scheduler::find_alias("dpmpp 3m sde beta").expect("it is known");
    assert_eq!((entry.name, settings.len()), ("dpm-multistep", 3));
    let karras =
        scheduler::build("DPM++ 2M Karras", None, &Config::new(), &ScheduleRequest::new(10, 1)).expect("it builds");
    let table = table_of(&[("use_karras_sigmas", true.into())]);
    let spelled = scheduler::build("dpm-multistep", None, &table, &ScheduleRequest::new(10, 1)).expect("it builds");
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
fn an_unknown_value_is_rejected_with_the_choices() {
    for (name, key, value, says) in [
        ("ddim", "beta_schedule", Value::from("cosine"), "squaredcos_cap_v2"),
        ("ddim", "prediction_type", Value::from("eps"), "did you mean \"epsilon\"?"),
        ("euler", "timestep_spacing", Value::from("even"), "linspace, leading, trailing"),
        ("ddpm", "num_train_timesteps", Value::from("1000"), "an integer from 1 to 100000"),
        ("ddpm", "variance_type", Value::from("fixed_large_log"), "fixed_large"),
        ("dpm-singlestep", "solver_order", Value::from(4), "an integer from 1 to 3"),
        ("dpm-multistep", "algorithm_type", Value::from("dpmsolver"), "sigma_min"),
    ] {
        let config = table_of(&[(key, value)]);
        let Err(error) = scheduler::build(name, Some(&config), &Config::new(), &ScheduleRequest::new(5, 1)) else {
            panic!("{name} accepts {key}");
        };
        let message = error.to_string();
        assert!(message.contains(says), "{message}");
    }
    let error =
        scheduler::build("ddim", None, &Config::new(), &ScheduleRequest::new(1001, 1)).err().map(|e| e.to_string());
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
fn keys_of_another_classs_file_are_used() {
    let mut config = table_of(&[
        ("_class_name", "PNDMScheduler".into()),
        ("beta_schedule", "scaled_linear".into()),
        ("steps_offset", 1.into()),
        ("skip_prk_steps", true.into()),
        ("trained_betas", Value::Null),
    ]);
    let timesteps = |config: &Config| {
        let built = scheduler::build("ddim", Some(config), &Config::new(), &ScheduleRequest::new(10, 1));
        built.expect("it builds").timesteps().to_vec()
    };
    assert_eq!(timesteps(&config)[..2], [901.0, 801.0]);
    config.insert("_use_default_values".to_owned(), Value::from(vec!["steps_offset"]));
    assert_eq!(timesteps(&config)[..2], [900.0, 800.0]);
}

#[test]
fn a_nested_scheduler_is_checked_and_predicts() {
    let entry = scheduler::find("unipc").expect("unipc is there");
    let nested = |table: Value| table_of(&[("solver_p", table), ("timestep_spacing", "trailing".into())]);
    let problems = scheduler::check_table(entry, &nested(json!({"_class_name": "ddim", "clip_sampel": false})));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].1.contains("did you mean clip_sample?"), "{}", problems[0].1);
    let problems = scheduler::check_table(entry, &nested(json!({"clip_sample": false})));
    assert!(problems[0].1.contains("_class_name"), "{}", problems[0].1);
    for (table, says) in [
        (json!({"_class_name": "euler"}), "scales its samples differently"),
        (json!({"_class_name": "ddim"}), "visits timesteps 900, 800, 700 ..., not 999, 899, 799 ..."),
    ] {
        let built = scheduler::build("unipc", None, &nested(table), &ScheduleRequest::new(10, 1));
        let message = built.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains(says), "{message}");
    }
    let ddim = json!({"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"});
    assert!(difference(&run("unipc", &nested(ddim), 10, 5).1, &run("unipc", &nested(Value::Null), 10, 5).1) > 1e-3);
}

#[test]
fn an_order_of_another_class_is_clamped() {
    let timesteps = |config: &Config| {
        let built = scheduler::build("deis", Some(config), &Config::new(), &ScheduleRequest::new(5, 1));
        built.map(|scheduler| scheduler.timesteps().len()).map_err(|error| error.to_string())
    };
    assert_eq!(timesteps(&table_of(&[("solver_order", 4.into())])), Ok(5));
    let own = scheduler::build("deis", None, &table_of(&[("solver_order", 4.into())]), &ScheduleRequest::new(5, 1));
    assert!(own.err().is_some_and(|error| error.to_string().contains("an integer from 1 to 3, found 4")));
}
