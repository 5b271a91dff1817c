//! Layouts: what each exporter writes is read and draws what the same model draws as diffusers exported it.
//!
//! Each row makes a layout out of a tiny model of `tests/fixtures`, has `inspect` and `check` read it, and runs the
//! pipeline of one of `tests/golden` on it. `LAYOUT=Olive cargo test --test it layouts::` runs the rows with that in their
//! name.

mod files;
mod flux;
mod free;
mod graph;
mod lengths;
#[cfg(unix)]
mod links;
mod pixart;
mod refused;
mod rows;
mod sana;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::common::{Answer, answer, ldm_ort, npy, root, runtime};
use files::Files;

/// One layout and the reference that it is held to.
struct Row {
    name: &'static str,
    /// The folder of `tests/golden` whose pipeline is run.
    golden: &'static str,
    /// The model's folder beside the pipeline file.
    folder: &'static str,
    files: Files,
    /// What is put in the place of other texts in the pipeline.
    changes: Vec<(&'static str, String)>,
    /// How far the latents may be off, as a part of the largest.
    limit: f32,
    /// What `inspect` says.
    inspected: Vec<&'static str>,
    /// Whether `inspect` finds fault, as the pipeline file says what it cannot know.
    faulty: bool,
    /// What `check` and `run` warn of.
    warned: Option<&'static str>,
}

impl Row {
    fn new(name: &'static str, golden: &'static str, files: Files) -> Self {
        let (changes, inspected) = (Vec::new(), Vec::new());
        Self { name, golden, folder: "model", files, changes, limit: 1e-5, inspected, faulty: false, warned: None }
    }

    fn inspected(mut self, texts: &[&'static str]) -> Self {
        self.inspected.extend(texts);
        self
    }

    fn change(mut self, from: &'static str, to: impl Into<String>) -> Self {
        self.changes.push((from, to.into()));
        self
    }

    fn faulty(mut self) -> Self {
        self.faulty = true;
        self
    }

    fn limit(mut self, limit: f32) -> Self {
        self.limit = limit;
        self
    }

    fn folder(mut self, folder: &'static str) -> Self {
        self.folder = folder;
        self
    }

    fn warned(mut self, text: &'static str) -> Self {
        self.warned = Some(text);
        self
    }

    /// Lays the model and its pipeline out.
    fn lay_out(&self, at: &Path) {
        self.files.write(&at.join(self.folder));
        let golden = self.golden();
        for entry in std::fs::read_dir(&golden).expect("the reference is there") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default();
            if path.extension().is_some_and(|e| e == "png") {
                std::fs::copy(&path, at.join(name)).expect("an image can be copied");
            }
        }
        let mut text = std::fs::read_to_string(golden.join("pipeline.toml")).expect("the reference has a pipeline");
        let start = text.find("\"../../../fixtures/").expect("the model's path");
        let end = start + 1 + text[start + 1..].find('"').expect("a quote") + 1;
        text.replace_range(start..end, &format!("\"{}\"", self.folder));
        for (from, to) in &self.changes {
            assert!(text.contains(from), "{}: {from:?} is not in the pipeline", self.name);
            text = text.replacen(from, to, 1);
        }
        std::fs::write(at.join("pipeline.toml"), text).expect("a file can be written");
    }

    fn golden(&self) -> PathBuf {
        root().join("tests/golden").join(self.golden)
    }

    /// Opens the layout, checks it and runs it; says how far off the latents are, or what went wrong.
    fn try_out(&self) -> Result<String, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        self.lay_out(folder.path());
        let inspect = program(folder.path(), &["inspect", self.folder]);
        let read = inspect.code == Some(0) && inspect.stdout.contains("\nfaults") == self.faulty;
        if let Some(text) = self.inspected.iter().find(|text| !inspect.stdout.contains(**text)) {
            return Err(format!("inspect does not say {text:?}: {inspect}"));
        }
        if !read {
            return Err(format!("inspect does not judge it as expected: {inspect}"));
        }
        let check = program(folder.path(), &["check", "pipeline.toml"]);
        let run = program(folder.path(), &["run", "pipeline.toml", "--save-latents", "latents.npy", "--quiet"]);
        for answer in [&check, &run] {
            if answer.code != Some(0) {
                return Err(answer.to_string());
            }
            match self.warned {
                Some(text) if !answer.stderr.contains(text) => return Err(format!("no warning of {text:?}: {answer}")),
                None if answer.stderr.contains("warning") => return Err(format!("an unwanted warning: {answer}")),
                _ => {}
            }
        }
        let plain = self.apart(folder.path(), "latents.npy")?;
        let mut command = ldm_ort(folder.path());
        command
            .args(["run", "pipeline.toml", "--save-latents", "optimized.npy", "--quiet"])
            .env_remove("LDM_ORT_OPTIMIZE");
        command.env("LDM_ORT_CACHE_DIR", folder.path().join("cache")).env("ORT_DYLIB_PATH", runtime().path());
        let run = answer(command);
        if run.code != Some(0) || run.stderr.contains("opened as exported") {
            return Err(format!("with optimized graphs: {run}"));
        }
        let optimized =
            self.apart(folder.path(), "optimized.npy").map_err(|error| format!("with optimized graphs, {error}"))?;
        Ok(format!("{plain:.1e}, optimized {optimized:.1e}"))
    }

    /// The latents in a file, as far off as they may be.
    fn apart(&self, folder: &Path, file: &str) -> Result<f32, String> {
        let apart = npy::read(&folder.join(file)).difference(&npy::read(&self.golden().join("latents.npy")));
        if apart <= self.limit { Ok(apart) } else { Err(format!("latents are {apart:.1e} off")) }
    }
}

fn program(folder: &Path, arguments: &[&str]) -> Answer {
    let mut command = ldm_ort(folder);
    command.args(arguments);
    answer(command)
}

#[test]
fn every_layout_is_read_and_run() {
    let wanted = std::env::var("LAYOUT").unwrap_or_default();
    let rows: Vec<Row> = rows::rows().into_iter().filter(|row| row.name.contains(&wanted)).collect();
    let (queue, wrong) = (Mutex::new(rows.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get().min(8)) {
            scope.spawn(|| {
                while let Some(row) = { queue.lock().expect("no worker panicked").next() } {
                    match row.try_out() {
                        Ok(note) => println!("{:60} {note}", row.name),
                        Err(problem) => wrong.lock().expect("no worker").push(format!("# {}: {problem}", row.name)),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no worker panicked");
    assert!(wrong.is_empty(), "{} of {} layouts:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}
