//! Output paths: resolution and checks before a run.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::leftovers::{PREFIX, SUFFIX};
use crate::error::{Error, Result};

/// The maximum number of symbolic links to follow, as in Linux.
const MAX_LINKS: usize = 40;

/// The resolved target of an output path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A regular file or a free name, replaced by the complete file.
    File(PathBuf),
    /// A device, a FIFO, a socket or an open descriptor, written to directly.
    Stream(PathBuf),
}

/// Resolves symbolic links, including those to a file that does not exist yet.
pub(super) fn resolve_target(path: &Path) -> io::Result<Target> {
    if is_device_name(path) {
        return Ok(Target::Stream(path.to_path_buf()));
    }
    let mut at = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let kind = match std::fs::symlink_metadata(&at) {
            Ok(metadata) => metadata.file_type(),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Target::File(at)),
            Err(e) => return Err(e),
        };
        if kind.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        } else if kind.is_file() {
            return Ok(Target::File(at));
        } else if !kind.is_symlink() || is_descriptor(&at) {
            return Ok(Target::Stream(at));
        }
        at = parent_folder(&at).join(std::fs::read_link(&at)?);
    }
    Err(io::Error::other("too many symbolic links"))
}

/// Returns true if `path` resolves to a device, a FIFO, a socket or an open descriptor.
pub(crate) fn is_stream(path: &Path) -> bool {
    matches!(resolve_target(path), Ok(Target::Stream(_)))
}

/// Returns true for links such as `/proc/self/fd/1`, which refer to an open file, not to the path that they show.
fn is_descriptor(link: &Path) -> bool {
    cfg!(unix) && parent_folder(link).canonicalize().is_ok_and(|folder| folder.starts_with("/proc"))
}

/// Returns true for a path that names a device without a file of that name.
fn is_device_name(path: &Path) -> bool {
    cfg!(windows)
        && (path.file_name().is_some_and(|name| is_windows_device(&name.to_string_lossy()))
            || path.starts_with(r"\\.\"))
}

/// Returns true for names that Windows reserves for devices in every folder, with any extension.
fn is_windows_device(name: &str) -> bool {
    const NAMES: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];
    let stem = name.split(['.', ':']).next().unwrap_or_default().trim_end_matches(' ').to_ascii_lowercase();
    let number = stem.strip_prefix("com").or(stem.strip_prefix("lpt"));
    let is_port = number.is_some_and(|number| {
        let mut digits = number.chars();
        digits.next().is_some_and(|digit| "123456789\u{b9}\u{b2}\u{b3}".contains(digit)) && digits.next().is_none()
    });
    NAMES.contains(&stem.as_str()) || is_port
}

/// Returns the folder of a file.
pub(super) fn parent_folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Checks that a file can be written at `path`, before the run that creates it. Nothing at `path` changes. `what` is
/// the flag or key that names it. Devices and FIFOs are not opened, since that could have an effect.
///
/// # Errors
///
/// [`Error::Input`] naming `what` if `path` is a folder, its folder does not exist, or either is not writable.
#[cfg(feature = "cli")]
pub(crate) fn require_writable_file(what: &str, path: &Path) -> Result<()> {
    let no_folder = |folder: &Path| {
        let problem = format!("{} is not a folder", folder.display());
        Error::input(what, problem, "create it first, or choose another path")
    };
    let file = match resolve_target(path) {
        Ok(Target::Stream(_)) => return Ok(()),
        Ok(Target::File(file)) => file,
        Err(e) if e.kind() == ErrorKind::IsADirectory => {
            let problem = format!("{} is a folder, expected a file", path.display());
            return Err(Error::input(what, problem, "name a file in it"));
        }
        Err(e) if e.kind() == ErrorKind::NotADirectory => return Err(no_folder(parent_folder(path))),
        Err(e) => return Err(unwritable(what, path, &e)),
    };
    let folder = parent_folder(&file);
    if !folder.is_dir() {
        return Err(no_folder(folder));
    }
    if file.to_string_lossy().ends_with(std::path::is_separator) {
        let problem = format!("{} names a folder, expected a file", path.display());
        return Err(Error::input(what, problem, "remove the separator at its end, or name a file in it"));
    }
    let check = if file.exists() { std::fs::File::options().write(true).open(&file).map(drop) } else { Ok(()) };
    check.and_then(|()| try_writing_to(folder)).map_err(|e| unwritable(what, path, &e))
}

/// Checks that files can be written to `folder`, which may not exist yet and is not created. `what` is the flag or key
/// that names it.
///
/// # Errors
///
/// [`Error::Input`] naming `what` if a file is in the way, or the nearest existing folder is not writable.
pub(crate) fn require_writable_folder(what: &str, folder: &Path) -> Result<()> {
    let closest = folder.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let Some(closest) = closest.into_iter().find(|path| std::fs::symlink_metadata(path).is_ok()) else { return Ok(()) };
    if !closest.is_dir() {
        return Err(Error::input(
            what,
            format!("{} is a file, expected a folder", closest.display()),
            "choose another folder, or move the file away",
        ));
    }
    try_writing_to(closest).map_err(|e| unwritable(what, folder, &e))
}

/// Creates a file in a folder and removes it, since permissions do not reveal read-only file systems and quotas.
fn try_writing_to(folder: &Path) -> io::Result<()> {
    tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(folder)?.close()
}

fn unwritable(what: &str, path: &Path, error: &io::Error) -> Error {
    let cause = match error.kind() {
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        _ => error.to_string(),
    };
    Error::input(what, format!("{} cannot be written: {cause}", path.display()), "choose another path")
}

/// Extensions of formats that are never written under another format's extension.
const FORMATS: &[&str] = &[
    "avif",
    "bin",
    "bmp",
    "ckpt",
    "csv",
    "gif",
    "h5",
    "heic",
    "jpeg",
    "jpg",
    "json",
    "mp4",
    "npy",
    "npz",
    "onnx",
    "pdf",
    "pickle",
    "pkl",
    "png",
    "pt",
    "pth",
    "safetensors",
    "svg",
    "tif",
    "tiff",
    "toml",
    "txt",
    "webm",
    "webp",
    "zip",
];

/// Rejects a name with the extension of another format. `own` is the extension of the written format, or empty for a
/// folder, and `content` describes it. A device or FIFO may have any name, as may an existing folder.
///
/// # Errors
///
/// [`Error::Input`] naming `what`, the flag or key, and the name with the right extension.
pub(crate) fn require_format(what: &str, path: &Path, own: &str, content: &str) -> Result<()> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let promised = extension.filter(|extension| extension != own && FORMATS.contains(&extension.as_str()));
    let Some(promised) = promised else { return Ok(()) };
    let is_exempt = if own.is_empty() { path.is_dir() } else { is_stream(path) };
    if is_exempt {
        return Ok(());
    }
    Err(Error::input(
        what,
        format!("{} has the extension .{promised}, but {content}", path.display()),
        format!("name {}", path.with_extension(own).display()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_windows_devices_are_known() {
        for name in
            ["con", "NUL", "aux.png", "nul.tar.gz", "COM1", "lpt9.txt", "com\u{b2}", "nul .txt", "CON:", "conin$"]
        {
            assert!(is_windows_device(name), "{name}");
        }
        for name in ["console", "con-42.png", "com", "com0", "com10", "nul_", "auxiliary.png", ".nul", "a.con"] {
            assert!(!is_windows_device(name), "{name}");
        }
    }

    #[test]
    fn an_extension_of_another_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let message = |name: &str, own: &str| {
            let answer = require_format("--flag", &dir.path().join(name), own, "content");
            answer.err().map(|error| error.to_string()).unwrap_or_default()
        };
        for name in ["a.npy", "a.NPY", "a", "a.part", "run-0.75", ".npy"] {
            assert_eq!(message(name, "npy"), "", "{name}");
        }
        for name in ["a.png", "a.PNG", "a.npz", "a.safetensors", "a.npy.png"] {
            let error = message(name, "npy");
            assert!(error.contains("--flag") && error.contains(name) && error.contains(".npy"), "{error}");
        }
        assert!(message("out.png", "").contains("out.png"));
        std::fs::create_dir(dir.path().join("out.png")).unwrap();
        assert_eq!(message("out.png", ""), "", "a folder that exists may have any name");
        assert_eq!(message("sd-1.5", ""), "");
    }

    #[test]
    fn unwritable_paths_are_rejected_early() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), b"as it was").unwrap();
        let file = |name: &str| require_writable_file("--flag", &at(name)).map_err(|error| error.to_string());
        let folder = |name: &str| require_writable_folder("output.dir", &at(name)).map_err(|error| error.to_string());
        assert_eq!([file("new"), file("file"), folder(""), folder("a/b/c")], [const { Ok(()) }; 4]);
        assert_eq!(std::fs::read(at("file")).unwrap(), b"as it was");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left, nothing is made");
        for (answer, says) in [
            (file(""), "is a folder"),
            (file("no/new"), "is not a folder"),
            (file("new/"), "names a folder"),
            (file("file/new"), "is not a folder"),
            (folder("file"), "is a file"),
            (folder("file/a"), "is a file"),
        ] {
            let error = answer.unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    /// No user, not even root, can create a file in /proc.
    #[cfg(target_os = "linux")]
    #[test]
    fn an_unwritable_folder_is_rejected_early() {
        let file = require_writable_file("--flag", Path::new("/proc/a.npy")).unwrap_err().to_string();
        assert!(file.contains("--flag: /proc/a.npy cannot be written"), "{file}");
        let folder = require_writable_folder("output.dir", Path::new("/proc/a/b")).unwrap_err().to_string();
        assert!(folder.contains("output.dir: /proc/a/b cannot be written"), "{folder}");
    }

    #[cfg(unix)]
    #[test]
    fn streams_and_files_are_distinguished() {
        for stream in ["/dev/null", "/dev/stdout"] {
            assert!(matches!(resolve_target(Path::new(stream)), Ok(Target::Stream(_))), "{stream}");
            assert!(require_writable_file("--flag", Path::new(stream)).is_ok());
        }
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("x.png");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert_eq!(resolve_target(&link).unwrap(), Target::Stream("/dev/null".into()));
        assert!(require_format("--flag", &link, "npy", "content").is_ok());
    }
}
