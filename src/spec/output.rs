//! `[output]`: the folder for images.

use std::path::{Path, PathBuf};

use super::record_paths::RecordPaths;
use crate::keys::{Origin, Reading, Table, Writer, integer};

pub(super) const FOLDER: &str = "outputs";

/// `[output]`: the folder for images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// `dir = "outputs"`: the folder images are written to, made where it is missing.
    pub dir: PathBuf,
    /// `save_intermediate = false`: true saves these images also if a `[[stage]]` follows.
    pub save_intermediate: bool,
    /// `preview`: every how many steps a preview of the image is shown and written, at least 1; absent, never. It
    /// changes nothing of the image. Stages have it from the file's own table.
    pub preview: Option<usize>,
    /// `record_paths = "relative"`: the form of paths in the record of each image. `"relative"`: relative to the current
    /// directory where they are in it, else by their bare names, so that nothing tells of the machine; `"absolute"`.
    /// Stages have it from the file's own table.
    pub record_paths: RecordPaths,
}

impl Default for OutputSpec {
    fn default() -> Self {
        Self { dir: FOLDER.into(), save_intermediate: false, preview: None, record_paths: RecordPaths::Relative }
    }
}

impl OutputSpec {
    pub(super) fn read(mut table: Table<'_>, reading: &Reading<'_>) -> Self {
        // The default is relative to the file, like a folder that is written there.
        let dir = table.file_path("dir").unwrap_or_else(|| reading.resolve(Origin::Nowhere, Path::new(FOLDER)));
        let save_intermediate = table.get("save_intermediate").and_then(|item| item.switch()).unwrap_or(false);
        let preview = table.integer("preview", 1, 10_000);
        let record_paths = if table.is_in_stage() { RecordPaths::Relative } else { read_record_paths(&mut table) };
        table.finish();
        Self { dir, save_intermediate, preview, record_paths }
    }

    /// Writes what is not as it is without a table: `usual` is the folder then.
    pub(super) fn write(&self, writer: &mut Writer, usual: &Path) {
        // The default is not made absolute, or a record that means it would name the folder it was written from.
        let record_paths = (self.record_paths != RecordPaths::Relative).then(|| self.record_paths.name());
        if self.dir == usual && !self.save_intermediate && self.preview.is_none() && record_paths.is_none() {
            return;
        }
        writer.table(&["output"]);
        if self.dir != usual {
            writer.path("dir", &self.dir);
        }
        writer.key_if("save_intermediate", self.save_intermediate.then_some(true));
        writer.key_if("preview", self.preview.map(integer));
        writer.key_if("record_paths", record_paths);
    }
}

fn read_record_paths(table: &mut Table<'_>) -> RecordPaths {
    let names = RecordPaths::NAMES.map(|(name, _)| name);
    let chosen = table.choice("record_paths", "form of paths", &names);
    RecordPaths::NAMES.into_iter().find(|(name, _)| Some(*name) == chosen).map_or_else(RecordPaths::default, |(_, p)| p)
}
