//! Writes a changed copy of a model directory, and publishes it once it is complete.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;
use crate::session::Cancel;

/// Smaller files are copied: people edit them, and a hard link would change the original too.
const LINKED: u64 = 1 << 20;

/// Fills `output` with the files that `make` writes, and with all of `model` except the files `replaced`.
pub fn write<T>(
    model: &Path,
    output: &Path,
    replaced: &HashSet<PathBuf>,
    cancel: &Cancel,
    make: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let at_fault = |problem: String, help: &str| Err(Error::input("--output", problem, help));
    if std::fs::symlink_metadata(output).is_ok() {
        return at_fault(format!("{} already exists", output.display()), "choose another path, or remove it first");
    }
    files::require_format("--output", output, "", "the output is a model directory")?;
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(whole) = parent.canonicalize() else {
        return at_fault(format!("{} is not a folder", parent.display()), "create it first, or choose another path");
    };
    let root = model.canonicalize().map_err(|e| Error::io(model, "reading", e))?;
    if whole.starts_with(&root) {
        return at_fault(format!("{} is inside the model directory", output.display()), "choose a path outside of it");
    }
    let failed = |e| Error::io(output, "writing", e);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ldm-ort-");
    // Temporary folders are private by default; this one becomes an ordinary folder with the umask's permissions.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let room = builder.tempdir_in(parent).map_err(failed)?;
    let written = make(room.path())?;
    copy(model, room.path(), replaced, &mut vec![root], cancel)?;
    files::rename_folder(room.path(), output).map_err(failed)?;
    let _ = room.keep();
    Ok(written)
}

/// Copies a folder's contents except the files `without`, following links. `above` are its parent folders and itself.
fn copy(from: &Path, to: &Path, without: &HashSet<PathBuf>, above: &mut Vec<PathBuf>, cancel: &Cancel) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|e| Error::io(to, "creating the folder", e))?;
    let listed = std::fs::read_dir(from).map_err(|e| Error::io(from, "listing", e))?;
    for entry in listed {
        cancel.check()?;
        let entry = entry.map_err(|e| Error::io(from, "listing", e))?;
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        let unreadable = |e| match files::broken_link(&path) {
            Some(reason) => Error::model(&path, reason, "fetch the file again, or remove the link"),
            None => Error::io(&path, "reading", e),
        };
        let metadata = std::fs::metadata(&path).map_err(unreadable)?;
        // A link within a cache is resolved to the file itself.
        let whole = path.canonicalize().map_err(unreadable)?;
        if metadata.is_dir() {
            if above.contains(&whole) {
                return Err(Error::model(&path, "is a link to a folder that contains it", "remove the link"));
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
