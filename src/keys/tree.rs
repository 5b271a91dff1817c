//! A pipeline file as a tree in which every value knows where it was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::guard::{ParserPanic, contain};
use crate::image::Rgb8;

/// The place where a value was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the file, on this line, counted from 1.
    Line(usize),
    /// By a flag of its own, such as `--steps`.
    Flag(&'static str),
    /// By `--set`.
    Set,
    /// In a request to an open pipeline.
    Request,
    /// Elsewhere in the file: a stage inherits it. What is wrong with it is told where it stands.
    Inherited,
    /// Nowhere: the file as a whole, or a table that is not there.
    Nowhere,
}

impl Origin {
    /// True if the value came from the command line.
    pub(crate) fn is_command_line(self) -> bool {
        matches!(self, Self::Flag(_) | Self::Set)
    }

    /// The order in which problems are told: of the file as a whole, line by line, of the command line.
    pub(crate) fn rank(self) -> (u8, usize) {
        match self {
            Self::Nowhere | Self::Inherited => (0, 0),
            Self::Line(line) => (1, line),
            Self::Set | Self::Request => (2, 0),
            Self::Flag(_) => (3, 0),
        }
    }
}

/// Keys and their values.
pub(crate) type Entries = BTreeMap<String, Node>;

/// A value and where it was written; a key's value carries the place of its key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) origin: Origin,
    pub(crate) value: Value,
}

/// A TOML value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    String(String),
    /// Wider than any integer that is asked for, so that one out of range is told as it was written.
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Entries),
    /// An image in memory, which only a request can hold.
    Pixels(Arc<Rgb8>),
}

impl Value {
    /// Names the type and, where it is short, the value, as an error message says what it found.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::String(text) => format!("the string {}", quote(text)),
            Self::Integer(n) => format!("the integer {n}"),
            Self::Float(x) => format!("the float {x:?}"),
            Self::Boolean(b) => format!("the boolean {b}"),
            Self::Datetime(d) => format!("the date {d}"),
            Self::Array(items) if items.is_empty() => "an empty array".into(),
            Self::Array(_) => "an array".into(),
            Self::Table(_) => "a table".into(),
            Self::Pixels(image) => format!("an image in memory, {}×{} pixels", image.width(), image.height()),
        }
    }
}

/// Quotes a string for a message, cut where it is long.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A mistake in the file's TOML itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    /// The key, where the mistake is a key that stands twice.
    pub(crate) key: String,
    pub(crate) message: String,
}

/// Parses a whole file.
pub(crate) fn parse_document(text: &str) -> Result<Entries, Vec<SyntaxError>> {
    let gave_up = |panic: ParserPanic| vec![SyntaxError { line: 1, key: String::new(), message: panic.to_string() }];
    let (document, errors) = contain(|| DeTable::parse_recoverable(text)).map_err(gave_up)?;
    let lines = Lines::new(text);
    if errors.is_empty() {
        return Ok(convert_table(document.get_ref(), &|at| Origin::Line(lines.line_of(at))));
    }
    let errors = errors.iter().map(|error| {
        let span = error.span().unwrap_or(text.len()..text.len());
        let line = lines.line_of(span.start);
        let (key, message) = match error.message() {
            "duplicate key" => (text.get(span).unwrap_or_default(), "stands here a second time".to_owned()),
            // What a path written with backslashes runs into.
            message if message.contains("escape") => {
                ("", format!("{message}; a string in single quotes takes a backslash as it is"))
            }
            message => ("", message.to_owned()),
        };
        SyntaxError { line, key: key.to_owned(), message }
    });
    let mut errors: Vec<_> = errors.collect();
    // One mistake can be found more than once on its line.
    errors.dedup();
    Err(errors)
}

/// Parses one value that stands alone, such as that of a `--set`; `None` where it is not TOML.
pub(crate) fn parse_value(text: &str, origin: Origin) -> Option<Value> {
    let value = contain(|| DeValue::parse(text)).ok()?.ok()?;
    Some(convert(value.get_ref(), origin, &|_| origin))
}

/// Parses a dotted key into its parts; `None` where it is not one.
pub(crate) fn parse_key(text: &str) -> Option<Vec<String>> {
    if text.contains(['\n', '\r', '=', '#']) {
        return None;
    }
    let document = format!("{text} = 0");
    let document = DeTable::parse(&document).ok()?;
    let mut parts = Vec::new();
    let mut table = document.get_ref();
    loop {
        let (key, value) = table.iter().next()?;
        parts.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return Some(parts),
        }
    }
}

fn convert_table(table: &DeTable<'_>, origin_at: &dyn Fn(usize) -> Origin) -> Entries {
    table
        .iter()
        .map(|(key, value)| {
            let origin = origin_at(key.span().start);
            (key.get_ref().to_string(), Node { origin, value: convert(value.get_ref(), origin, origin_at) })
        })
        .collect()
}

fn convert(value: &DeValue<'_>, origin: Origin, origin_at: &dyn Fn(usize) -> Origin) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(n) => {
            let overflow = if n.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
            Value::Integer(i128::from_str_radix(n.as_str(), n.radix()).unwrap_or(overflow))
        }
        DeValue::Float(x) => Value::Float(x.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Datetime(d) => Value::Datetime(d.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| convert_item(item, origin, origin_at)).collect()),
        DeValue::Table(table) => Value::Table(convert_table(table, origin_at)),
    }
}

fn convert_item(item: &Spanned<DeValue<'_>>, array: Origin, origin_at: &dyn Fn(usize) -> Origin) -> Node {
    let origin = if array.is_command_line() { array } else { origin_at(item.span().start) };
    Node { origin, value: convert(item.get_ref(), origin, origin_at) }
}

/// The offsets at which the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1).collect())
    }

    /// The line, counted from 1, that holds the byte at this offset.
    fn line_of(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(entries: &Entries, path: &[&str]) -> Option<Origin> {
        let (last, tables) = path.split_last()?;
        let mut entries = entries;
        for name in tables {
            match &entries.get(*name)?.value {
                Value::Table(inner) => entries = inner,
                _ => return None,
            }
        }
        Some(entries.get(*last)?.origin)
    }

    #[test]
    fn every_key_knows_its_line() {
        let text = "a = 1\n\n[t.u]\nb = [\n  2,\n]\nc.d = 3\n[t]\ne = { f = 4 }\n";
        let entries = parse_document(text).unwrap();
        assert_eq!(line(&entries, &["a"]), Some(Origin::Line(1)));
        assert_eq!(line(&entries, &["t", "u"]), Some(Origin::Line(3)));
        assert_eq!(line(&entries, &["t", "u", "b"]), Some(Origin::Line(4)));
        assert_eq!(line(&entries, &["t", "u", "c", "d"]), Some(Origin::Line(7)));
        assert_eq!(line(&entries, &["t", "e", "f"]), Some(Origin::Line(9)));
        let Value::Table(t) = &entries["t"].value else { panic!("t is a table") };
        let Value::Table(u) = &t["u"].value else { panic!("t.u is a table") };
        let Value::Array(items) = &u["b"].value else { panic!("t.u.b is an array") };
        assert_eq!(items[0].origin, Origin::Line(5));
    }

    #[test]
    fn numbers_keep_their_value_in_every_spelling() {
        let value = |text| parse_value(text, Origin::Set);
        assert_eq!(value("1_000"), Some(Value::Integer(1000)));
        assert_eq!(value("-0x"), None);
        assert_eq!(value("0xff"), Some(Value::Integer(255)));
        assert_eq!(value("-5"), Some(Value::Integer(-5)));
        assert_eq!(value("18446744073709551615"), Some(Value::Integer(u64::MAX.into())));
        assert_eq!(value("1_0.5e-1"), Some(Value::Float(1.05)));
        assert_eq!(value("-inf"), Some(Value::Float(f64::NEG_INFINITY)));
    }

    #[test]
    fn dotted_keys_are_taken_apart() {
        let parts = |text| parse_key(text).map(|parts| parts.join("|"));
        assert_eq!(parts("run.steps").as_deref(), Some("run|steps"));
        assert_eq!(parts("task.text-to-image.\"a.b\"").as_deref(), Some("task|text-to-image|a.b"));
        assert_eq!(parts(""), None);
        assert_eq!(parts("run..steps"), None);
        assert_eq!(parts("a = 1\nb"), None);
    }
}
