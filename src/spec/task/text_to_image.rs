//! `[task.text-to-image]`: a prompt becomes an image.

use super::prompting::Prompting;
use crate::spec::reader::Table;
use crate::spec::writer::Writer;

/// `[task.text-to-image]`: a prompt becomes an image.
#[derive(Debug, Clone, PartialEq)]
pub struct TextToImage {
    /// The prompt and its guidance.
    pub prompting: Prompting,
}

impl TextToImage {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self { prompting: Prompting::read(table) }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.prompting.write(writer);
    }
}
