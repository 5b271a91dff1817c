//! Custom words, and the vectors appended to a text encoder's for them.

use std::sync::Arc;

use ndarray::{Array2, Axis};

use crate::bundle::{Component, GraphFile, TextEncoderSignature, TokenTable};
use crate::error::{Error, Result};
use crate::tensor::Weight;
use crate::text::TextualInversion;
use crate::text::tokenizer::Tokenizer;

/// Vectors appended to those that a graph stores for its tokens.
#[derive(Debug, Clone)]
pub struct AddedTokens {
    table: TokenTable,
    /// `[n, width]`
    vectors: Array2<f32>,
}

impl AddedTokens {
    /// Returns the weight the graph is opened with.
    ///
    /// # Errors
    /// As [`TokenTable::append_rows`].
    pub fn weight(&self, graph: &GraphFile) -> Result<Weight> {
        self.table.append_rows(graph, &self.vectors)
    }

    /// Lets `tokenizer` and `signature` know the words of `inversions`.
    pub(super) fn new(
        inversions: &[Arc<TextualInversion>],
        component: &Component,
        encoders: usize,
        signature: &mut TextEncoderSignature,
        mut tokenizer: Tokenizer,
    ) -> Result<(Option<Self>, Tokenizer)> {
        if inversions.is_empty() {
            return Ok((None, tokenizer));
        }
        let Some(table) = TokenTable::find(&component.graph, &signature.input_ids.name)? else {
            return Err(Error::model(
                &component.graph.path,
                format!(
                    "does not tell where {} keeps the vectors of its tokens, and [[textual_inversion]] adds some",
                    component.kind
                ),
                "use an export in float32 or float16, without fused operators",
            ));
        };
        let mut vectors = Array2::zeros((0, table.width));
        for inversion in inversions {
            let number = component.kind.text_encoder_number().unwrap_or(1);
            let own = inversion.of_encoder(number, encoders)?;
            let first = table.rows + vectors.nrows();
            if vectors.append(Axis(0), own.view()).is_err() {
                return Err(Error::model(
                    &inversion.path,
                    format!(
                        "its vectors are {} wide, and those of {} are {}",
                        own.ncols(),
                        component.kind,
                        table.width
                    ),
                    "it was made for another family of models; use one that was made for this",
                ));
            }
            let ids = (first..first + own.nrows()).map(|id| id as i64).collect();
            tokenizer = tokenizer.with_word(&inversion.token, ids)?;
        }
        signature.embedding_rows = Some(table.rows + vectors.nrows());
        Ok((Some(Self { table, vectors }), tokenizer))
    }
}
