//! Reads tables by asking for keys: what is asked for is what is valid.
//!
//! A [`Table`] remembers every key it was asked for. What was written and never asked for is unknown, and what was
//! asked for is the list of valid keys that the error shows, so there is no second list to keep. Mistakes do not
//! stop the reading: they are gathered in a [`Reading`], and the answer for a mistaken key is `None`.

mod item;

use std::cell::RefCell;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::nearest::nearest;
use super::record::reaches_outside;
use super::renamed::OldNames;
use super::tree::{Entries, Origin, Value, quote};
use crate::aliases::Alias;
use crate::error::{Error, Problem, Result};
use crate::files;
pub(super) use item::Item;

/// One reading of a pipeline: the file it is from, and what was found wrong so far.
pub(super) struct Reading<'f> {
    file: Option<&'f Path>,
    /// True for the record in an image, which names nothing outside of the current directory.
    is_record: bool,
    found: RefCell<Found>,
}

#[derive(Default)]
struct Found {
    problems: Vec<(Origin, Problem)>,
    unknown: Vec<Unknown>,
    /// Every key that some table was asked for, in full.
    asked: Vec<String>,
    old_names: OldNames,
}

/// A key nobody asked for. What to say about it is known when all tables were read.
struct Unknown {
    origin: Origin,
    table: String,
    name: String,
    noun: &'static str,
    valid: Vec<String>,
}

impl<'f> Reading<'f> {
    pub(super) fn new(file: Option<&'f Path>) -> Self {
        Self { file, is_record: false, found: RefCell::default() }
    }

    /// The reading of a record, which is in this image.
    pub(super) fn of_record(image: &'f Path) -> Self {
        Self { file: Some(image), is_record: true, found: RefCell::default() }
    }

    /// The file that problems name.
    pub(super) fn file(&self) -> Option<&'f Path> {
        self.file
    }

    /// True if a value is a record's own and so may be a stranger's.
    pub(super) fn is_untrusted(&self, origin: Origin) -> bool {
        self.is_record && !origin.is_command_line()
    }

    /// Reports a mistake at a full key such as `run.steps`.
    pub(super) fn report(&self, origin: Origin, key: &str, message: impl Into<String>) {
        if origin == Origin::Inherited {
            return;
        }
        let problem = self.problem(origin, key, message.into());
        self.found.borrow_mut().problems.push((origin, problem));
    }

    /// Notes an old name, here as it was written, for a warning. A record is nobody's to rewrite, so that its own old names
    /// are not noted.
    pub(super) fn note_old_name(&self, origin: Origin, alias: &'static Alias, old: &str, new: &str) {
        if !self.is_untrusted(origin) {
            self.found.borrow_mut().old_names.add(alias, old, new);
        }
    }

    /// The old names that were noted.
    pub(super) fn old_names(&self) -> OldNames {
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
    pub(super) fn resolve(&self, origin: Origin, path: &Path) -> PathBuf {
        match self.file.and_then(Path::parent) {
            Some(folder) if !self.is_record && !origin.is_command_line() => folder.join(path),
            _ => path.to_path_buf(),
        }
    }

    /// The file's top level.
    pub(super) fn root<'r>(&'r self, entries: &'r Entries) -> Table<'r> {
        Table::new(self, String::new(), Origin::Nowhere, Some(entries))
    }

    /// Gives `value` where nothing was wrong, and everything that was wrong otherwise.
    pub(super) fn finish<T>(self, value: T) -> Result<T> {
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

impl Unknown {
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

/// A table being read.
pub(super) struct Table<'r> {
    reading: &'r Reading<'r>,
    path: String,
    origin: Origin,
    /// `None` where the table is not there.
    entries: Option<&'r Entries>,
    /// Whether something else stands in the table's place, so that what is missing in it is not worth telling.
    displaced: bool,
    asked: Vec<String>,
}

impl<'r> Table<'r> {
    fn new(reading: &'r Reading<'r>, path: String, origin: Origin, entries: Option<&'r Entries>) -> Self {
        Self { reading, path, origin, entries, displaced: false, asked: Vec::new() }
    }

    /// The keys asked for so far.
    pub(super) fn asked(&self) -> &[String] {
        &self.asked
    }

    /// Asks for a key: its value, where it was written.
    pub(super) fn get(&mut self, key: &str) -> Option<Item<'r>> {
        if !self.asked.iter().any(|asked| asked == key) {
            self.asked.push(key.to_owned());
        }
        let node = self.entries?.get(key)?;
        Some(Item::new(self.reading, join(&self.path, key), node))
    }

    /// Reports that a key without a default is not there, unless it is. `expected` says what it would hold.
    pub(super) fn require(&mut self, key: &str, expected: &str) {
        if self.get(key).is_none() && !self.displaced {
            self.reading.report(
                // A flag that made the table is not where the key is missing.
                if self.origin.is_command_line() { Origin::Nowhere } else { self.origin },
                &join(&self.path, key),
                format!("missing; expected {expected}"),
            );
        }
    }

    /// Reads a string or an array of at least one, each an item of its own.
    pub(super) fn strings(&mut self, key: &str) -> Option<Vec<Item<'r>>> {
        self.get(key)?.strings()
    }

    /// Reads one of a few names.
    pub(super) fn choice(&mut self, key: &str, noun: &str, names: &[&'static str]) -> Option<&'static str> {
        self.get(key)?.choice(noun, names)
    }

    /// Reads a path, relative to where it was written: to the file, or to the current directory for a flag. A leading `~`
    /// is the home folder.
    pub(super) fn file_path(&mut self, key: &str) -> Option<PathBuf> {
        let item = self.get(key)?;
        let path = item.string("a path")?;
        if path.is_empty() {
            item.report("expected a path, found an empty string");
            return None;
        }
        if self.reading.is_untrusted(item.origin())
            && let Some(how) = reaches_outside(&path)
        {
            item.report(outside(&join(&self.path, key), &path, how));
            return None;
        }
        match files::expand_home(Path::new(&path)) {
            Ok(path) => Some(self.reading.resolve(item.origin(), &path)),
            Err(problem) => {
                item.report(problem);
                None
            }
        }
    }

    /// Reads a finite number; an integer is one too.
    pub(super) fn number(&mut self, key: &str, low: Bound<f64>, high: Bound<f64>) -> Option<f64> {
        self.get(key)?.number(low, high)
    }

    /// Reads an integer from `low` to `high`.
    pub(super) fn integer(&mut self, key: &str, low: usize, high: usize) -> Option<usize> {
        self.get(key)?.integer(low as u64, high as u64).and_then(|n| usize::try_from(n).ok())
    }

    /// Reads a table. Where there is none, the answer is one without keys, and what it lacks is told here.
    pub(super) fn table(&mut self, key: &str) -> Table<'r> {
        let path = join(&self.path, key);
        match self.get(key) {
            Some(item) => item.table(),
            None => Table::new(self.reading, path, self.origin, None),
        }
    }

    /// Reads an array of tables, `[[key]]`. Where there is none, so is the answer.
    pub(super) fn tables(&mut self, key: &str) -> Vec<Table<'r>> {
        self.get(key).map(|item| item.tables()).unwrap_or_default()
    }

    /// Gives all that was written here, in the order of writing, for tables whose keys the caller judges.
    pub(super) fn any_keys(&self) -> Vec<(&'r str, Item<'r>)> {
        let mut items: Vec<_> = self
            .entries
            .into_iter()
            .flatten()
            .map(|(name, node)| (name.as_str(), Item::new(self.reading, join(&self.path, name), node)))
            .collect();
        items.sort_by_key(|(_, item)| item.origin().rank());
        items
    }

    /// Reads a table of which one table's name is a choice, as in `[task.NAME]`. Gives the tables whose names are
    /// known; a name that is not known and a second table are reported. Aliases are known too, but not worth listing.
    pub(super) fn named_tables<T>(
        &self,
        noun: &str,
        names: impl Iterator<Item = &'static str> + Clone,
        aliases: impl Iterator<Item = &'static str> + Clone,
        find: impl Fn(&str) -> Option<T>,
    ) -> Vec<(T, Table<'r>)> {
        let mut known = Vec::new();
        let mut first: Option<(&str, Origin)> = None;
        for (name, item) in self.any_keys() {
            let Some(found) = find(name) else {
                let mut message = unknown_name(noun, name, names.clone(), aliases.clone());
                if !matches!(item.value(), Value::Table(_)) {
                    message += &format!("; its keys stand in a table of its own, [{}.NAME]", self.path);
                }
                item.report(message);
                continue;
            };
            match first {
                None => first = Some((name, item.origin())),
                Some((name, Origin::Line(line))) => {
                    item.report(format!("a second {noun}, beside `{name}` on line {line}; keep one"));
                }
                Some((name, _)) => item.report(format!("a second {noun}, beside `{name}`; keep one")),
            }
            known.push((found, item.table()));
        }
        known
    }

    /// Whether anything stands in the table, or in its place.
    pub(super) fn holds_anything(&self) -> bool {
        self.displaced || self.entries.is_some_and(|entries| !entries.is_empty())
    }

    /// Reports a mistake in the value of a key.
    pub(super) fn report_at(&mut self, key: &str, message: impl Into<String>) {
        match self.get(key) {
            Some(item) => item.report(message),
            None => self.reading.report(self.origin, &join(&self.path, key), message),
        }
    }

    /// Reports a mistake of the table as a whole.
    pub(super) fn report(&self, message: impl Into<String>) {
        self.reading.report(self.origin, &self.path, message);
    }

    /// Whether a key stands in this table or below it.
    pub(super) fn has(&self, path: &[&str]) -> bool {
        self.below(path).1 == path.len()
    }

    /// Reports a mistake of a key that may stand in a table below, or where it is missing.
    pub(super) fn report_below(&self, path: &[&str], message: impl Into<String>) {
        let key = path.iter().fold(self.path.clone(), |table, name| join(&table, name));
        self.reading.report(self.below(path).0, &key, message);
    }

    /// Where the last key on a path stands that is there, and how many of them are.
    fn below(&self, path: &[&str]) -> (Origin, usize) {
        let (mut origin, mut entries) = (self.origin, self.entries);
        for (depth, name) in path.iter().enumerate() {
            let Some(node) = entries.and_then(|entries| entries.get(*name)) else { return (origin, depth) };
            origin = node.origin;
            entries = match &node.value {
                Value::Table(inner) => Some(inner),
                _ => None,
            };
        }
        (origin, path.len())
    }

    /// Whether the table stands in a `[[stage]]`, whose task is handed what was made before it.
    pub(super) fn is_in_stage(&self) -> bool {
        self.path.starts_with("stage[")
    }

    /// Ends the reading of this table: what was written and not asked for is unknown.
    pub(super) fn finish(self) {
        let mut found = self.reading.found.borrow_mut();
        for (name, node) in self.entries.into_iter().flatten() {
            if self.asked.contains(name) {
                continue;
            }
            let is_table = match &node.value {
                Value::Table(_) => true,
                Value::Array(items) => items.iter().any(|item| matches!(item.value, Value::Table(_))),
                _ => false,
            };
            found.unknown.push(Unknown {
                origin: node.origin,
                table: self.path.clone(),
                name: name.clone(),
                noun: if is_table { "table" } else { "key" },
                valid: self.asked.clone(),
            });
        }
        found.asked.extend(self.asked.iter().map(|key| join(&self.path, key)));
    }
}

/// Says that a path in a record is not followed, and how to give it anew.
fn outside(key: &str, path: &str, how: &str) -> String {
    let anew = if key == "model.path" { "--model DIR".to_owned() } else { format!("--input {key}=PATH") };
    format!(
        "{} {how}, and a record's paths are followed only within the current directory; give it anew: {anew}",
        quote(path)
    )
}

/// Says that a name is unknown, which name or alias is like it, and which names there are.
pub(super) fn unknown_name<'a>(
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
pub(super) fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}
