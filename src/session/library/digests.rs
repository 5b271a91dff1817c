//! The digests of fetched libraries, in a file next to them.

use std::fs::Metadata;
use std::path::Path;

use sha2::Sha256;

use crate::error::Result;
use crate::files;

/// The file, in the format of `sha256sum`.
const SUMS: &str = "SHA256SUMS";
/// The suffix of the file that stores a library's stamp from the last comparison of its digest.
const COMPARED: &str = ".compared";

/// Writes the digests of all files in `folder`.
#[cfg(feature = "fetch")]
pub(in crate::session) fn write(folder: &Path) -> Result<()> {
    let listed = std::fs::read_dir(folder).map_err(|e| crate::Error::io(folder, "listing", e))?;
    let mut sums = Vec::new();
    for path in listed.flatten().map(|entry| entry.path()) {
        sums.push(format!("{}  {}\n", digest(&path)?, name_of(&path)));
    }
    sums.sort();
    files::write_whole(&folder.join(SUMS), |file| std::io::Write::write_all(file, sums.concat().as_bytes()))
}

/// Checks that a fetched library is unchanged. The digest is compared again only if the file's size or times changed.
///
/// The error is one phrase that follows the path.
pub(super) fn check(library: &Path) -> Result<(), String> {
    let Some(folder) = library.parent() else { return Ok(()) };
    let Ok(sums) = files::read_text(&folder.join(SUMS)) else { return Ok(()) };
    let name = name_of(library);
    let Some((fetched, _)) = sums.lines().filter_map(|line| line.split_once("  ")).find(|(_, of)| *of == name) else {
        return Ok(());
    };
    let Some(stamp) = std::fs::metadata(library).ok().map(|metadata| stamp(&metadata, fetched)) else { return Ok(()) };
    let compared = folder.join(name + COMPARED);
    if files::read_text(&compared).is_ok_and(|known| known == stamp) {
        return Ok(());
    }
    if digest(library).map_err(|e| format!("cannot be read: {e}"))? != fetched {
        return Err(format!("changed since it was fetched; remove {} to fetch it again", folder.display()));
    }
    // If that can't be written, the digest is compared every time.
    let _ = files::replace(&compared, |file| std::io::Write::write_all(file, stamp.as_bytes()));
    Ok(())
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn digest(path: &Path) -> Result<String> {
    let mut hash = Sha256::default();
    files::digest_into(path, &mut hash)?;
    Ok(files::hexadecimal(hash))
}

/// Returns text that differs if the file's contents or its digest may differ.
fn stamp(metadata: &Metadata, digest: &str) -> String {
    #[cfg(unix)]
    let changed = {
        use std::os::unix::fs::MetadataExt;
        (metadata.ctime(), metadata.ctime_nsec())
    };
    #[cfg(not(unix))]
    let changed = ();
    format!("{digest} {} {:?} {changed:?}", metadata.len(), metadata.modified().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_library_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libx.so");
        std::fs::write(&library, "fetched").unwrap();
        assert_eq!(check(&library), Ok(()), "nothing is known of it");
        write(folder.path()).unwrap();
        for _ in 0..2 {
            assert_eq!(check(&library), Ok(()));
        }
        assert!(folder.path().join("libx.so.compared").exists());
        std::fs::write(&library, "Fetched").unwrap();
        let problem = check(&library).unwrap_err();
        assert!(problem.contains("changed since it was fetched; remove"), "{problem}");
        std::fs::write(&library, "fetched").unwrap();
        assert_eq!(check(&library), Ok(()));
        assert_eq!(check(&folder.path().join("other.so")), Ok(()));
    }
}
