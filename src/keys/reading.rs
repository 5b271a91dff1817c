//! One reading of a pipeline file, and everything that was found wrong in it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::nearest::nearest;
use super::old_names::OldNames;
use super::tree::{Origin, quote};
use crate::aliases::Alias;
use crate::error::{Error, Problem, Result};

/// One reading of a pipeline: the file it is from, and what was found wrong so far.
pub(crate) struct Reading<'f> {
    file: Option<&'f Path>,
    /// True for the record in an image, which names nothing outside of the current directory.
    is_record: bool,
    pub(super) found: RefCell<Found>,
}

/// Everything found wrong so far.
#[derive(Default)]
pub(super) struct Found {
    problems: Vec<(Origin, Problem)>,
    pub(super) unknown: Vec<UnknownKey>,
    /// Every key that some table was asked for, in full.
    pub(super) asked: Vec<String>,
    old_names: OldNames,
}

/// A key nobody asked for. What to say about it is known when all tables were read.
pub(super) struct UnknownKey {
    pub(super) origin: Origin,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) noun: &'static str,
    pub(super) valid: Vec<String>,
}

impl<'f> Reading<'f> {
    pub(crate) fn new(file: Option<&'f Path>) -> Self {
        Self { file, is_record: false, found: RefCell::default() }
    }

    /// The reading of a record, which is in this image.
    pub(crate) fn of_record(image: &'f Path) -> Self {
        Self { file: Some(image), is_record: true, found: RefCell::default() }
    }

    /// The file that problems name.
    pub(crate) fn file(&self) -> Option<&'f Path> {
        self.file
    }

    /// True if a value is a record's own and so may be a stranger's.
    pub(crate) fn is_untrusted(&self, origin: Origin) -> bool {
        self.is_record && !origin.is_command_line()
    }

    /// Reports a mistake at a full key such as `run.steps`.
    pub(crate) fn report(&self, origin: Origin, key: &str, message: impl Into<String>) {
        if origin == Origin::Inherited {
            return;
        }
        let problem = self.problem(origin, key, message.into());
        self.found.borrow_mut().problems.push((origin, problem));
    }

    /// Notes an old name as it was written, for a warning. A record cannot be rewritten by its reader, so its own old names
    /// are not noted.
    pub(crate) fn note_old_name(&self, origin: Origin, alias: &'static Alias, old: &str, new: &str) {
        if !self.is_untrusted(origin) {
            self.found.borrow_mut().old_names.add(alias, old, new);
        }
    }

    /// The old names that were noted.
    pub(crate) fn old_names(&self) -> OldNames {
        self.found.borrow().old_names.clone()
    }

    fn problem(&self, origin: Origin, key: &str, message: String) -> Problem {
        let (line, key) = match origin {
            Origin::Line(line) => (Some(line), key.to_owned()),
            Origin::Flag(flag) => (None, flag.to_owned()),
            Origin::Set => (None, format!("--set {key}")),
            Origin::Request | Origin::Nowhere | Origin::Inherited => (None, key.to_owned()),
        };
        let file = if origin.is_command_line() { None } else { self.file.map(Path::to_path_buf) };
        Problem { file, line, key, message }
    }

    /// Makes a path of the file relative to the file, and leaves one of the command line as it is.
    pub(crate) fn resolve(&self, origin: Origin, path: &Path) -> PathBuf {
        match self.file.and_then(Path::parent) {
            Some(folder) if !self.is_record && !origin.is_command_line() => folder.join(path),
            _ => path.to_path_buf(),
        }
    }

    /// Gives `value` where nothing was wrong, and everything that was wrong otherwise.
    pub(crate) fn finish<T>(self, value: T) -> Result<T> {
        let found = self.found.take();
        let mut problems = found.problems;
        for unknown in found.unknown {
            let key = join(&unknown.table, &unknown.name);
            let problem = self.problem(unknown.origin, &key, unknown.message(&found.asked));
            problems.push((unknown.origin, problem));
        }
        if problems.is_empty() {
            return Ok(value);
        }
        problems.sort_by_key(|(origin, _)| origin.rank());
        Err(Error::Spec(problems.into_iter().map(|(_, problem)| problem).collect()))
    }
}

impl UnknownKey {
    fn message(&self, asked: &[String]) -> String {
        let Self { table, name, noun, valid, .. } = self;
        let place = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
        let elsewhere = |key: &&String| key.rsplit_once('.').is_some_and(|(_, leaf)| leaf == name);
        // A key of another table, under the very same name, is likelier than one that resembles it.
        let stage = table.starts_with("stage[").then(|| table.split('.').next()).flatten().unwrap_or_default();
        let distance = |key: &&String| (!key.starts_with(stage), key.len());
        let hint = if let Some(key) = asked.iter().filter(elsewhere).min_by_key(distance) {
            format!("there is {}; ", tick(key))
        } else if let Some(meant) = nearest(name, valid.iter().map(String::as_str)) {
            format!("did you mean {}? ", tick(meant))
        } else {
            String::new()
        };
        let valid = if valid.is_empty() { "it takes no keys".into() } else { format!("valid: {}", valid.join(", ")) };
        format!("unknown {noun} {}{place}; {hint}{valid}", tick(name))
    }
}

/// Says that a name is unknown, which name or alias is like it, and which names there are.
pub(crate) fn unknown_name<'a>(
    noun: &str,
    name: &str,
    names: impl Iterator<Item = &'a str> + Clone,
    aliases: impl Iterator<Item = &'a str>,
) -> String {
    let meant = match nearest(name, names.clone().chain(aliases)) {
        Some(meant) => format!("did you mean {}? ", tick(meant)),
        None => String::new(),
    };
    format!("unknown {noun} {}; {meant}valid: {}", quote(name), names.collect::<Vec<_>>().join(", "))
}

fn tick(name: &str) -> String {
    format!("`{}`", name.escape_debug())
}

/// A table's path and a key in it, as one key.
pub(crate) fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}
