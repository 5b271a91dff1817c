//! Mistakes in what surrounds a run: the folder it writes to, the runtime, the providers, the command line itself.

use std::path::Path;
use std::process::Command;

use super::Row;
use super::folder::Folder;
use crate::common::{answer, ldm_ort, models};

pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row::new("a file in the place of the output folder")
            .files(|f| f.write("out", "in the way"))
            .says(&["output.dir", "out is a file"]),
        Row::new("an output folder below a file")
            .change("dir = 'out'", "dir = 'pipeline.toml/out'")
            .says(&["output.dir", "pipeline.toml is a file"]),
        Row::new("latents into a folder that is not there")
            .over(&["--save-latents", "nowhere/latents.npy"])
            .says(&["nowhere"]),
        Row::new("latents over a folder").over(&["--save-latents", "."]).says(&["--save-latents", "is a folder"]),
        Row::new("latents under a name for another format").over(&["--save-latents", "latents.png"]).says(&[
            "--save-latents",
            "latents.png",
            ".npy",
        ]),
        Row::new("an image's name for the folder of images").change("dir = 'out'", "dir = 'out.png'").says(&[
            "output.dir",
            "out.png",
            "name ",
        ]),
        Row::new("the same by a flag").over(&["--output", "a.jpg"]).says(&["output.dir", "a.jpg"]),
        Row::new("another user's home").change("dir = 'out'", "dir = '~somebody/out'").says(&[
            "output.dir",
            "~somebody/out",
            "another user's",
            "./~somebody",
        ]),
        Row::new("another user's home in a flag")
            .flags(&["--save-latents=~somebody/latents.npy"])
            .says(&["--save-latents", "another user's"]),
        Row::new("a provider of another system")
            .over(&["--provider", if cfg!(windows) { "coreml" } else { "directml" }])
            .says(&["provider", "exists only on"]),
        Row::new("a runtime that is not there").flags(&["--runtime", "nowhere/libonnxruntime.so"]).says(&[
            "ONNX Runtime",
            "nowhere/libonnxruntime.so",
            "--runtime",
        ]),
        Row::new("a runtime that is no library")
            .files(|f| f.write("libonnxruntime.so", "not a library"))
            .flags(&["--runtime", "libonnxruntime.so"])
            .says(&["ONNX Runtime", "libonnxruntime.so"]),
        Row::new("a variable that names no library")
            .files(|f| f.write("libonnxruntime.so", "not a library"))
            .environment("ORT_DYLIB_PATH", "libonnxruntime.so")
            .command(&["run", "pipeline.toml"])
            .says(&["ONNX Runtime", "libonnxruntime.so", "ORT_DYLIB_PATH"]),
        Row::new("an error and --json").change("steps = 2", "steps = 0").flags(&["--json"]).says(&["run.steps"]),
        Row::new("no arguments").command(&[]).says(&["Usage", "run"]),
        Row::new("an unknown command").command(&["draw", "pipeline.toml"]).says(&["draw", "Usage", "--help"]),
        Row::new("run, and no more").command(&["run"]).says(&["<PIPELINE.toml|MODEL_DIR>"]),
        Row::new("a list of nothing").command(&["list", "samplers"]).says(&["samplers", "schedulers"]),
        Row::new("a runtime that is not built").command(&["runtime", "install", "metal"]).says(&["metal", "cpu"]),
    ];
    if !can_use("cuda") {
        rows.push(
            Row::new("a provider that cannot be used").over(&["--provider", "cuda"]).says(&["provider cuda", "hint:"]),
        );
        rows.push(
            Row::new("a list of providers that cannot be used")
                .over(&["--set", "device.provider=['tensorrt', 'cuda']"])
                .says(&[
                    "provider tensorrt, cuda: none of the list can be used",
                    "tensorrt is not part of",
                    "cuda is not part of",
                    "hint:",
                    "end the list in \"cpu\"",
                ]),
        );
        rows.push(
            Row::new("a component's provider that cannot be used")
                .add("[device]\nprovider = 'cpu'\n[device.vae_decoder]\nprovider = 'cuda'\n")
                .says(&["provider cuda", "hint:"]),
        );
    }
    if cfg!(target_os = "linux") {
        rows.push(
            Row::new("an output folder that nobody can write")
                .change("dir = 'out'", "dir = '/proc/out'")
                .says(&["output.dir", "/proc/out"]),
        );
        rows.push(
            Row::new("latents where nobody can write")
                .over(&["--save-latents", "/proc/latents.npy"])
                .says(&["--save-latents", "/proc/latents.npy"]),
        );
    }
    if cfg!(unix) {
        rows.push(
            Row::new("a runtime that is too old")
                .files(old_runtime)
                .flags(&["--runtime", "libonnxruntime.so"])
                .says(&["ONNX Runtime", "libonnxruntime.so", "1.17.3", "1.22"]),
        );
        rows.push(
            Row::new("a full disk")
                .after_shell("trap '' XFSZ; ulimit -f 4")
                .change("width = 64", "width = 128")
                .fails()
                .says(&["out/", "writing failed"]),
        );
        rows.push(
            Row::new("a full disk for the latents")
                .after_shell("trap '' XFSZ; ulimit -f 40")
                .change("seed = 1", "seed = 1\nimages = 48")
                .flags(&["--save-latents", "latents.npy"])
                .fails()
                .leaves(48)
                .says(&["latents.npy", "writing failed"]),
        );
    }
    // A runtime that the system's loader finds would be taken, and nothing would be wrong.
    if cfg!(target_os = "linux") && !system_has_a_runtime() {
        rows.push(
            Row::new("no runtime, and none to be fetched")
                .environment("ORT_DYLIB_PATH", "")
                .environment("LDM_ORT_CACHE_DIR", "")
                .environment("XDG_CACHE_HOME", "/nonexistent/cache")
                .environment("HOME", "/nonexistent")
                .flags(&["--offline"])
                .says(&["ONNX Runtime", "the network may not be used", "pip download", "ORT_DYLIB_PATH"]),
        );
        rows.push(
            Row::new("no runtime, and a provider that none to be fetched has")
                .environment("ORT_DYLIB_PATH", "")
                .environment("LDM_ORT_CACHE_DIR", "")
                .environment("XDG_CACHE_HOME", "/nonexistent/cache")
                .environment("HOME", "/nonexistent")
                .flags(&["--provider", "nvrtx"])
                .says(&["provider nvrtx", "none of the packages that can be fetched", "given with `--runtime`"]),
        );
    }
    rows
}

/// Providers of a list that cannot be used are skipped with a warning, their options with them, and the rest of the run is
/// that of the provider that is left.
pub fn lists_fall_through() {
    if can_use("cuda") {
        return;
    }
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(scratch.path());
    let text = super::TEXT_TO_IMAGE.replace("MODEL", &models().join("sd1").display().to_string());
    let run = |command: &[&str], tables: &str| {
        folder.write("pipeline.toml", format!("{text}{tables}"));
        let mut program = ldm_ort(scratch.path());
        program.args(command).args(["pipeline.toml", "--save-latents", "latents.npy"]);
        answer(program)
    };
    let plain = run(&["run", "--quiet"], "");
    assert_eq!((plain.code, plain.stderr.as_str()), (Some(0), ""), "{plain}");
    let latents = folder.read("latents.npy");
    let general = "[device]\nprovider = ['tensorrt', 'cuda', 'cpu']\n[device.cuda]\ndevice_id = 0\n";
    let one = "[device.vae_decoder]\nprovider = ['cuda', 'cpu']\n";
    for (tables, skipped) in [
        (
            general.to_owned(),
            vec!["tensorrt cannot be used and is skipped, cpu", "cuda cannot be used and is skipped, cpu"],
        ),
        (one.to_owned(), vec!["cuda cannot be used and is skipped for vae_decoder, cpu"]),
        (
            format!("{general}{one}"),
            vec!["cuda cannot be used and is skipped for vae_decoder", "tensorrt cannot be used"],
        ),
    ] {
        for command in [&["check"][..], &["check", "--open"], &["run", "--quiet"]] {
            let got = run(command, &tables);
            assert_eq!(got.code, Some(0), "{got}");
            for words in &skipped {
                let sentence = format!("warning: provider {words}");
                assert_eq!(got.stderr.matches(&sentence).count(), 1, "{sentence}: {got}");
            }
            assert!(got.stderr.contains("is not part of the ONNX Runtime in use"), "{got}");
        }
        assert_eq!(folder.read("latents.npy"), latents, "{tables}");
    }
}

/// Whether `ldm-ort list providers` says that a provider can be used here.
fn can_use(provider: &str) -> bool {
    let mut command = ldm_ort(Path::new("."));
    command.args(["list", "providers"]);
    let listed = answer(command);
    let of_provider = |line: &&str| line.split_whitespace().next() == Some(provider);
    let line = listed.stdout.lines().find(of_provider).unwrap_or_else(|| panic!("{provider} is not listed: {listed}"));
    line.split_whitespace().nth(1) == Some("yes")
}

fn system_has_a_runtime() -> bool {
    let folders = ["/lib", "/usr/lib", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libonnxruntime.so"))
}

/// A library that answers what ONNX Runtime 1.17.3 answers: its version, and that it has no newer interface.
const OLD_RUNTIME: &str = r#"
use std::ffi::{c_char, c_void};
#[repr(C)]
pub struct Base {
    api: extern "C" fn(u32) -> *const c_void,
    version: extern "C" fn() -> *const c_char,
}
extern "C" fn api(_: u32) -> *const c_void {
    std::ptr::null()
}
extern "C" fn version() -> *const c_char {
    c"1.17.3".as_ptr()
}
static BASE: Base = Base { api, version };
#[unsafe(no_mangle)]
pub extern "C" fn OrtGetApiBase() -> *const Base {
    &BASE
}
"#;

fn old_runtime(folder: &Folder) {
    folder.write("old.rs", OLD_RUNTIME);
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.args(["--edition", "2024", "--crate-type", "cdylib", "-C", "panic=abort", "-o"]);
    let built =
        command.arg(folder.path("libonnxruntime.so")).arg(folder.path("old.rs")).output().expect("rustc starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}
