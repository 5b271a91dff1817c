//! The image that a task starts from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::image::Rgb8;
use crate::spec::reader::Table;
use crate::spec::writer::Writer;

/// The image that a task starts from, or its mask.
#[derive(Clone, PartialEq, Eq)]
pub enum InputImage {
    /// The image in a file.
    File(PathBuf),
    /// Pixels in memory, which only a program can give. No limit of pixels applies to them. A spec that holds them is
    /// written without them, and the records of its images say that they cannot be made again.
    Pixels(Arc<Rgb8>),
    /// In a `[[stage]]`: the output of the stage before.
    StageOutput,
}

impl InputImage {
    /// The path, if the image is in a file.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Pixels(_) | Self::StageOutput => None,
        }
    }

    /// True if the image is in memory.
    pub fn is_in_memory(&self) -> bool {
        matches!(self, Self::Pixels(_))
    }

    /// The name of the image in messages: its path, if it is in a file.
    pub fn describe(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Pixels(_) => "the image given in memory".to_owned(),
            Self::StageOutput => "the image handed on".to_owned(),
        }
    }

    pub(super) fn read(table: &mut Table<'_>) -> Self {
        if table.get("image").is_none() && table.is_in_stage() {
            return Self::StageOutput;
        }
        table.require("image", "the path of an image");
        Self::File(table.file_path("image").unwrap_or_default())
    }

    pub(super) fn write(&self, key: &str, writer: &mut Writer) {
        if let Self::File(path) = self {
            writer.path(key, path);
        }
    }
}

impl fmt::Debug for InputImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            // Without the pixels themselves, which are millions of numbers.
            Self::Pixels(image) => write!(f, "Pixels({}×{})", image.width(), image.height()),
            Self::StageOutput => f.write_str("StageOutput"),
        }
    }
}

impl From<PathBuf> for InputImage {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&Path> for InputImage {
    fn from(path: &Path) -> Self {
        Self::File(path.to_path_buf())
    }
}

impl From<&str> for InputImage {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

impl From<Rgb8> for InputImage {
    fn from(image: Rgb8) -> Self {
        Self::Pixels(Arc::new(image))
    }
}

impl From<Arc<Rgb8>> for InputImage {
    fn from(image: Arc<Rgb8>) -> Self {
        Self::Pixels(image)
    }
}
