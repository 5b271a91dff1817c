//! One value of a pipeline file, being read.

use std::fmt::Display;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::reading::{Reading, unknown_name};
use super::record_path::reaches_outside;
use super::tree::{Node, Origin, Value, quote};
use crate::files;

/// A value being read, with its full key.
#[derive(Clone)]
pub(crate) struct Item<'r> {
    pub(super) reading: &'r Reading<'r>,
    key: String,
    pub(super) node: &'r Node,
}

impl<'r> Item<'r> {
    pub(crate) fn new(reading: &'r Reading<'r>, key: String, node: &'r Node) -> Self {
        Self { reading, key, node }
    }

    /// The value itself, for keys whose types are somebody else's to judge.
    pub(crate) fn value(&self) -> &'r Value {
        &self.node.value
    }

    /// Returns the place where the value was written.
    pub(crate) fn origin(&self) -> Origin {
        self.node.origin
    }

    /// The full key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// True if the value is a record's own and so may be a stranger's.
    pub(crate) fn is_untrusted(&self) -> bool {
        self.reading.is_untrusted(self.node.origin)
    }

    /// Reports a mistake in this value.
    pub(crate) fn report(&self, message: impl Into<String>) {
        self.reading.report(self.node.origin, &self.key, message);
    }

    /// Reports a value of another kind than `expected`.
    pub(super) fn expected(&self, expected: impl Display) {
        self.report(format!("expected {expected}, found {}", self.node.value.describe()));
    }

    /// Reads a string; `expected` says what it is to hold.
    pub(crate) fn string(&self, expected: &str) -> Option<String> {
        match &self.node.value {
            Value::String(text) => Some(text.clone()),
            _ => {
                self.expected(expected);
                None
            }
        }
    }

    /// Reads a path, relative to where it was written: to the file, or to the current directory for a flag. A leading `~`
    /// is the home folder.
    pub(crate) fn file_path(&self) -> Option<PathBuf> {
        let path = self.string("a path")?;
        if path.is_empty() {
            self.report("expected a path, found an empty string");
            return None;
        }
        if self.is_untrusted()
            && let Some(how) = reaches_outside(&path)
        {
            self.report(outside(&self.key, &path, how));
            return None;
        }
        match files::expand_home(Path::new(&path)) {
            Ok(path) => Some(self.reading.resolve(self.origin(), &path)),
            Err(problem) => {
                self.report(problem);
                None
            }
        }
    }

    /// Reads a string or an array of at least one string, each an item of its own.
    pub(crate) fn strings(&self) -> Option<Vec<Item<'r>>> {
        match &self.node.value {
            Value::String(_) => Some(vec![self.clone()]),
            Value::Array(items) if !items.is_empty() => {
                let item = |(at, node)| Item::new(self.reading, format!("{}[{at}]", self.key), node);
                let items = items.iter().enumerate().map(item);
                let (strings, others): (Vec<_>, Vec<_>) =
                    items.partition(|item| matches!(item.node.value, Value::String(_)));
                others.iter().for_each(|item| item.expected("a string"));
                others.is_empty().then_some(strings)
            }
            _ => {
                self.expected("a string or an array of strings");
                None
            }
        }
    }

    /// Reads a value, or an array of at least one, each an item of its own.
    pub(crate) fn one_or_more(&self, expected: &str) -> Vec<Item<'r>> {
        match &self.node.value {
            Value::Array(items) if !items.is_empty() => {
                let item = |(at, node)| Item::new(self.reading, format!("{}[{at}]", self.key), node);
                items.iter().enumerate().map(item).collect()
            }
            Value::Array(_) | Value::Table(_) => {
                self.expected(expected);
                Vec::new()
            }
            _ => vec![self.clone()],
        }
    }

    /// Reads one of a few names of a kind of thing, such as `provider`.
    pub(crate) fn choice(&self, noun: &str, names: &[&'static str]) -> Option<&'static str> {
        let text = self.string(&format!("the name of a {noun}"))?;
        let found = names.iter().find(|name| **name == text);
        if found.is_none() {
            self.report(unknown_name(noun, &text, names.iter().copied(), std::iter::empty()));
        }
        found.copied()
    }

    /// Reads a finite number within bounds; an integer is a number too.
    pub(crate) fn number(&self, low: Bound<f64>, high: Bound<f64>) -> Option<f64> {
        let number = match self.node.value {
            Value::Float(x) => x,
            // The nearest double is what a number written without a point means.
            Value::Integer(n) => n as f64,
            _ => {
                self.expected(range("a number", low, high));
                return None;
            }
        };
        let above = match low {
            Bound::Included(low) => number >= low,
            Bound::Excluded(low) => number > low,
            Bound::Unbounded => true,
        };
        let below = match high {
            Bound::Included(high) => number <= high,
            Bound::Excluded(high) => number < high,
            Bound::Unbounded => true,
        };
        if number.is_finite() && above && below {
            return Some(number);
        }
        self.report(format!("expected {}, found {number}", range("a number", low, high)));
        None
    }

    /// Reads an array of at least one number.
    pub(crate) fn numbers(&self, expected: &str) -> Option<Vec<f64>> {
        match &self.node.value {
            Value::Array(items) if !items.is_empty() => {
                let items = items.iter().enumerate();
                let item = |(at, node)| Item::new(self.reading, format!("{}[{at}]", self.key), node);
                let numbers: Vec<_> =
                    items.map(item).map(|item| item.number(Bound::Unbounded, Bound::Unbounded)).collect();
                numbers.into_iter().collect()
            }
            _ => {
                self.expected(expected);
                None
            }
        }
    }

    /// Reads an integer from `low` to `high`.
    pub(crate) fn integer(&self, low: u64, high: u64) -> Option<u64> {
        let expected = || range("an integer", Bound::Included(low), Bound::Included(high));
        match &self.node.value {
            Value::Integer(n) => {
                let number = u64::try_from(*n).ok().filter(|n| (low..=high).contains(n));
                if number.is_none() {
                    self.report(format!("expected {}, found {n}", expected()));
                }
                number
            }
            _ => {
                self.expected(expected());
                None
            }
        }
    }

    /// Reads true or false.
    pub(crate) fn switch(&self) -> Option<bool> {
        match self.node.value {
            Value::Boolean(on) => Some(on),
            _ => {
                self.expected("true or false");
                None
            }
        }
    }
}

fn range<T: Display>(what: &str, low: Bound<T>, high: Bound<T>) -> String {
    match (low, high) {
        (Bound::Included(low), Bound::Included(high)) => format!("{what} from {low} to {high}"),
        (low, high) => {
            let low = match low {
                Bound::Included(low) => format!(" of at least {low}"),
                Bound::Excluded(low) => format!(" greater than {low}"),
                Bound::Unbounded => String::new(),
            };
            let high = match high {
                Bound::Included(high) => format!(" of at most {high}"),
                Bound::Excluded(high) => format!(" less than {high}"),
                Bound::Unbounded => String::new(),
            };
            let and = if low.is_empty() || high.is_empty() { "" } else { " and" };
            format!("{what}{low}{and}{high}")
        }
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
