//! The keys of pipeline.toml as a table, for the reference page and the JSON schema.
//!
//! The readers of the tables are the authority; the tests hold the table to them.

mod definitions;
mod rows;
mod schema;

pub(super) use rows::KEYS;
pub(super) use schema::json_schema;

/// A key of a table of pipeline.toml.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyEntry {
    /// The table, such as `run`; `task.NAME` stands for every task, `device.COMPONENT` for every component.
    pub(super) table: &'static str,
    /// The key's name.
    pub(super) name: &'static str,
    /// The type of its value.
    pub(super) value: KeyType,
    /// One sentence for `ldm-ort list keys`.
    pub(super) about: &'static str,
}

/// The type of a key's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum KeyType {
    /// A string.
    Text,
    /// A string, or an array of strings.
    Texts,
    /// A path, relative to the pipeline file.
    Path,
    /// A path, or an array of paths.
    Paths,
    /// An integer.
    Integer,
    /// An integer or a string.
    IntegerOrText,
    /// An integer or a string, or an array of them.
    IntegersOrTexts,
    /// A number.
    Number,
    /// An array of so many numbers.
    Numbers(usize),
    /// An array of numbers, or the name of a schedule.
    Schedule,
    /// True or false.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// The name of a family.
    Family,
    /// The name of a noise stream.
    Noise,
    /// The name of an execution provider, or an array of them.
    Providers,
    /// An inline table of strings.
    Strings,
    /// An array of inline tables, each an object of a layout.
    Boxes,
}

impl KeyType {
    /// Describes the type for the reference page.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Text => "string".into(),
            Self::Texts => "string or array of strings".into(),
            Self::Path => "path".into(),
            Self::Paths => "path or array of paths".into(),
            Self::Integer => "integer".into(),
            Self::IntegerOrText => "integer or string".into(),
            Self::IntegersOrTexts => "integer, string or array of them".into(),
            Self::Number => "number".into(),
            Self::Numbers(count) => format!("array of {count} numbers"),
            Self::Schedule => "array of numbers or name".into(),
            Self::Switch => "boolean".into(),
            Self::Choice(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
            Self::Family => "name of a family".into(),
            Self::Noise => "name of a stream".into(),
            Self::Providers => "provider or array of providers".into(),
            Self::Strings => "table of strings".into(),
            Self::Boxes => "array of tables".into(),
        }
    }
}
