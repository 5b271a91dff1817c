//! Running the program the way its users do.

mod fixtures;
mod folders;
pub mod npy;

pub use fixtures::root;
pub use folders::copy_folder;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ldm_ort::Runtime;

/// How long one command may take. The first one on a machine may have to fetch ONNX Runtime.
const PATIENCE: Duration = Duration::from_secs(300);

/// The folder with the tiny models.
pub fn models() -> PathBuf {
    root().join("tests/fixtures/models")
}

/// ONNX Runtime, as the tests' own process loads it.
pub fn runtime() -> Runtime {
    Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("ONNX Runtime is found or fetched")
}

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said beside that.
    pub stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// The program, to be run in `folder` with nothing to read and with its output caught.
pub fn ldm_ort(folder: &Path) -> Command {
    root();
    let program = env!("CARGO_BIN_EXE_ldm-ort");
    // A program of another system is run by an emulator (scripts/cross).
    let emulator = std::env::var_os("LDM_ORT_RUNNER");
    let mut command = Command::new(emulator.as_deref().unwrap_or(program.as_ref()));
    command.args(emulator.is_some().then_some(program));
    // Most tests are not about what is kept between runs, and leave nothing in the user's cache.
    command.env("LDM_ORT_OPTIMIZE", "0");
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end; one that does not come to it is ended and fails the test.
pub fn answer(mut command: Command) -> Answer {
    let shown = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let pipes = (child.stdout.take(), child.stderr.take());
    let out = std::thread::spawn(move || drain(pipes.0));
    let err = std::thread::spawn(move || drain(pipes.1));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().expect("the child can be ended");
            panic!("{shown}: not done after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let (stdout, stderr) = (out.join().expect("stdout was read"), err.join().expect("stderr was read"));
    Output { status, stdout, stderr }.into()
}

fn drain(pipe: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.expect("the pipe is there").read_to_end(&mut bytes).expect("the pipe can be read");
    bytes
}
