//! Removal of temporary files of killed processes.

use std::path::Path;
use std::time::Duration;

/// The prefix of the names of temporary files.
pub(super) const PREFIX: &str = ".ldm-ort-";
/// The suffix of the names of temporary files.
pub(super) const SUFFIX: &str = ".part";

/// The age after which a temporary file is abandoned. Writing one takes moments.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Removes temporary files older than a day from a folder. Files that cannot be removed are ignored.
pub(crate) fn remove_leftovers(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_abandoned = |file: std::fs::Metadata| {
            let age = file.modified().ok().and_then(|modified| modified.elapsed().ok());
            file.is_file() && age.is_some_and(|age| age > ABANDONED)
        };
        // The metadata is that of a link, not of its target.
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) && entry.metadata().is_ok_and(is_abandoned) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_old_temporary_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let made = |name: &str, hours: u64| {
            let age = Duration::from_secs(hours * 60 * 60);
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        made(".ldm-ort-Abc123.part", 25);
        made(".ldm-ort-Xyz789.part", 1);
        made("a.part", 1000);
        made(".ldm-ort-a.png", 1000);
        std::fs::create_dir(dir.path().join(".ldm-ort-folder.part")).unwrap();
        remove_leftovers(dir.path());
        let left =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, [".ldm-ort-Xyz789.part", ".ldm-ort-a.png", ".ldm-ort-folder.part", "a.part"]);
        remove_leftovers(&dir.path().join("none"));
    }
}
