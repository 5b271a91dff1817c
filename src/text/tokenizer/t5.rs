//! Builds T5's tokenizer from its `tokenizer.json`: the most probable split of a text into pieces under a unigram model
//! (Kudo 2018, arXiv 1804.10959), as trained by SentencePiece.

use std::path::Path;

use tokenizers::Tokenizer;
use tokenizers::processors::template::TemplateProcessing;

use super::files::FETCH;
use super::special::SpecialToken;
use crate::error::{Error, Result};

/// The names of SentencePiece's own file in checkpoints.
const PIECES: [&str; 2] = ["spiece.model", "tokenizer.model"];

/// Rejects a folder whose only vocabulary is SentencePiece's own file, which is not supported.
pub(super) fn refuse_pieces(dir: &Path) -> Result<()> {
    let Some(name) = PIECES.into_iter().find(|name| dir.join(name).is_file()) else { return Ok(()) };
    Err(Error::model(
        dir,
        format!("contains {name} and no tokenizer.json; SentencePiece's own file is not supported"),
        format!(
            "write tokenizer.json next to it with transformers: python -c \"import transformers as t; \
             t.AutoTokenizer.from_pretrained('{0}').save_pretrained('{0}')\"",
            dir.display()
        ),
    ))
}

/// Adds these tokens before and after every prompt.
pub(super) fn surround(tokenizer: &mut Tokenizer, dir: &Path, [begin, end]: [Option<SpecialToken>; 2]) -> Result<()> {
    let name = |token: &Option<SpecialToken>| token.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let pieces = [name(&begin), vec!["$A".to_owned()], name(&end)].concat();
    let special: Vec<SpecialToken> = begin.into_iter().chain(end).collect();
    let template =
        TemplateProcessing::builder().try_single(pieces).map(|builder| builder.special_tokens(special).build());
    let template = template
        .map_err(|e| e.to_string())
        .and_then(|built| built.map_err(|e| e.to_string()))
        .map_err(|e| Error::model(dir, format!("the special tokens cannot be added: {e}"), FETCH))?;
    tokenizer.with_post_processor(Some(template));
    Ok(())
}
