//! A model directory like another, put in its place when it is whole.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::outcome::stop_if;
use crate::error::{Error, Result};
use crate::files;
use crate::session::Cancel;

/// Smaller files are copied: they are what people edit, and a hard link is the same file as the old one.
const LINKED: u64 = 1 << 20;

/// Fills `output` with what `make` writes, and with all of `model` but the files `replaced`.
pub fn write<T>(
    model: &Path,
    output: &Path,
    replaced: &HashSet<PathBuf>,
    cancel: &Cancel,
    make: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let at_fault = |problem: String, help: &str| Err(Error::input("--output", problem, help));
    if std::fs::symlink_metadata(output).is_ok() {
        return at_fault(format!("{} is there already", output.display()), "choose another place, or remove it first");
    }
    files::require_format("--output", output, "", "a whole model directory is written")?;
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(whole) = parent.canonicalize() else {
        return at_fault(format!("{} is no folder", parent.display()), "make it first, or choose another path");
    };
    let root = model.canonicalize().map_err(|e| Error::io(model, "reading", e))?;
    if whole.starts_with(&root) {
        return at_fault(format!("{} is within the model directory", output.display()), "choose a place beside it");
    }
    let failed = |e| Error::io(output, "writing", e);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ldm-ort-");
    // Temporary folders are private by default; this one is to become an ordinary folder, which the umask rules.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let room = builder.tempdir_in(parent).map_err(failed)?;
    let written = make(room.path())?;
    copy(model, room.path(), replaced, &mut vec![root], cancel)?;
    files::rename_folder(room.path(), output).map_err(failed)?;
    let _ = room.keep();
    Ok(written)
}

/// Copies what is in a folder but for the files `without`, links followed. `above` are the folders that it is in, itself
/// among them.
fn copy(from: &Path, to: &Path, without: &HashSet<PathBuf>, above: &mut Vec<PathBuf>, cancel: &Cancel) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|e| Error::io(to, "creating the folder", e))?;
    let listed = std::fs::read_dir(from).map_err(|e| Error::io(from, "listing", e))?;
    for entry in listed {
        stop_if(cancel)?;
        let entry = entry.map_err(|e| Error::io(from, "listing", e))?;
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        let unreadable = |e| match files::broken_link(&path) {
            Some(reason) => Error::model(&path, reason, "fetch the file again, or remove the link"),
            None => Error::io(&path, "reading", e),
        };
        let metadata = std::fs::metadata(&path).map_err(unreadable)?;
        // A link within a cache is followed to the file itself.
        let whole = path.canonicalize().map_err(unreadable)?;
        if metadata.is_dir() {
            if above.contains(&whole) {
                return Err(Error::model(&path, "is a link to a folder that it is in", "remove the link"));
            }
            above.push(whole);
            copy(&path, &place, without, above, cancel)?;
            above.pop();
        } else if !without.contains(&path)
            && !place.exists()
            && (metadata.len() < LINKED || std::fs::hard_link(&whole, &place).is_err())
        {
            files::open(&whole)
                .and_then(|_| std::fs::copy(&whole, &place))
                .map_err(|e| Error::io(&path, "copying", e))?;
        }
    }
    Ok(())
}
