//! Reads tables by asking for keys: what is asked for is what is valid.
//!
//! A [`Table`] remembers every key it was asked for. What was written and never asked for is unknown, and what was
//! asked for is the list of valid keys that the error shows, so there is no second list to keep. Mistakes do not
//! stop the reading: they are gathered in a [`Reading`], and the answer for a mistaken key is `None`.

use std::ops::Bound;
use std::path::PathBuf;

use super::item::Item;
use super::reading::{Reading, UnknownKey, join, unknown_name};
use super::tree::{Entries, Origin, Value};

/// A table being read.
pub(crate) struct Table<'r> {
    reading: &'r Reading<'r>,
    path: String,
    origin: Origin,
    /// `None` where the table is not there.
    entries: Option<&'r Entries>,
    /// True if a value that is not a table has this key, so that keys missing in it are not reported.
    displaced: bool,
    asked: Vec<String>,
}

impl<'r> Table<'r> {
    fn new(reading: &'r Reading<'r>, path: String, origin: Origin, entries: Option<&'r Entries>) -> Self {
        Self { reading, path, origin, entries, displaced: false, asked: Vec::new() }
    }

    /// The top level of a file.
    pub(crate) fn root(reading: &'r Reading<'r>, entries: &'r Entries) -> Self {
        Self::new(reading, String::new(), Origin::Nowhere, Some(entries))
    }

    /// The keys asked for so far.
    pub(crate) fn asked(&self) -> &[String] {
        &self.asked
    }

    /// Asks for a key: its value, where it was written.
    pub(crate) fn get(&mut self, key: &str) -> Option<Item<'r>> {
        if !self.asked.iter().any(|asked| asked == key) {
            self.asked.push(key.to_owned());
        }
        let node = self.entries?.get(key)?;
        Some(Item::new(self.reading, join(&self.path, key), node))
    }

    /// Reports that a key without a default is not there, unless it is. `expected` says what it would hold.
    pub(crate) fn require(&mut self, key: &str, expected: &str) {
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
    pub(crate) fn strings(&mut self, key: &str) -> Option<Vec<Item<'r>>> {
        self.get(key)?.strings()
    }

    /// Reads one of a few names.
    pub(crate) fn choice(&mut self, key: &str, noun: &str, names: &[&'static str]) -> Option<&'static str> {
        self.get(key)?.choice(noun, names)
    }

    /// Reads a path, relative to where it was written: to the file, or to the current directory for a flag. A leading `~`
    /// is the home folder.
    pub(crate) fn file_path(&mut self, key: &str) -> Option<PathBuf> {
        self.get(key)?.file_path()
    }

    /// Reads a path or an array of at least one, each as [`Table::file_path`] reads it.
    pub(crate) fn file_paths(&mut self, key: &str) -> Option<Vec<PathBuf>> {
        self.strings(key)?.iter().map(Item::file_path).collect()
    }

    /// Reads a finite number; an integer is one too.
    pub(crate) fn number(&mut self, key: &str, low: Bound<f64>, high: Bound<f64>) -> Option<f64> {
        self.get(key)?.number(low, high)
    }

    /// Reads an integer from `low` to `high`.
    pub(crate) fn integer(&mut self, key: &str, low: usize, high: usize) -> Option<usize> {
        self.get(key)?.integer(low as u64, high as u64).and_then(|n| usize::try_from(n).ok())
    }

    /// Reads a table. Where there is none, the answer is one without keys, and what it lacks is told here.
    pub(crate) fn table(&mut self, key: &str) -> Table<'r> {
        let path = join(&self.path, key);
        match self.get(key) {
            Some(item) => item.table(),
            None => Table::new(self.reading, path, self.origin, None),
        }
    }

    /// Reads an array of tables, `[[key]]`. Where there is none, so is the answer.
    pub(crate) fn tables(&mut self, key: &str) -> Vec<Table<'r>> {
        self.get(key).map(|item| item.tables()).unwrap_or_default()
    }

    /// Gives all that was written here, in the order of writing, for tables whose keys the caller judges.
    pub(crate) fn any_keys(&self) -> Vec<(&'r str, Item<'r>)> {
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
    pub(crate) fn named_tables<T>(
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

    /// True if the table has any key, or a value that is not a table has its key.
    pub(crate) fn holds_anything(&self) -> bool {
        self.displaced || self.entries.is_some_and(|entries| !entries.is_empty())
    }

    /// Reports a mistake in the value of a key.
    pub(crate) fn report_at(&mut self, key: &str, message: impl Into<String>) {
        match self.get(key) {
            Some(item) => item.report(message),
            None => self.reading.report(self.origin, &join(&self.path, key), message),
        }
    }

    /// Reports a mistake of the table as a whole.
    pub(crate) fn report(&self, message: impl Into<String>) {
        self.reading.report(self.origin, &self.path, message);
    }

    /// True if a key is in this table or below it.
    pub(crate) fn has(&self, path: &[&str]) -> bool {
        self.below(path).1 == path.len()
    }

    /// Reports a mistake of a key that may stand in a table below, or where it is missing.
    pub(crate) fn report_below(&self, path: &[&str], message: impl Into<String>) {
        let key = path.iter().fold(self.path.clone(), |table, name| join(&table, name));
        self.reading.report(self.below(path).0, &key, message);
    }

    /// Returns the origin of the last key on a path that exists, and the number of keys that do.
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

    /// True if the table is in a `[[stage]]`, whose task receives the output of the stage before.
    pub(crate) fn is_in_stage(&self) -> bool {
        self.path.starts_with("stage[")
    }

    /// Ends the reading of this table: what was written and not asked for is unknown.
    pub(crate) fn finish(self) {
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
            found.unknown.push(UnknownKey {
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

impl<'r> Item<'r> {
    /// Reads an array of tables, each written under `[[key]]`.
    pub(crate) fn tables(&self) -> Vec<Table<'r>> {
        let Value::Array(items) = &self.node.value else {
            self.expected(format!("an array of tables, each written under [[{}]]", self.key()));
            return Vec::new();
        };
        let items = items.iter().enumerate();
        items.map(|(at, node)| Item::new(self.reading, format!("{}[{at}]", self.key()), node).table()).collect()
    }

    /// Reads a table.
    pub(crate) fn table(&self) -> Table<'r> {
        let mut table = Table::new(self.reading, self.key().to_owned(), self.node.origin, None);
        match &self.node.value {
            Value::Table(entries) => table.entries = Some(entries),
            _ => {
                let array = self.key().strip_suffix(']').and_then(|key| key.rsplit_once('['));
                self.expected(match array {
                    Some((array, _)) => format!("a table [[{array}]]"),
                    None => format!("a table [{}]", self.key()),
                });
                table.displaced = true;
            }
        }
        table
    }
}
