//! Runs that a signal ends.

use crate::common::{Answer, ldm_ort, root};

/// Ctrl-C during a run that would take minutes: it ends within seconds, with exit code 130 and nothing half-written.
#[cfg(unix)]
#[test]
fn an_interrupt_stops_a_run_cleanly() {
    use std::time::{Duration, Instant};

    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = root().join("tests/golden/pipelines/plain/pipeline.toml");
    let mut command = ldm_ort(folder.path());
    command.arg("run").arg(&pipeline).args(["--output", "out", "--save-latents", "latents.npy"]);
    command.args(["--steps", "900", "--images", "4", "--width", "512", "--height", "512"]);
    let child = command.spawn().expect("the program starts");
    let id = child.id().to_string();
    std::thread::sleep(Duration::from_secs(3));
    let sent = std::process::Command::new("kill").args(["-INT", &id]).status().expect("kill is there");
    assert!(sent.success(), "the run was over before it could be interrupted");
    let start = Instant::now();
    let answer: Answer = child.wait_with_output().expect("the child ends").into();
    assert_eq!(answer.code, Some(130), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?} to stop", start.elapsed());
    assert!(answer.stderr.contains("interrupted"), "{answer}");
    assert!(!answer.stderr.contains("panicked"), "{answer}");
    let files = |name: &str| std::fs::read_dir(folder.path().join(name)).map_or(0, Iterator::count);
    assert_eq!(files("out"), 0, "an image was left: {answer}");
    assert!(files("") <= 1, "something beside the empty output folder was left: {answer}");
}

/// A wait for standard input is over with the first Ctrl-C, or the first signal to terminate, which is taken over with it
/// and, unlike it, not ignored where tests run in a shell's background.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_wait_for_standard_input() {
    use std::time::Duration;

    let folder = tempfile::tempdir().expect("a folder");
    for command in ["run", "optimize"] {
        let mut program = ldm_ort(folder.path());
        let mut child = program.args([command, "-"]).stdin(std::process::Stdio::piped()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(500));
        assert!(child.try_wait().expect("it is there").is_none(), "{command} does not wait for standard input");
        let sent = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
        let mut left = 100;
        while child.try_wait().expect("it is there").is_none() && left > 0 {
            std::thread::sleep(Duration::from_millis(100));
            left -= 1;
        }
        let _ = child.kill();
        assert!(left > 0, "{command} goes on");
        assert_eq!(child.wait().expect("it ended").code(), None, "the signal ended it");
    }
}
