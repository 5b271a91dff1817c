//! What can go wrong, a row each: what is set up, the exit code, and what the message has to say.
//!
//! A row begins with a pipeline that works. It changes the text, the model directory, the files beside it or the
//! command, and lists what has to stand in the message: the file, key or tensor at fault, what was expected and found,
//! what to do. `check` has to say the same without running wherever the row does not state otherwise.

mod flux;
mod folder;
mod inputs;
mod limits;
mod lora;
mod model_directory;
mod pipeline_file;
mod prompts;
mod stages;
mod surroundings;
mod tasks;

use std::path::Path;
use std::sync::Mutex;

use crate::common::{Answer, answer, ldm_ort, models};
use folder::Folder;

/// A pipeline that works. Line 2 is the model, 5 the prompt, 8 the steps.
const TEXT_TO_IMAGE: &str = "\
[model]
path = 'MODEL'

[task.text-to-image]
prompt = 'a red circle'

[run]
steps = 2
seed = 1
width = 64
height = 64

[output]
dir = 'out'
";

/// Another. Line 6 is the image, 7 the strength.
const IMAGE_TO_IMAGE: &str = "\
[model]
path = 'MODEL'

[task.image-to-image]
prompt = 'a red circle'
image = 'in.png'
strength = 0.8

[run]
steps = 5
seed = 1

[output]
dir = 'out'
";

/// What `ldm-ort check` makes of the same pipeline.
#[derive(Clone, Copy, PartialEq)]
enum Check {
    /// The same words and the same exit code.
    Same,
    /// Nothing: only running it shows what is wrong.
    Nothing,
    /// The row is not about a pipeline.
    None,
}

/// One thing that goes wrong.
struct Row {
    name: &'static str,
    base: &'static str,
    model: &'static str,
    changes: Vec<(&'static str, &'static str)>,
    added: &'static str,
    files: Option<fn(&Folder)>,
    arguments: Vec<&'static str>,
    set: Vec<(&'static str, &'static str)>,
    shell: Option<&'static str>,
    code: i32,
    says: Vec<&'static str>,
    leaves: usize,
    check: Check,
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            base: TEXT_TO_IMAGE,
            model: "sd1",
            changes: Vec::new(),
            added: "",
            files: None,
            arguments: vec!["run", "pipeline.toml"],
            set: Vec::new(),
            shell: None,
            code: 2,
            says: Vec::new(),
            leaves: 0,
            check: Check::Same,
        }
    }

    /// Begins with the pipeline that starts from an image.
    fn image_to_image(mut self) -> Self {
        self.base = IMAGE_TO_IMAGE;
        self
    }

    /// Begins with another pipeline.
    fn base(mut self, base: &'static str) -> Self {
        self.base = base;
        self
    }

    /// Takes another of the tiny models.
    fn model(mut self, name: &'static str) -> Self {
        self.model = name;
        self
    }

    /// Replaces a part of the pipeline file.
    fn change(mut self, from: &'static str, to: &'static str) -> Self {
        self.changes.push((from, to));
        self
    }

    /// Adds lines at the end of the pipeline file.
    fn add(mut self, lines: &'static str) -> Self {
        self.added = lines;
        self
    }

    /// Changes the files of the folder, in which `model` is a copy of the model directory.
    fn files(mut self, change: fn(&Folder)) -> Self {
        self.files = Some(change);
        self
    }

    /// Adds flags that stand over keys, which `check` takes as well.
    fn over(mut self, flags: &[&'static str]) -> Self {
        self.arguments.extend(flags);
        self
    }

    /// Adds flags to `run pipeline.toml` that are not flags of `check`.
    fn flags(mut self, flags: &[&'static str]) -> Self {
        self.arguments.extend(flags);
        self.check = Check::None;
        self
    }

    /// Runs another command altogether.
    fn command(mut self, arguments: &[&'static str]) -> Self {
        self.arguments = arguments.to_vec();
        self.check = Check::None;
        self
    }

    /// Sets an environment variable; an empty value removes it.
    fn environment(mut self, name: &'static str, value: &'static str) -> Self {
        self.set.push((name, value));
        self
    }

    /// Starts the command from a shell that runs this line first.
    fn after_shell(mut self, line: &'static str) -> Self {
        self.shell = Some(line);
        self.check = Check::None;
        self
    }

    /// Ends with exit code 1: the pipeline was right and the run failed.
    fn fails(mut self) -> Self {
        self.code = 1;
        self
    }

    /// Leaves so many images behind, which were finished before it went wrong.
    fn leaves(mut self, images: usize) -> Self {
        self.leaves = images;
        self
    }

    /// Passes `check`.
    fn unseen_by_check(mut self) -> Self {
        self.check = Check::Nothing;
        self
    }

    /// What the message says, one after the other or anywhere.
    fn says(mut self, parts: &[&'static str]) -> Self {
        self.says = parts.to_vec();
        self
    }

    /// Lays out the folder, runs the command and `check`, and gives what is not as it should be.
    fn run(&self) -> Result<(), String> {
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let folder = Folder::new(scratch.path());
        let mut text = self.base.to_owned();
        for (from, to) in &self.changes {
            if !text.contains(from) {
                return Err(format!("the row changes {from:?}, which is not in the pipeline file"));
            }
            text = text.replacen(from, to, 1);
        }
        text += self.added;
        let fixture = models().join(self.model);
        if self.files.is_some() {
            folder.copy(&fixture, "model");
            text = text.replace("MODEL", "model");
        } else {
            text = text.replace("MODEL", &fixture.display().to_string());
        }
        folder.write("pipeline.toml", text.replace("FIXTURES", &models().display().to_string()));
        if self.base.contains("'in.png'") {
            folder.image("in.png", 64, 64);
        }
        if self.base.contains("'mask.png'") {
            folder.grey("mask.png", 64, 64, |at| if at % 64 < 32 { 255 } else { 0 });
        }
        if let Some(change) = self.files {
            change(&folder);
        }

        let got = self.start(scratch.path(), &self.arguments);
        self.judge(&got, self.code)?;
        let left = folder.files_below("out");
        if left.len() != self.leaves {
            return Err(format!("expected {} files to be left behind, found {left:?}", self.leaves));
        }
        if self.check == Check::None {
            return Ok(());
        }
        let arguments: Vec<&str> = std::iter::once("check").chain(self.arguments[1..].iter().copied()).collect();
        let got = self.start(scratch.path(), &arguments);
        match self.check {
            Check::Nothing if got.code == Some(0) => Ok(()),
            Check::Nothing => Err(format!("check finds what only a run should find: {got}")),
            _ => self.judge(&got, 2).map_err(|problem| format!("check: {problem}")),
        }
    }

    fn start(&self, folder: &Path, arguments: &[&str]) -> Answer {
        let mut command = ldm_ort(folder);
        if let Some(line) = self.shell {
            command = std::process::Command::new("sh");
            command.current_dir(folder).stdin(std::process::Stdio::null());
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.args(["-c", &format!("{line}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_ldm-ort")]);
        }
        command.args(arguments).env("NO_COLOR", "1");
        for (name, value) in &self.set {
            match *value {
                "" => command.env_remove(name),
                value => command.env(name, value),
            };
        }
        answer(command)
    }

    fn judge(&self, got: &Answer, code: i32) -> Result<(), String> {
        if got.code != Some(code) {
            return Err(format!("expected exit {code}: {got}"));
        }
        if got.stderr.contains("panicked") {
            return Err(format!("panicked: {got}"));
        }
        if got.stdout.lines().count() != self.leaves {
            return Err(format!("an error belongs on stderr, and results alone on stdout: {got}"));
        }
        // The parser of the command line has words of its own.
        if !["  hint: ", "Usage: ", "try '--help'"].iter().any(|next| got.stderr.contains(next)) {
            return Err(format!("says nothing of what to do: {got}"));
        }
        // Messages wrap nowhere, but a path may be written with either separator.
        let said = got.stderr.replace('\\', "/");
        match self.says.iter().find(|part| !said.contains(**part)) {
            Some(part) => Err(format!("does not say {part:?}: {got}")),
            None => Ok(()),
        }
    }
}

/// Runs all rows and tells of all that are not as they should be.
fn expect(rows: &[Row]) {
    let queue = Mutex::new(rows.iter());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get().min(8)) {
            scope.spawn(|| {
                while let Some(row) = { queue.lock().expect("no worker panicked").next() } {
                    if let Err(problem) = row.run() {
                        wrong.lock().expect("no worker panicked").push(format!("## {}\n{problem}", row.name));
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().expect("no worker panicked");
    wrong.sort();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn in_the_pipeline_file() {
    expect(&pipeline_file::rows());
}

#[test]
fn in_prompts() {
    expect(&prompts::rows());
}

#[test]
fn in_the_model_directory() {
    expect(&model_directory::rows());
}

#[test]
fn in_what_the_pipeline_takes() {
    expect(&inputs::rows());
}

#[test]
fn in_stages() {
    expect(&stages::rows());
}

#[test]
fn in_loras() {
    expect(&lora::rows());
}

#[test]
fn in_what_other_tasks_are_given() {
    expect(&tasks::rows());
}

#[test]
fn in_what_flux_is_given() {
    expect(&flux::rows());
}

#[test]
fn in_the_surroundings() {
    expect(&surroundings::rows());
}

#[test]
fn lists_of_providers_fall_through() {
    surroundings::lists_fall_through();
}

/// The two pipelines that the rows begin with do work, or the rows would show nothing.
#[test]
fn nothing_in_what_the_rows_begin_with() {
    for base in [TEXT_TO_IMAGE, IMAGE_TO_IMAGE] {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(scratch.path());
        folder.copy(&models().join("sd1"), "model");
        folder.write("pipeline.toml", base.replace("MODEL", "model"));
        folder.image("in.png", 64, 64);
        for arguments in [["check", "pipeline.toml"], ["run", "pipeline.toml"]] {
            let mut command = ldm_ort(scratch.path());
            command.args(arguments);
            let got = answer(command);
            assert_eq!(got.code, Some(0), "{got}");
        }
        assert_eq!(folder.files_below("out").len(), 1);
    }
}

/// All of a file's problems are told at once, in the order of their lines.
#[test]
fn all_at_once() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = Folder::new(scratch.path());
    let text = TEXT_TO_IMAGE
        .replace("MODEL", &models().join("sd1").display().to_string())
        .replace("prompt = 'a red circle'", "prompt = 3\nguidance = 7.5")
        .replace("steps = 2", "steps = 0")
        + "format = 'png'\n[devices]\n";
    folder.write("pipeline.toml", text);
    for command in ["check", "run"] {
        let mut command_line = ldm_ort(scratch.path());
        command_line.args([command, "pipeline.toml"]);
        let got = answer(command_line);
        assert_eq!(got.code, Some(2), "{got}");
        let places: Vec<_> = ["pipeline.toml:5: ", "pipeline.toml:6: ", "pipeline.toml:9: ", "pipeline.toml:16: "]
            .iter()
            .map(|place| got.stderr.find(place).unwrap_or_else(|| panic!("{place} is not told: {got}")))
            .collect();
        assert!(places.is_sorted(), "{got}");
        assert!(got.stderr.contains("devices"), "{got}");
    }
}
