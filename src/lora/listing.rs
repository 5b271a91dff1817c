//! Lists of modules in messages.

use super::file::LoraFile;
use super::names::Part;

pub(super) fn modules_of(file: &LoraFile, part: Part) -> Vec<&str> {
    file.modules.iter().filter(|((of, _), _)| *of == part).map(|(_, module)| module.written.as_str()).collect()
}

/// The first of a list, and how many there are beside them.
pub(super) fn few(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
