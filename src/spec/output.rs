//! `[output]`: where pictures go.

use std::path::{Path, PathBuf};

use super::reader::{Reading, Table};
use super::tree::Origin;
use super::writer::{Writer, integer};

pub(super) const FOLDER: &str = "outputs";

/// `[output]`: where pictures go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `dir = "outputs"`: the folder pictures are written to, made where it is missing.
    pub dir: PathBuf,
    /// `keep = false`: whether the pictures are written although a `[[stage]]` goes on with them.
    pub keep: bool,
    /// `preview`: every how many steps a preview of the picture is shown and written, at least 1; absent, never. It
    /// changes nothing of the picture. Stages have it from the file's own table.
    pub preview: Option<usize>,
}

impl Default for Output {
    fn default() -> Self {
        Self { dir: FOLDER.into(), keep: false, preview: None }
    }
}

impl Output {
    pub(super) fn read(mut table: Table<'_>, reading: &Reading<'_>) -> Self {
        // The default is relative to the file, like a folder that is written there.
        let dir = table.file_path("dir").unwrap_or_else(|| reading.resolve(Origin::Nowhere, Path::new(FOLDER)));
        let keep = table.get("keep").and_then(|item| item.switch()).unwrap_or(false);
        let preview = table.integer("preview", 1, 10_000);
        table.finish();
        Self { dir, keep, preview }
    }

    /// Writes what is not as it is without a table: `usual` is the folder then.
    pub(super) fn write(&self, writer: &mut Writer, usual: &Path) {
        // The default is not made absolute, or a record that means it would name the folder it was written from.
        if self.dir == usual && !self.keep && self.preview.is_none() {
            return;
        }
        writer.table(&["output"]);
        if self.dir != usual {
            writer.path("dir", &self.dir);
        }
        writer.key_if("keep", self.keep.then_some(true));
        writer.key_if("preview", self.preview.map(integer));
    }
}
