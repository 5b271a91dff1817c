//! Broken symbolic links.

use std::io;
use std::path::{Path, PathBuf};

/// The maximum number of links in a row, more than any file system follows.
const MAX_LINKS: usize = 64;

/// Returns the reason why `path` does not exist, as a phrase that follows the path, if a link is the cause: the path or
/// a folder above it is a link whose target does not exist, or that points back to itself.
pub(crate) fn broken_link(path: &Path) -> Option<String> {
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    let link = way.into_iter().find(|part| part.is_symlink() && is_gone(part))?;
    let mut at = link.to_path_buf();
    let mut reason = "is a link that points back to itself".to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(target) = std::fs::read_link(&at) else {
            reason = format!("is a link to {}, which does not exist", at.display());
            break;
        };
        at = resolve_target(&at, &target);
    }
    Some(if link == path { reason } else { format!("is below {}, which {reason}", link.display()) })
}

/// Returns true if a path does not resolve. A path without read permission resolves.
fn is_gone(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|e| e.kind() != io::ErrorKind::PermissionDenied)
}

/// Resolves the target of a link, with its folder canonicalized if it exists.
fn resolve_target(link: &Path, target: &Path) -> PathBuf {
    let target = link.parent().unwrap_or(Path::new("")).join(target);
    let whole = target.parent().and_then(|folder| folder.canonicalize().ok());
    match (whole, target.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => target,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_the_target_that_is_missing_and_the_link_that_leads_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("blobs")).unwrap();
        std::fs::create_dir_all(at("snapshot/unet")).unwrap();
        std::fs::write(at("blobs/whole"), "").unwrap();
        symlink("../../blobs/whole", at("snapshot/unet/config.json")).unwrap();
        symlink("../../blobs/gone", at("snapshot/unet/model.onnx")).unwrap();
        symlink("model.onnx", at("snapshot/unet/again.onnx")).unwrap();
        symlink("nowhere", at("snapshot/vae")).unwrap();
        symlink("loop", at("loop")).unwrap();

        assert_eq!(broken_link(&at("snapshot/unet/config.json")), None);
        assert_eq!(broken_link(&at("snapshot/unet/none")), None);
        let gone = at("blobs").canonicalize().unwrap().join("gone");
        let expected = format!("is a link to {}, which does not exist", gone.display());
        for link in ["snapshot/unet/model.onnx", "snapshot/unet/again.onnx"] {
            assert_eq!(broken_link(&at(link)).as_ref(), Some(&expected));
        }
        let behind = broken_link(&at("snapshot/vae/model.onnx")).unwrap();
        assert!(behind.starts_with("is below ") && behind.contains("snapshot/vae, which is a link to"), "{behind}");
        assert!(broken_link(&at("loop")).unwrap().contains("points back to itself"));
        assert!(broken_link(&at("loop/model.onnx")).unwrap().contains("loop, which is a link that points back"));
    }
}
