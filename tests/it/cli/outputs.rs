//! Outputs of a run: their places, and their names where several runs write at once.

use super::{assert_says, call, plain, printed};
use crate::common::{Answer, answer, ldm_ort, models, root};

/// Only the result is on stdout: the images' paths without `--json`, and none of the talk around them.
#[test]
fn what_is_no_result_goes_to_stderr() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = root().join("tests/golden/pipelines/plain/pipeline.toml");
    let pipeline = pipeline.to_str().expect("the path is Unicode");
    let answer = call(folder.path(), &["run", pipeline, "--output", "out", "--steps", "1", "--seed", "5"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_says(&answer.stdout, &["out", ".png"]);
    assert!(!answer.stderr.contains('\u{1b}'), "no colors and no bars where there is no terminal: {answer}");
    assert!(!answer.stdout.contains('\u{1b}'), "no colors and no bars where there is no terminal: {answer}");

    let quiet = call(folder.path(), &["run", pipeline, "--output", "out", "--steps", "1", "--seed", "5", "--json"]);
    assert_eq!(quiet.stdout.lines().count(), 1, "{quiet}");
}

/// Eight runs at once whose images have one name and different contents: each keeps its own, whole.
#[test]
fn eight_runs_at_once_keep_eight_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let steps: Vec<String> = (1..=8).map(|steps| steps.to_string()).collect();
    let runs = steps.iter().map(|steps| {
        let mut command = ldm_ort(folder.path());
        command.args(["run", &plain(), "--output", "out", "--seed", "5", "--preview", "1", "--steps", steps]);
        command.spawn().expect("the program starts")
    });
    let runs: Vec<_> = runs.collect();
    let mut printed: Vec<_> = runs
        .into_iter()
        .map(|run| {
            let answer: Answer = run.wait_with_output().expect("the run ends").into();
            assert_eq!(answer.code, Some(0), "{answer}");
            answer.stdout.trim().to_owned()
        })
        .collect();
    printed.sort();
    let mut there: Vec<_> = std::fs::read_dir(folder.path().join("out"))
        .expect("the folder")
        .map(|entry| format!("out/{}", entry.expect("an entry").file_name().to_string_lossy()))
        .collect();
    there.sort();
    assert_eq!(printed, there, "each run printed the name of a file of its own, and left nothing else");
    let record = |path: &String| {
        let path = folder.path().join(path);
        ldm_ort::image::load(&path, ldm_ort::image::InputLimit::default()).expect("the image is whole");
        ldm_ort::metadata::read_png(&path).expect("a record").steps
    };
    let mut found: Vec<_> = there.iter().map(record).collect();
    found.sort_unstable();
    assert_eq!(found, (1..=8).collect::<Vec<_>>());
}

/// A run whose preview has the name of another run's leaves that one alone.
#[test]
fn a_preview_of_another_run_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["run", &plain(), "--output", "out", "--seed", "5", "--steps", "2", "--preview"];
    let path = printed(folder.path(), &arguments);
    let theirs = folder.path().join(path.trim()).with_extension("preview.png");
    std::fs::write(&theirs, "another run's").expect("a file");
    printed(folder.path(), &arguments);
    assert_eq!(std::fs::read(&theirs).expect("it is there"), b"another run's");
    assert_eq!(std::fs::read_dir(folder.path().join("out")).expect("the folder").count(), 2);
}

/// `--save-latents` and `[output] dir` go where their names lead: into a FIFO or device, through a link, to `~`.
#[cfg(unix)]
#[test]
fn outputs_go_where_their_names_lead() {
    use std::os::unix::fs::{FileTypeExt, symlink};

    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let pipeline = "[model]\npath = '~/model'\n[task.text-to-image]\nprompt = 'a'\n[run]\nsteps = 1\nseed = 1\n\
                    [output]\ndir = '~/images'\n";
    std::fs::write(at("pipeline.toml"), pipeline).expect("a file");
    symlink(models().join("sd1"), at("model")).expect("a link");
    symlink("real.npy", at("link.npy")).expect("a link");
    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().expect("mkfifo is there").success());
    let run = |latents: &str| {
        let mut command = ldm_ort(folder.path());
        command.env("HOME", folder.path()).args(["run", "pipeline.toml", &format!("--save-latents={latents}")]);
        // Where HOME is another, the runtime's cache still is the usual one.
        let cache = directories::BaseDirs::new().expect("a home").cache_dir().to_path_buf();
        command.env("XDG_CACHE_HOME", cache);
        let answer = answer(command);
        assert_eq!(answer.code, Some(0), "{latents}: {answer}");
    };
    run("~/home.npy");
    let latents = std::fs::read(at("home.npy")).expect("latents");
    run("link.npy");
    assert!(std::fs::symlink_metadata(at("link.npy")).expect("a link").is_symlink());
    assert_eq!(std::fs::read(at("real.npy")).expect("latents"), latents);
    let reader = std::thread::spawn({
        let pipe = at("pipe");
        move || std::fs::read(pipe).expect("what goes through")
    });
    run("pipe");
    assert_eq!(reader.join().expect("the reader"), latents);
    assert!(std::fs::metadata(at("pipe")).expect("the FIFO").file_type().is_fifo());
    run("/dev/null");
    assert!(std::fs::metadata("/dev/null").expect("a device").file_type().is_char_device(), "/dev/null was replaced");
    assert_eq!(std::fs::read_dir(at("images")).expect("the folder").count(), 1, "the same image each time");
}

/// The README's first command, but for the release build.
#[test]
fn the_shipped_pipeline_draws() {
    let root = root();
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().to_str().unwrap();
    let path = printed(root, &["run", "pipeline.toml", "--output", folder]);
    assert!(std::fs::metadata(path.trim()).unwrap().len() > 500, "{path}");

    // 72 is a multiple of the VAE's factor, 4, but not of what the UNet's halvings need.
    let answer = call(root, &["check", "pipeline.toml", "--width", "72"]);
    assert_eq!(answer.code, Some(2), "{answer}");
    assert_says(&answer.stderr, &["run.width: 72 is not a multiple of", "64"]);
}
