//! `[output]`: where pictures go.

use std::path::PathBuf;

use super::reader::{Reading, Table};
use super::tree::Origin;
use super::writer::Writer;

const FOLDER: &str = "outputs";

/// `[output]`: where pictures go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `dir = "outputs"`: the folder pictures are written to, made where it is missing.
    pub dir: PathBuf,
}

impl Default for Output {
    fn default() -> Self {
        Self { dir: FOLDER.into() }
    }
}

impl Output {
    pub(super) fn read(mut table: Table<'_>, reading: &Reading<'_>) -> Self {
        // The default is relative to the file, like a folder that is written there.
        let dir = table.file_path("dir").unwrap_or_else(|| reading.resolve(Origin::Nowhere, FOLDER));
        table.finish();
        Self { dir }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        // The default is not made absolute, or a record that means it would name the folder it was written from.
        if *self != Self::default() {
            writer.table(&["output"]);
            writer.path("dir", &self.dir);
        }
    }
}
