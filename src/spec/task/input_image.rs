//! The image that a task begins with.

use std::path::{Path, PathBuf};

use crate::spec::reader::Table;
use crate::spec::writer::Writer;

/// The image that a task begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputImage {
    /// `image`: that of a file.
    File(PathBuf),
    /// No `image`, in a `[[stage]]`: what the stage before made.
    Handed,
}

impl InputImage {
    /// The file, where there is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Handed => None,
        }
    }

    pub(super) fn read(table: &mut Table<'_>) -> Self {
        if table.get("image").is_none() && table.is_in_stage() {
            return Self::Handed;
        }
        table.require("image", "the path of an image");
        Self::File(table.file_path("image").unwrap_or_default())
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        if let Self::File(path) = self {
            writer.path("image", path);
        }
    }
}
