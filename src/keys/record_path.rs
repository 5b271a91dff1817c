//! The names of files in the record of an image, which are read without trust and written without what belongs to one
//! machine.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// The names that an older record has for files, by their absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordNames(pub(crate) HashMap<PathBuf, String>);

/// Says how a path in a record reaches outside of the current directory, if it does. Records travel between systems, so
/// both separators count everywhere.
pub(crate) fn reaches_outside(path: &str) -> Option<&'static str> {
    let drive = path.as_bytes().get(1) == Some(&b':');
    if path.contains("://") {
        Some("is a URL")
    } else if path.starts_with(['/', '\\']) || drive {
        Some("is absolute")
    } else if path.starts_with('~') {
        Some("is in a home folder")
    } else if path.split(['/', '\\']).any(|part| part == "..") {
        Some("contains `..`")
    } else {
        None
    }
}

/// The path as a record names it: as an older record does, or with `/` between its parts, relative to `root` if it is in
/// it, else its last part.
pub(crate) fn portable(path: &Path, root: &Path, names: &RecordNames) -> String {
    let whole = without_parents(&absolute(path));
    if let Some(name) = names.0.get(&whole) {
        return name.clone();
    }
    let inside = whole.strip_prefix(root).or_else(|_| whole.strip_prefix(without_parents(root)));
    let relative = match inside {
        Ok(relative) if relative.as_os_str().is_empty() => Path::new("."),
        Ok(relative) => relative,
        Err(_) => Path::new(whole.file_name().unwrap_or(".".as_ref())),
    };
    let parts: Vec<_> = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let text = parts.join("/");
    // What would be read as something else when it comes back.
    if reaches_outside(&text).is_some() { format!("./{text}") } else { text }
}

/// The path without `..`: where the file system does not say what they lead to, as text.
pub(crate) fn without_parents(path: &Path) -> PathBuf {
    if !path.components().any(|part| part == Component::ParentDir) {
        return path.to_path_buf();
    }
    path.canonicalize().unwrap_or_else(|_| {
        let mut plain = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => _ = plain.pop(),
                part => plain.push(part),
            }
        }
        plain
    })
}

/// Makes a path absolute; one that cannot be stays as it is.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_without_the_machine_it_is_on() {
        let root = absolute(Path::new("."));
        let outside = root.parent().expect("the crate is in a folder").join("elsewhere");
        for (path, named) in [
            (PathBuf::from("models/shapes"), "models/shapes"),
            ("./models/../in.png".into(), "in.png"),
            (root.join("a/b.npy"), "a/b.npy"),
            (root.clone(), "."),
            (outside.join("sd15"), "sd15"),
            ("../elsewhere/in.png".into(), "in.png"),
            ("~odd/in.png".into(), "./~odd/in.png"),
            (PathBuf::from("/"), "."),
        ] {
            let none = RecordNames::default();
            assert_eq!(portable(&path, &root, &none), named, "{}", path.display());
            assert_eq!(reaches_outside(&portable(&path, &root, &none)), None);
        }
    }

    #[test]
    fn what_reaches_outside_is_seen_on_every_system() {
        for path in [
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a\\..\\x",
            "\\\\server\\share",
            "C:\\x",
            "C:x",
            "~/x",
            "~root/x",
            "https://host/x",
            "file:///x",
            "..",
        ] {
            assert!(reaches_outside(path).is_some(), "{path}");
        }
        for path in ["a", "a/b.png", "./a", ".", "a..b/c", "..a"] {
            assert_eq!(reaches_outside(path), None, "{path}");
        }
    }
}
