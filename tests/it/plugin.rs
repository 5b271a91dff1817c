//! Plugin providers, with one that is compiled here: tests/fixtures/plugin/plugin.rs.

use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use ort::sys::OrtApi;

use crate::common::{Answer, answer, ldm_ort, models, root};

/// Compiles the plugin into a folder, and returns its library.
fn compile(folder: &Path) -> PathBuf {
    let file = format!("{}test_provider{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.args(["--edition", "2024", "--crate-type", "cdylib", "-C", "panic=abort", "-o"]);
    command.arg(folder.join(&file)).arg(root().join("tests/fixtures/plugin/plugin.rs"));
    for (name, offset) in [
        ("AddKeyValuePair", offset_of!(OrtApi, AddKeyValuePair)),
        ("CreateKeyValuePairs", offset_of!(OrtApi, CreateKeyValuePairs)),
        ("CreateStatus", offset_of!(OrtApi, CreateStatus)),
        ("GetEpApi", offset_of!(OrtApi, GetEpApi)),
        ("GetSessionConfigEntry", offset_of!(OrtApi, GetSessionConfigEntry)),
        ("HardwareDevice_Type", offset_of!(OrtApi, HardwareDevice_Type)),
    ] {
        command.env(name, offset.to_string());
    }
    let built = command.output().expect("rustc starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    folder.join(file)
}

fn run(folder: &Path, arguments: &[&str]) -> Answer {
    let mut command = ldm_ort(folder);
    command.args(arguments);
    answer(command)
}

#[test]
fn a_plugin_is_listed_chosen_and_gets_its_options() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let library = compile(folder);
    let library = library.to_str().unwrap();

    let listed = run(folder, &["list", "providers", "--json", "--provider-library", library]);
    assert_eq!(listed.code, Some(0), "{listed}");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&listed.stdout).unwrap();
    let row = rows.iter().find(|row| row["name"] == "TestExecutionProvider").unwrap();
    assert_eq!((&row["usable"], &row["from"]), (&true.into(), &"plugin".into()), "{row}");
    assert!(row["libraries"][0].as_str().is_some_and(|file| file.contains("test_provider")), "{row}");
    let device = &row["devices"][0];
    assert_eq!((&device["name"], &device["memory"]), (&"Test device (CPU)".into(), &"64 MB".into()), "{row}");
    let text = run(folder, &["list", "providers", "--provider-library", library]).stdout;
    assert!(text.contains("device: Test device (CPU), memory 64 MB"), "{text}");

    let model = models().join("sd1").display().to_string();
    let chosen = ["check", "pipeline.toml", "--provider", "TestExecutionProvider"];
    let pipeline = format!("[model]\npath = '{model}'\n[task.text-to-image]\nprompt = 'x'\n[run]\nsteps = 1\n");
    std::fs::write(folder.join("pipeline.toml"), &pipeline).unwrap();
    let refused = run(folder, &[&chosen[..], &["--provider-library", library]].concat());
    assert_eq!(refused.code, Some(2), "{refused}");
    let says = "provider TestExecutionProvider: cannot be set up: made on 1 device to refuse, with speed None";
    assert!(refused.stderr.contains(says), "{refused}");
    let unknown = run(folder, &chosen);
    assert!(unknown.stderr.contains("needs its library, in provider_library"), "{unknown}");

    // The file names the library relative to itself, and the provider's options without its name before them.
    let file = Path::new(library).file_name().unwrap().to_str().unwrap();
    let device = format!(
        "[device]\nprovider = ['TestExecutionProvider', 'cpu']\nprovider_library = '{file}'\n\
         [device.TestExecutionProvider]\nspeed = 7\n"
    );
    std::fs::write(folder.join("pipeline.toml"), pipeline + &device).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let skipped = run(elsewhere.path(), &["check", "--open", folder.join("pipeline.toml").to_str().unwrap()]);
    assert_eq!(skipped.code, Some(0), "{skipped}");
    // Graphs on the CPU are not given to the plugin, which would refuse them.
    let says = "provider TestExecutionProvider cannot be used and is skipped, cpu is used instead: cannot be set up: made on 1 \
                device to refuse, with speed Some(\"7\")";
    assert!(skipped.stderr.contains(says), "{skipped}");
}

#[test]
fn what_is_no_plugin_or_offers_another_provider_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let library = compile(folder);
    let model = models().join("sd1");
    let model = model.to_str().unwrap();
    let other = run(
        folder,
        &["run", model, "-p", "x", "--provider", "Testing", "--provider-library", library.to_str().unwrap()],
    );
    assert_eq!(other.code, Some(2), "{other}");
    assert!(other.stderr.contains("hint: the libraries offer TestExecutionProvider"), "{other}");
    let none = folder.join("none.so");
    let engine = ldm_ort::Engine::builder().provider_library(&none).build().unwrap();
    let refused = engine.open_model(models().join("sd1")).unwrap_err().to_string();
    assert!(refused.contains("none.so does not exist"), "{refused}");
    std::fs::write(folder.join("text.so"), "no library").unwrap();
    for (file, says) in [("text.so", "is not a shared library"), ("none.so", "does not exist")] {
        let refused = run(folder, &["run", model, "-p", "x", "--provider-library", file]);
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(refused.stderr.contains(says) && refused.stderr.contains("hint: name the shared library"), "{refused}");
    }
}
