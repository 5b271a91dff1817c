//! Lists of modules in messages.

use super::file::LoraFile;
use super::names::LoraTarget;

/// Returns the names, as the file has them, of the modules of a part.
pub fn modules_of(file: &LoraFile, part: LoraTarget) -> Vec<&str> {
    file.modules.iter().filter(|((of, _), _)| *of == part).map(|(_, module)| module.written.as_str()).collect()
}

/// Formats the first names of a list, and the number of the others.
pub fn summarize(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
