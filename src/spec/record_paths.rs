//! Paths in records.

/// The form in which the record in an image names files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordPaths {
    /// `"relative"`: relative to the current directory where they are in it, else by their bare names.
    #[default]
    Relative,
    /// `"absolute"`: by absolute paths. A run from such a record needs all of them anew.
    Absolute,
}

impl RecordPaths {
    pub(super) const NAMES: [(&'static str, Self); 2] = [("relative", Self::Relative), ("absolute", Self::Absolute)];

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, paths)| *paths == self).map_or("relative", |(name, _)| name)
    }
}
