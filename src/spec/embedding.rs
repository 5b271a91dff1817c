//! `[[embedding]]`: words of a user's own.

use crate::keys::{Table, Writer};
use std::path::PathBuf;

/// `[[embedding]]`, any number: a textual inversion, a word that becomes vectors which were learnt.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EmbeddingSpec {
    /// `path`, required: a .safetensors file, in diffusers' form, in AUTOMATIC1111's (`emb_params`), or in that of
    /// Stable Diffusion XL (`clip_l` and `clip_g`).
    pub path: PathBuf,
    /// `token`: the word. Absent: the name of the file's tensor in diffusers' form, the file's own name in the others.
    pub token: Option<String>,
}

impl EmbeddingSpec {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        table.require("path", "the path of a .safetensors file");
        let embedding = Self {
            path: table.file_path("path").unwrap_or_default(),
            token: table.get("token").and_then(|item| item.string("a word")),
        };
        table.finish();
        embedding
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.array_table("embedding");
        writer.path("path", &self.path);
        writer.key_if("token", self.token.clone());
    }
}
