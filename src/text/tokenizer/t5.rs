//! What T5's tokenizer needs beside its `tokenizer.json`: the likeliest split of a text into pieces under a unigram model
//! (Kudo 2018, arXiv 1804.10959), as SentencePiece trains it.

use std::path::Path;

use tokenizers::Tokenizer;
use tokenizers::processors::template::TemplateProcessing;

use super::files::FETCH;
use super::special::Placed;
use crate::error::{Error, Result};

/// The names under which a checkpoint holds SentencePiece's own file.
const PIECES: [&str; 2] = ["spiece.model", "tokenizer.model"];

/// Refuses a folder whose only vocabulary is SentencePiece's, which is not read.
pub(super) fn refuse_pieces(dir: &Path) -> Result<()> {
    let Some(name) = PIECES.into_iter().find(|name| dir.join(name).is_file()) else { return Ok(()) };
    Err(Error::model(
        dir,
        format!("holds {name} and no tokenizer.json, and SentencePiece's own file is not read"),
        format!(
            "write tokenizer.json beside it with transformers: python -c \"import transformers as t; \
             t.AutoTokenizer.from_pretrained('{0}').save_pretrained('{0}')\"",
            dir.display()
        ),
    ))
}

/// Puts these tokens before every prompt and behind it.
pub(super) fn surround(tokenizer: &mut Tokenizer, dir: &Path, [begin, end]: [Option<Placed>; 2]) -> Result<()> {
    let name = |token: &Option<Placed>| token.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let pieces = [name(&begin), vec!["$A".to_owned()], name(&end)].concat();
    let special: Vec<Placed> = begin.into_iter().chain(end).collect();
    let template =
        TemplateProcessing::builder().try_single(pieces).map(|builder| builder.special_tokens(special).build());
    let template = template
        .map_err(|e| e.to_string())
        .and_then(|built| built.map_err(|e| e.to_string()))
        .map_err(|e| Error::model(dir, format!("the tokens around a prompt have no place: {e}"), FETCH))?;
    tokenizer.with_post_processor(Some(template));
    Ok(())
}
