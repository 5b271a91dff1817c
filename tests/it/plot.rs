//! `ldm-ort plot`: the SVG image, the numbers, and invalid arguments.

use std::path::Path;

use crate::common::{Answer, answer, ldm_ort, models};
use serde_json::Value;

/// Runs the program in a folder with a pipeline of six steps on a model whose scheduler is PNDM, without a runtime.
fn call(folder: &Path, arguments: &[&str]) -> Answer {
    let model = models().join("sd1");
    let text = format!(
        "[model]\npath = '{}'\n[task.text-to-image]\nprompt = 'a red circle'\n[run]\nsteps = 6\n",
        model.display()
    );
    std::fs::write(folder.join("pipeline.toml"), text).expect("a file");
    let mut command = ldm_ort(folder);
    command.args(arguments).env("NO_COLOR", "1").env("ORT_DYLIB_PATH", "nowhere/libonnxruntime.so");
    let answer = answer(command);
    assert!(!answer.stderr.contains("panicked"), "{answer}");
    answer
}

/// Returns the names of the files next to the pipeline.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "pipeline.toml").collect()
}

#[test]
fn the_image_is_next_to_the_pipeline_and_names_every_scheduler() {
    let folder = tempfile::tempdir().expect("a folder");
    let others = ["--scheduler", "euler", "--scheduler", "DPM++ 2M Karras", "--scheduler", "HeunDiscreteScheduler"];
    let answer = call(folder.path(), &[&["plot", "pipeline.toml"], &others[..]].concat());
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_eq!((answer.stdout.as_str(), answer.stderr.as_str()), ("pipeline.svg\n", ""), "{answer}");
    assert_eq!(files(folder.path()), ["pipeline.svg"]);
    let image = std::fs::read_to_string(folder.path().join("pipeline.svg")).expect("the image");
    assert!(image.starts_with("<svg") && image.trim_end().ends_with("</svg>"), "{image}");
    for name in ["pndm", "euler", "dpm-multistep (DPM++ 2M Karras)", "heun", "6 steps", "timestep", "sigma"] {
        assert!(image.contains(name), "{name} is not in:\n{image}");
    }
}

#[test]
fn the_numbers_cover_every_evaluation() {
    let folder = tempfile::tempdir().expect("a folder");
    // A scheduler requested twice, also by another name, is drawn once.
    let arguments = ["plot", "pipeline.toml", "--json", "--steps", "4", "--output", "a.svg"];
    let others = ["--scheduler", "heun", "--scheduler", "Heun", "--scheduler", "HeunDiscrete"];
    let answer = call(folder.path(), &[&arguments[..], &others[..]].concat());
    assert_eq!(answer.code, Some(0), "{answer}");
    let object: Value = serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(object["path"], "a.svg");
    assert!(folder.path().join("a.svg").is_file());
    let [pndm, heun] = object["schedulers"].as_array().expect("a list").as_slice() else {
        panic!("not two schedulers: {object}");
    };
    assert_eq!((&pndm["name"], &heun["name"]), (&"pndm".into(), &"heun".into()));
    assert_eq!(heun["positions"], serde_json::json!([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]));
    let numbers = |key: &str| -> Vec<f64> {
        heun[key].as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
    };
    let (timesteps, sigmas, snr) = (numbers("timesteps"), numbers("sigmas"), numbers("snr"));
    assert_eq!((timesteps.len(), sigmas.len(), snr.len()), (7, 7, 7));
    assert!(timesteps.is_sorted_by(|a, b| a >= b) && sigmas.is_sorted_by(|a, b| a >= b), "{object}");
    assert!(sigmas.iter().zip(&snr).all(|(sigma, snr)| (snr * sigma * sigma - 1.0).abs() < 1e-9), "{object}");
}

#[test]
fn flags_stand_over_the_pipelines_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = ["--set", "scheduler.ddim.timestep_spacing=trailing", "--scheduler", "ddim"];
    let answer = call(folder.path(), &[&["plot", "pipeline.toml", "--json"], &keys[..]].concat());
    assert_eq!(answer.code, Some(0), "{answer}");
    let object: Value = serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer}"));
    let [own, plain] = object["schedulers"].as_array().expect("a list").as_slice() else {
        panic!("not two schedulers: {object}");
    };
    assert_eq!((&own["name"], &plain["name"]), (&"ddim (with the pipeline's keys)".into(), &"ddim".into()));
    assert_eq!(own["timesteps"][0], 999.0, "{object}");
    assert_ne!(own["timesteps"], plain["timesteps"], "{object}");
}

/// A custom schedule applies to the pipeline's scheduler; other schedulers use their own schedule of as many steps.
#[test]
fn a_custom_schedule_is_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--scheduler", "euler", "--set", "scheduler.euler.timestep_spacing='trailing'"];
    let given = ["--set", "run.timesteps=[900, 500, 100]", "--set", "run.steps=3"];
    let answer = call(folder.path(), &[&["plot", "pipeline.toml", "--json"], &flags[..], &given[..]].concat());
    assert_eq!(answer.code, Some(0), "{answer}");
    let object: Value = serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(object["schedulers"][0]["timesteps"], serde_json::json!([900.0, 500.0, 100.0]), "{object}");
    assert_eq!(object["schedulers"][1]["name"], "euler");
    assert_eq!(object["schedulers"][1]["timesteps"].as_array().map(Vec::len), Some(3), "{object}");
}

/// A device or FIFO is written to directly, a link is preserved, and `~` is the home folder.
#[cfg(unix)]
#[test]
fn a_plot_follows_links_devices_and_the_home_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let plot = |output: &str| {
        call(folder.path(), &["inspect", "nothing"]);
        let mut command = ldm_ort(folder.path());
        command.env("HOME", folder.path()).args(["plot", "pipeline.toml", &format!("--output={output}")]);
        let answer = answer(command);
        assert_eq!(answer.code, Some(0), "{output}: {answer}");
        answer.stdout
    };
    std::os::unix::fs::symlink("real.svg", at("link.svg")).expect("a link");
    plot(at("link.svg").to_str().expect("Unicode"));
    plot("~/home.svg");
    let mut there = files(folder.path());
    there.sort();
    assert_eq!(there, ["home.svg", "link.svg", "real.svg"]);
    assert!(std::fs::symlink_metadata(at("link.svg")).expect("a link").is_symlink());
    let drawn = std::fs::read_to_string(at("real.svg")).expect("a plot");
    assert!(drawn.contains("</svg>") && drawn == std::fs::read_to_string(at("home.svg")).expect("a plot"));

    plot("/dev/null");
    let null = std::fs::metadata("/dev/null").expect("a device").file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_char_device(&null), "/dev/null was replaced");
    assert!(plot("/dev/stdout").starts_with(&drawn));
}

#[test]
fn invalid_plots_are_errors_and_leave_no_file() {
    for (arguments, code, says) in [
        (&["--scheduler", "eulr"][..], 2, &["--scheduler", "\"eulr\"", "did you mean euler"][..]),
        (&["--scheduler", "magic"], 2, &["--scheduler", "\"magic\"", "choose", "ddim"]),
        (&["--output", "a.png"], 2, &["--output", "a.png", ".svg"]),
        (&["--output", "a"], 2, &["--output", "a.svg"]),
        (&["--output", "nowhere/a.svg"], 2, &["--output", "nowhere"]),
        (&["--output", "pipeline.toml/a.svg"], 2, &["--output", "pipeline.toml"]),
        (&["--scheduler", "lcm", "--steps", "60"], 2, &["lcm", "60 steps"]),
        (&["--steps", "0"], 2, &["--steps", "from 1"]),
        (&["--set", "scheduler.ddim.bta_start=1"], 2, &["bta_start", "beta_start"]),
        (&["--set", "model.path=nowhere"], 2, &["nowhere"]),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let answer = call(folder.path(), &[&["plot", "pipeline.toml"], arguments].concat());
        assert_eq!(answer.code, Some(code), "{arguments:?}: {answer}");
        assert_eq!(answer.stdout, "", "{arguments:?}: {answer}");
        for part in says {
            assert!(answer.stderr.contains(part), "{arguments:?} does not say {part:?}: {answer}");
        }
        assert_eq!(files(folder.path()), Vec::<String>::new(), "{arguments:?}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let answer = call(folder.path(), &["plot", "other.toml"]);
    assert_eq!((answer.code, answer.stderr.contains("other.toml")), (Some(2), true), "{answer}");
}
