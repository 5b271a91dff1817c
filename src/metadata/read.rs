//! The record in an image file.

use std::io::BufReader;
use std::path::Path;

use super::{RECORD_KEYWORD, Record, SCHEMA};
use crate::aliases::{ALIASES, AliasKind};
use crate::error::{Error, Result};
use crate::files;
use crate::guard::contain;

/// The most bytes that a compressed record is unpacked to.
const LONGEST_RECORD: usize = 16 << 20;

/// Reads the record of an image that `ldm-ort` made.
///
/// # Errors
/// [`Error::Input`] where the file is no PNG, holds no record, or one of a later version; [`Error::Io`] where it
/// cannot be read.
pub fn read_png(path: &Path) -> Result<Record> {
    let help = "name an image that ldm-ort made";
    contain(|| read_text_chunk(path))
        .unwrap_or_else(|panic| Err(Error::input(path.display().to_string(), panic.to_string(), help)))
}

fn read_text_chunk(path: &Path) -> Result<Record> {
    let named = || path.display().to_string();
    let file = files::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::input(named(), "no such file", "name an image that ldm-ort made"),
        _ => Error::io(path, "reading", e),
    })?;
    let mut reader = png::Decoder::new(BufReader::new(file))
        .read_info()
        .map_err(|e| Error::input(named(), format!("is no PNG file: {e}"), "name an image that ldm-ort made"))?;
    let mut found = text_of(reader.info());
    if found.is_none() {
        // Text may also stand behind the pixels; a file cut short there has simply no record.
        let _ = reader.finish();
        found = text_of(reader.info());
    }
    let Some(json) = found else {
        return Err(Error::input(
            named(),
            format!("holds no record of how it was made (a text chunk {RECORD_KEYWORD})"),
            "name an image that ldm-ort made; editing programs often drop the record",
        ));
    };
    let schema = serde_json::from_str::<serde_json::Value>(&json)
        .ok()
        .and_then(|value| value.get("schema").and_then(serde_json::Value::as_u64));
    if schema.is_some_and(|schema| schema > u64::from(SCHEMA)) {
        return Err(Error::input(
            named(),
            format!("its record has version {}, and this program reads up to {SCHEMA}", schema.unwrap_or(0)),
            "use the version of ldm-ort that made it, or a later one",
        ));
    }
    let record: Result<Record, _> = serde_json::from_str(&json);
    record.map(with_new_names).map_err(|e| {
        Error::input(named(), format!("its record cannot be read: {e}"), "name an image as ldm-ort wrote it")
    })
}

/// Replaces the old names of components and tables in a record. Those of its fields are serde's aliases.
fn with_new_names(mut record: Record) -> Record {
    let of_stages = record.stages.iter_mut().map(|stage| (&mut stage.weights, &mut stage.decoder));
    for (weights, decoder) in std::iter::once((&mut record.weights, &mut record.decoder)).chain(of_stages) {
        *weights = std::mem::take(weights).into_iter().map(|(name, digest)| (new_weights(name), digest)).collect();
        *decoder = decoder.take().map(new_decoder);
    }
    record
}

/// The new name of a key of [`Record::weights`].
fn new_weights(name: String) -> String {
    let (base, number) = name.find('[').map_or((name.as_str(), ""), |at| name.split_at(at));
    let is_it = |old: &str| old.strip_prefix("weights.").is_some_and(|old| old.trim_end_matches("[]") == base);
    let found = ALIASES.iter().find(|alias| alias.kind == AliasKind::Record && is_it(alias.old));
    let new = found.and_then(|alias| alias.new.strip_prefix("weights.")).map(|new| new.trim_end_matches("[]"));
    new.map(|new| format!("{new}{number}")).unwrap_or(name)
}

/// The new name of [`Record::decoder`].
fn new_decoder(name: String) -> String {
    let value = |text: &'static str| text.strip_prefix("decoder = ").map(|value| value.trim_matches('"'));
    let found = ALIASES.iter().find(|alias| alias.kind == AliasKind::Record && value(alias.old) == Some(name.as_str()));
    found.and_then(|alias| value(alias.new)).map(str::to_owned).unwrap_or(name)
}

fn text_of(info: &png::Info<'_>) -> Option<String> {
    let unpacked = |chunk: &png::text_metadata::ITXtChunk| {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(LONGEST_RECORD).ok()?;
        chunk.get_text().ok()
    };
    let utf8 = info.utf8_text.iter().find(|c| c.keyword == RECORD_KEYWORD).and_then(unpacked);
    let latin = || info.uncompressed_latin1_text.iter().find(|c| c.keyword == RECORD_KEYWORD).map(|c| c.text.clone());
    utf8.or_else(latin)
}
