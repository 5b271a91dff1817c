//! The number of tokens that a text encoder reads.

use crate::bundle::{Component, TextEncoderSignature};
use crate::error::{Error, Result};
use crate::text::tokenizer::Tokenizer;

/// The tokenizer of a CLIP or BERT, set to the length of its text encoder if it has none of its own: that which the graph
/// is fixed at, or for CLIP `max_position_embeddings` of its config.json. The pipeline of BERT's models has 77 of its own.
///
/// # Errors
/// [`Error::Model`] if the tokenizer's own length is not one that the text encoder takes.
pub(super) fn of_encoder(
    tokenizer: Tokenizer,
    component: &Component,
    signature: &TextEncoderSignature,
) -> Result<Tokenizer> {
    let positions = component.config.get("max_position_embeddings").and_then(serde_json::Value::as_u64);
    let positions = positions.and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=100_000).contains(n));
    let positions = positions.filter(|_| tokenizer.is_clip());
    if !tokenizer.has_own_length() {
        return match signature.sequence_length.or(positions) {
            Some(length) => tokenizer.with_max_length(length),
            None => Ok(tokenizer),
        };
    }
    let own = tokenizer.max_length();
    let at_fault = |problem: String, help: String| Err(Error::model(&component.graph.path, problem, help));
    match (signature.sequence_length, positions) {
        (Some(fixed), _) if fixed != own => at_fault(
            format!(
                "input {} takes exactly {fixed} tokens, and the tokenizer is set to {own}",
                signature.input_ids.name
            ),
            format!("set model_max_length to {fixed} in tokenizer_config.json, or export the graph with a free length"),
        ),
        (_, Some(positions)) if positions < own => at_fault(
            format!(
                "{} has {positions} positions (max_position_embeddings), and the tokenizer is set to {own} tokens",
                component.kind
            ),
            format!("set model_max_length to {positions} in tokenizer_config.json"),
        ),
        _ => Ok(tokenizer),
    }
}
