//! Old names that still work: keys, values, folders, environment variables, commands and fields of records.
//!
//! [`ALIASES`] is the only list of them. The reader of pipeline.toml, the reader of model directories, the reader of
//! records and `ldm-ort list aliases` all work from it.

use std::ffi::OsString;

/// An old name and the name that replaces it.
#[derive(Debug, PartialEq, Eq)]
pub struct Alias {
    /// The kind of name.
    pub kind: AliasKind,
    /// The old name. In keys, `NAME` is any name and `[]` any table of an array; each key is one of a `[[stage]]` too.
    pub old: &'static str,
    /// The name that replaces it, in the same form.
    pub new: &'static str,
    /// The difference of meaning, if any.
    pub note: &'static str,
}

/// A kind of name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AliasKind {
    /// A key or a table of pipeline.toml.
    Key,
    /// A key of pipeline.toml that is true or false, and means the opposite under its new name.
    InverseKey,
    /// A value of a key of pipeline.toml, written `key = "value"`.
    Value,
    /// A folder of a model directory.
    Folder,
    /// An environment variable.
    Variable,
    /// A command of `ldm-ort`.
    Command,
    /// A field of the record in an image, and of the objects that `ldm-ort run --json` prints.
    Record,
}

impl AliasKind {
    /// The name that `ldm-ort list aliases` prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key | Self::InverseKey => "key",
            Self::Value => "value",
            Self::Folder => "folder",
            Self::Variable => "variable",
            Self::Command => "command",
            Self::Record => "record",
        }
    }
}

/// Every old name that still works.
pub const ALIASES: &[Alias] = &[
    key("condition[].as", "condition[].conditioning"),
    key("control[].guess", "control[].guess_mode"),
    Alias {
        kind: AliasKind::InverseKey,
        old: "device.keep",
        new: "device.offload",
        note: "the inverse: keep = false is offload = true",
    },
    key("device.memory", "device.memory_budget"),
    key("device.prepare", "device.optimize"),
    key("device.small_decoder", "device.tiny_vae_decoder"),
    key("embedding", "textual_inversion"),
    key("model.small_decoder", "model.tiny_vae_decoder"),
    key("output.keep", "output.save_intermediate"),
    key("stage[].hand", "stage[].input"),
    key("task.NAME.weights", "task.NAME.prompt_weighting"),
    value("condition[].conditioning = \"tokens\"", "condition[].conditioning = \"cross-attention\""),
    value("model.decoder = \"small\"", "model.decoder = \"tiny\""),
    value("task.NAME.long_prompts = \"cut\"", "task.NAME.long_prompts = \"truncate\""),
    alias(AliasKind::Folder, "small_decoder", "tiny_vae_decoder"),
    alias(AliasKind::Variable, "LDM_ORT_PREPARE", "LDM_ORT_OPTIMIZE"),
    alias(AliasKind::Command, "compile", "optimize"),
    alias(AliasKind::Record, "fewer_evaluations.outer", "fewer_evaluations.shallow"),
    alias(AliasKind::Record, "stages[].hand", "stages[].input"),
    alias(AliasKind::Record, "weights.embedding[]", "weights.textual_inversion[]"),
    alias(AliasKind::Record, "weights.small_decoder", "weights.tiny_vae_decoder"),
    alias(AliasKind::Record, "decoder = \"small_decoder\"", "decoder = \"tiny_vae_decoder\""),
];

const fn alias(kind: AliasKind, old: &'static str, new: &'static str) -> Alias {
    Alias { kind, old, new, note: "" }
}

const fn key(old: &'static str, new: &'static str) -> Alias {
    alias(AliasKind::Key, old, new)
}

const fn value(old: &'static str, new: &'static str) -> Alias {
    alias(AliasKind::Value, old, new)
}

impl Alias {
    /// Finds an old name of this kind.
    pub fn find(kind: AliasKind, old: &str) -> Option<&'static Self> {
        ALIASES.iter().find(|alias| alias.kind == kind && alias.old == old)
    }

    /// The warning for the old name, here as it was written: in one line, with the new name written the same way.
    pub fn warning(&self, old: &str, new: &str) -> String {
        let inverse = if self.kind == AliasKind::InverseKey { ", its inverse" } else { "" };
        format!("`{old}` is now `{new}`{inverse}; the old name still works")
    }

    /// The warning for an old name that is always written the same way.
    pub fn plain_warning(&self) -> String {
        self.warning(self.old, self.new)
    }
}

/// Reads an environment variable under its new name or else its old one. `get` reads a variable. The second part of the
/// answer is the warning, if the old name was read.
pub fn variable(name: &str, get: impl Fn(&str) -> Option<OsString>) -> (Option<OsString>, Option<String>) {
    if let Some(value) = get(name) {
        return (Some(value), None);
    }
    let mut old = ALIASES.iter().filter(|alias| alias.kind == AliasKind::Variable && alias.new == name);
    let found = old.find_map(|alias| Some((get(alias.old)?, alias.plain_warning())));
    found.map_or((None, None), |(value, warning)| (Some(value), Some(warning)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_differ_from_all_new_ones() {
        for (at, alias) in ALIASES.iter().enumerate() {
            assert_ne!(alias.old, alias.new);
            assert!(!ALIASES[..at].iter().any(|other| (other.kind, other.old) == (alias.kind, alias.old)), "{alias:?}");
            assert!(!ALIASES.iter().any(|other| (other.kind, other.new) == (alias.kind, alias.old)), "{alias:?}");
        }
    }

    #[test]
    fn a_variable_is_read_under_both_names_and_the_new_one_wins() {
        for alias in ALIASES.iter().filter(|alias| alias.kind == AliasKind::Variable) {
            let read = |set: &[(&str, &str)]| {
                let find = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
                variable(alias.new, find)
            };
            let value = |text: &str| Some(OsString::from(text));
            assert_eq!(read(&[]), (None, None));
            assert_eq!(read(&[(alias.new, "1")]), (value("1"), None));
            let warning = format!("`{}` is now `{}`; the old name still works", alias.old, alias.new);
            assert_eq!(read(&[(alias.old, "0")]), (value("0"), Some(warning)));
            assert_eq!(read(&[(alias.old, "0"), (alias.new, "1")]), (value("1"), None));
        }
    }
}
