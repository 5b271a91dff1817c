//! `[[textual_inversion]]`: words with learned token embeddings.

use std::path::PathBuf;

use crate::keys::{Table, Writer};

/// `[[textual_inversion]]`, any number: a word, and the token embeddings that were learned for it (Gal et al. 2022, arXiv
/// 2208.01618).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextualInversionSpec {
    /// `path`, required: a .safetensors file, in the form of diffusers, of AUTOMATIC1111 (`emb_params`) or of Stable
    /// Diffusion XL (`clip_l` and `clip_g`).
    pub path: PathBuf,
    /// `token`: the word. Absent: the name of the tensor for diffusers' form, the name of the file for the others.
    pub token: Option<String>,
}

impl TextualInversionSpec {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        table.require("path", "the path of a .safetensors file");
        let inversion = Self {
            path: table.file_path("path").unwrap_or_default(),
            token: table.get("token").and_then(|item| item.string("a word")),
        };
        table.finish();
        inversion
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.array_table("textual_inversion");
        writer.path("path", &self.path);
        writer.key_if("token", self.token.clone());
    }
}
