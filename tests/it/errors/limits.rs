//! Inputs that no run may hang on, be flooded by, or pass on to the terminal.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::folder::Folder;
use super::{IMAGE_TO_IMAGE, TEXT_TO_IMAGE};
use crate::common::{Answer, answer, ldm_ort, models};

/// Runs a command with this text on its standard input.
fn fed(folder: &Path, arguments: &[&str], text: &[u8]) -> Answer {
    let mut command = ldm_ort(folder);
    let input = folder.join("stdin");
    std::fs::write(&input, text).expect("a file");
    command.args(arguments).stdin(Stdio::from(std::fs::File::open(&input).expect("a file")));
    answer(command)
}

fn run(folder: &Path, arguments: &[&str]) -> Answer {
    fed(folder, arguments, b"")
}

fn pipeline(base: &str) -> String {
    base.replace("MODEL", &models().join("sd1").display().to_string())
}

#[test]
fn a_pipeline_file_has_a_largest_size() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(scratch.path());
    let filled = |length: usize| {
        let text = pipeline(TEXT_TO_IMAGE) + "#";
        text.clone() + &" ".repeat(length - text.len())
    };
    folder.write("pipeline.toml", filled(1 << 20));
    let got = run(scratch.path(), &["check", "pipeline.toml"]);
    assert_eq!(got.code, Some(0), "{got}");
    let long = filled((1 << 20) + 1);
    folder.write("pipeline.toml", &long);
    for command in ["check", "run", "inspect", "optimize", "plot"] {
        let got = run(scratch.path(), &[command, "pipeline.toml"]);
        assert_eq!(got.code, Some(2), "{command}: {got}");
        assert!(got.stderr.contains("pipeline.toml: is longer than 1 MiB"), "{command}: {got}");
        let got = fed(scratch.path(), &[command, "-"], long.as_bytes());
        assert_eq!(got.code, Some(2), "{command}: {got}");
        assert!(got.stderr.contains("standard input: is longer than 1 MiB"), "{command}: {got}");
    }
}

#[test]
fn standard_input_is_a_pipeline_or_a_prompt() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(scratch.path());
    let text = pipeline(TEXT_TO_IMAGE);
    folder.write("pipeline.toml", &text);
    let file = run(scratch.path(), &["run", "pipeline.toml"]);
    assert_eq!(file.code, Some(0), "{file}");
    let image = |got: &Answer| std::fs::read(scratch.path().join(got.stdout.trim())).expect("an image");
    let from_file = image(&file);
    let piped = fed(scratch.path(), &["run", "-", "--output", "out"], text.as_bytes());
    assert_eq!(piped.code, Some(0), "{piped}");
    let plain = |png: &[u8]| png.windows(4).position(|w| w == b"IDAT").map(|at| png[at..].to_vec());
    assert_eq!(plain(&image(&piped)), plain(&from_file));
    for flag in ["--prompt", "--negative-prompt"] {
        let got = fed(scratch.path(), &["run", "pipeline.toml", "--json", flag, "-"], "a blue é\r\n".as_bytes());
        assert_eq!(got.code, Some(0), "{got}");
        let object: serde_json::Value = serde_json::from_str(&got.stdout).expect("JSON");
        let prompt = if flag == "--prompt" { "a blue é" } else { "a red circle" };
        assert_eq!(object["prompt"], prompt, "{got}");
    }
    for (arguments, says) in [
        (&["check", "-", "--prompt", "-"][..], "names standard input more than once"),
        (&["check", "pipeline.toml", "--prompt", "-", "--prompt", "-"], "names standard input more than once"),
    ] {
        let got = fed(scratch.path(), arguments, text.as_bytes());
        assert_eq!(got.code, Some(2), "{got}");
        assert!(got.stderr.contains(says), "{got}");
    }
    let got = fed(scratch.path(), &["check", "-"], text.replace("steps = 2", "steps = 0").as_bytes());
    assert!(got.code == Some(2) && got.stderr.contains("standard input:8: run.steps"), "{got}");
    let got = fed(scratch.path(), &["check", "-"], b"\xff\xfe");
    assert!(got.code == Some(2) && got.stderr.contains("standard input: is not UTF-8 text"), "{got}");
}

fn files_below(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files_below(&path, into) } else { into.push(path) }
    }
}

/// Opening a FIFO waits for somebody to write into it.
#[cfg(unix)]
#[test]
fn a_fifo_in_place_of_any_input_is_refused() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(scratch.path());
    folder.copy(&models().join("sd1-legacy"), "model");
    folder.write("lora.safetensors", "");
    folder.write("embedding.safetensors", "");
    folder.array("noise.npy", &[1, 4, 8, 8]);
    folder.image("in.png", 64, 64);
    let base = IMAGE_TO_IMAGE.replace("MODEL", "model");
    let with = |name: &str, lines: &str| folder.write(name, base.clone() + lines);
    with("pipeline.toml", "");
    with("lora.toml", "[[lora]]\npath = 'lora.safetensors'\n");
    with("embedding.toml", "[[textual_inversion]]\npath = 'embedding.safetensors'\ntoken = '<x>'\n");
    folder.write("noise.toml", TEXT_TO_IMAGE.replace("MODEL", "model").replace("seed = 1", "latents = 'noise.npy'"));
    let mut inputs = Vec::new();
    files_below(&scratch.path().join("model"), &mut inputs);
    let mut inputs: Vec<(PathBuf, Vec<&str>)> =
        inputs.into_iter().map(|path| (path, vec!["run", "pipeline.toml"])).collect();
    for (file, arguments) in [
        ("pipeline.toml", vec!["run", "pipeline.toml"]),
        ("pipeline.toml", vec!["inspect", "pipeline.toml"]),
        ("in.png", vec!["run", "pipeline.toml"]),
        ("in.png", vec!["run", "--from", "in.png"]),
        ("in.png", vec!["run", "pipeline.toml", "--runtime", "in.png"]),
        ("lora.safetensors", vec!["check", "lora.toml"]),
        ("embedding.safetensors", vec!["check", "embedding.toml"]),
        ("noise.npy", vec!["check", "noise.toml"]),
        ("model/unet/model.onnx", vec!["inspect", "model"]),
        ("model/unet/model.onnx", vec!["quantize", "model", "--weights", "half", "--output", "half"]),
        ("model/tokenizer/vocab.json", vec!["quantize", "model", "--weights", "half", "--output", "half"]),
    ] {
        inputs.push((scratch.path().join(file), arguments));
    }
    let mut ignored = Vec::new();
    for (path, arguments) in inputs {
        let hidden = path.with_extension("hidden");
        std::fs::rename(&path, &hidden).expect("a move");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo is there");
        assert!(made.success());
        let got = run(scratch.path(), &arguments);
        let says =
            ["is a FIFO", "is not a file"].iter().any(|text| got.stderr.contains(text) || got.stdout.contains(text));
        // What isn't read needn't be refused.
        match got.code {
            Some(0) if !says => ignored.push(path.strip_prefix(scratch.path()).expect("inside").to_path_buf()),
            _ => assert!(says && got.code < Some(3), "{}: {got}", path.display()),
        }
        std::fs::remove_file(&path).expect("a removal");
        std::fs::rename(&hidden, &path).expect("a move");
    }
    assert!(ignored.len() <= 2, "{ignored:?}");
}

/// Nothing that a file holds reaches the terminal as it is.
#[test]
fn control_characters_are_escaped() {
    const RED: &str = "\u{1b}[31m";
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(scratch.path());
    folder.copy(&models().join("sd1"), "model");
    let text = TEXT_TO_IMAGE.replace("MODEL", "model");
    folder.write("key.toml", text.clone() + "\"\\u001b[31m\" = 1\n");
    folder.write("model.toml", text.replace("'model'", "\"no\\u001b[31m\""));
    folder.write("scheduler.toml", text.clone() + "[scheduler.\"\\u001b[31m\"]\n");
    folder.write("prompt.toml", text.replace("'a red circle'", "\"a \\u001b[31m\\u009b red \\u202e circle\""));
    folder.replace("model/scheduler/scheduler_config.json", "\"scaled_linear\"", "\"\\u001b[31m\"");
    folder.write("index/model_index.json", "{\"_class_name\": \"\\u001b[31m\"}");
    folder.copy(&models().join("sd1"), "graph");
    folder.replace("graph/unet/model.onnx", "sequence_length", &format!("{RED}nce_length"));
    for (arguments, code) in [
        (&["check", "key.toml"][..], 2),
        (&["check", "model.toml"], 2),
        (&["check", "scheduler.toml"], 2),
        (&["check", "prompt.toml"], 2),
        (&["inspect", "model"], 0),
        (&["inspect", "index"], 2),
        (&["inspect", "graph"], 0),
        (&["inspect", "graph", "--json"], 0),
        (&["run", "-v", "prompt.toml", "--scheduler", "ddim", "--json"], 2),
    ] {
        let got = run(scratch.path(), arguments);
        assert_eq!(got.code, Some(code), "{arguments:?}: {got}");
        let steers = |c: char| c.is_control() && c != '\n' && c != '\t' || c == '\u{202e}';
        for text in [&got.stdout, &got.stderr] {
            assert!(!text.contains(steers), "{arguments:?}: {text:?}");
        }
    }
    let got = run(scratch.path(), &["inspect", "graph", "--json"]);
    assert!(got.stdout.contains("\\u001b[31m"), "{got}");
    serde_json::from_str::<serde_json::Value>(&got.stdout).expect("it's JSON still");
    let got = run(scratch.path(), &["check", "key.toml"]);
    assert!(got.stderr.contains("\\u001b[31m"), "{got}");
}

/// Writes another length over every axis of this name, without changing the length of the file: numbers in protobuf may
/// be written in more bytes than they need, and what is left over becomes the axis's denotation.
fn fix_axis(folder: &Folder, graph: &str, name: &str, length: u64) {
    let mut bytes = folder.read(graph);
    let axis = [&[0x12, name.len() as u8], name.as_bytes()].concat();
    let (number, denoted) = match name.len() {
        short @ ..=9 => (short + 1, 0),
        10 => (9, 2),
        long => (10, long - 9),
    };
    let digits =
        (0..number).map(|at| (length >> (7 * at).min(63)) as u8 & 0x7f | if at + 1 < number { 0x80 } else { 0 });
    let mut fixed: Vec<u8> = std::iter::once(0x08).chain(digits).collect();
    if denoted > 0 {
        fixed.extend([0x1a, denoted as u8 - 2]);
        fixed.extend(std::iter::repeat_n(b'x', denoted - 2));
    }
    assert_eq!(fixed.len(), axis.len());
    let mut found = 0;
    for at in 0..bytes.len() - axis.len() {
        if bytes[at..].starts_with(&axis) {
            bytes[at..at + axis.len()].copy_from_slice(&fixed);
            found += 1;
        }
    }
    assert!(found > 0, "{name} is no axis of {graph}");
    folder.write(graph, bytes);
}

/// A length that nothing can be allocated for is refused when the file is read.
#[test]
fn huge_axes_are_refused() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(scratch.path());
    folder.write("pipeline.toml", IMAGE_TO_IMAGE.replace("MODEL", "model"));
    folder.image("in.png", 64, 64);
    for (graph, axes) in [
        ("unet", &["batch_size", "height", "width", "sequence_length"][..]),
        ("text_encoder", &["batch_size", "sequence_length"]),
        ("vae_encoder", &["batch_size", "sample_height", "sample_width"]),
        ("vae_decoder", &["batch_size", "latent_height", "latent_width"]),
    ] {
        for axis in axes {
            for length in [1u64 << 40, 1 << 20] {
                if length == 1 << 20 && *axis != "batch_size" {
                    continue;
                }
                folder.copy(&models().join("sd1"), "model");
                fix_axis(&folder, &format!("model/{graph}/model.onnx"), axis, length);
                for command in ["check", "run"] {
                    let got = run(scratch.path(), &[command, "pipeline.toml"]);
                    assert_eq!(got.code, Some(2), "{graph} {axis} {length}: {got}");
                    assert!(got.stderr.contains(&length.to_string()), "{graph} {axis}: {got}");
                }
            }
        }
    }
}

/// More threads than CPUs wait for each other, and a thousand of them hang.
#[test]
fn threads_beyond_the_cpus_are_not_started() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(scratch.path());
    folder.write("pipeline.toml", pipeline(TEXT_TO_IMAGE));
    let usable = std::thread::available_parallelism().expect("a number").get();
    let says = |got: &Answer, used: usize| got.stderr.contains(&format!("which are {used}; {used} are used"));
    for command in ["run", "check"] {
        let got = run(scratch.path(), &[command, "pipeline.toml", "--set", "device.threads=1024"]);
        assert!(got.code == Some(0) && (says(&got, usable) || usable >= 1024), "{got}");
        let got = run(scratch.path(), &[command, "pipeline.toml", "--set", &format!("device.threads={usable}")]);
        assert!(got.code == Some(0) && !got.stderr.contains("device.threads"), "{got}");
    }
    // The affinity mask counts.
    if cfg!(target_os = "linux") && std::process::Command::new("taskset").arg("--version").output().is_ok() {
        let mut command = std::process::Command::new("taskset");
        command.args(["-c", "0", env!("CARGO_BIN_EXE_ldm-ort"), "check", "pipeline.toml", "--set", "device.threads=2"]);
        command.current_dir(scratch.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let got = answer(command);
        assert!(got.code == Some(0) && says(&got, 1), "{got}");
    }
}

/// A system that refuses threads gets an error, and no panic.
#[cfg(target_os = "linux")]
#[test]
fn refused_threads_are_an_error() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(scratch.path());
    folder.write("pipeline.toml", pipeline(TEXT_TO_IMAGE));
    let judge = |got: &Answer| {
        assert!(got.code == Some(1) && !got.stderr.contains("panicked"), "{got}");
        let lacks = ["starting failed", "no thread can be started", "taking over failed"];
        assert!(lacks.iter().any(|lack| got.stderr.contains(lack)), "{got}");
    };
    for command in
        [&["run", "pipeline.toml"][..], &["check", "--open", "pipeline.toml"], &["run", "--memory", "pipeline.toml"]]
    {
        let mut refused = ldm_ort(scratch.path());
        // No system has room for such a stack.
        refused.args(command).env("RUST_MIN_STACK", (1u64 << 46).to_string());
        judge(&answer(refused));
    }
    // A user who has no other process may start so many; root has no such limit, but may become that user.
    let user = ["--reuid=4242", "--regid=4242", "--clear-groups"];
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(scratch.path(), everybody).expect("a folder of one's own");
    let options = ldm_ort::Engine::default().runtime_options(None);
    let library = ldm_ort::Runtime::load(&options).expect("ONNX Runtime is found or fetched");
    folder.write("libonnxruntime.so", std::fs::read(library.path()).expect("a library"));
    let nobody = |most: usize, arguments: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(user).args(["prlimit", &format!("--nproc={most}"), env!("CARGO_BIN_EXE_ldm-ort")]).args(arguments);
        command.current_dir(scratch.path()).env("LDM_ORT_OPTIMIZE", "0").env("ORT_DYLIB_PATH", "libonnxruntime.so");
        command.output().map(Answer::from)
    };
    if nobody(64, &["run", "pipeline.toml"]).is_ok_and(|got| got.code == Some(0)) {
        for most in 1..5 {
            judge(&nobody(most, &["run", "pipeline.toml"]).expect("it starts"));
        }
    }
}
