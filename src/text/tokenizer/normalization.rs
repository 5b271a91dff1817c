//! Unicode normalization.

use tokenizers::NormalizedString;

/// Unicode's normalization form C.
pub(super) fn composed(text: &str) -> String {
    let mut normalized = NormalizedString::from(text);
    normalized.nfc();
    normalized.get().to_owned()
}
