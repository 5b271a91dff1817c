//! Searches for the library and records the search.

use std::path::{Path, PathBuf};

use super::cache::{cached_builds, directory};
use super::file_name::{is_runtime, library_file_name};
use super::loaded_copies::loaded_copies;
use super::probe::probe;
use super::versions::minimum_version;
use super::{Env, Flavor, RuntimeOptions};
use crate::error::Error;
use crate::files;

/// A place to look for the library, in the order of the search. The first usable one is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LibrarySource {
    /// The runtime that the host program handed over. If given, nothing else is tried.
    Host,
    /// `--runtime`. If given, nothing else is tried.
    Option,
    /// The environment variable `ORT_DYLIB_PATH`. If set, nothing after it is tried.
    Variable,
    /// A copy already loaded in this process.
    Loaded,
    /// Python's package `onnxruntime`, for a program that runs in its environment.
    Package,
    /// The user's cache of fetched builds.
    Cache,
    /// The system's library folders, and the program's own.
    System,
}

impl std::fmt::Display for LibrarySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Host => "the host's",
            Self::Option => "--runtime",
            Self::Variable => "ORT_DYLIB_PATH",
            Self::Loaded => "loaded already",
            Self::Package => "Python's package onnxruntime",
            Self::Cache => "cache",
            Self::System => "system",
        })
    }
}

/// The result for a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was selected, and has this version.
    Selected(String),
    /// It cannot be used, for this reason.
    Rejected(String),
    /// There was nothing there, for this reason.
    Absent(String),
    /// It was not checked, because an earlier one was selected or failed.
    Skipped,
}

/// One place in which the search looked for the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The kind of place.
    pub source: LibrarySource,
    /// The file or folder, if any.
    pub path: Option<PathBuf>,
    /// The result.
    pub verdict: Verdict,
}

/// The record of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// All candidates, in the order of the search.
    pub candidates: Vec<Candidate>,
}

impl Search {
    /// Returns the path and version of the selected library.
    pub fn selected(&self) -> Option<(&Path, &str)> {
        self.candidates.iter().find_map(|c| match (&c.path, &c.verdict) {
            (Some(path), Verdict::Selected(version)) => Some((path.as_path(), version.as_str())),
            _ => None,
        })
    }

    /// Returns the reason why the search failed, if fetching a library would not help: an explicitly named library
    /// cannot be used.
    pub fn error(&self) -> Option<Error> {
        self.candidates.iter().find_map(|c| match (c.source, &c.path, &c.verdict) {
            (
                LibrarySource::Host | LibrarySource::Option | LibrarySource::Variable,
                Some(path),
                Verdict::Rejected(problem),
            ) => Some(Error::runtime(
                format!("{} ({}) {problem}", path.display(), c.source),
                format!("give a library of version {} or newer, or leave {} out", minimum_version(), c.source),
            )),
            _ => None,
        })
    }

    fn absent(&mut self, source: LibrarySource, reason: &str) {
        self.candidates.push(Candidate { source, path: None, verdict: Verdict::Absent(reason.to_string()) });
    }

    /// Records `path`, and checks it unless the search is over.
    fn consider(&mut self, source: LibrarySource, path: PathBuf) {
        let verdict = if self.selected().is_some() || self.error().is_some() {
            Verdict::Skipped
        } else {
            match probe(&path) {
                Ok(version) => Verdict::Selected(version),
                Err(problem) => Verdict::Rejected(problem),
            }
        };
        self.candidates.push(Candidate { source, path: Some(path), verdict });
    }

    /// Records `path`, a file or a folder that was named explicitly.
    fn consider_named(&mut self, source: LibrarySource, path: &Path) {
        // A bare file name means the file in the current folder here; the system's loader would search for it.
        let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        match files_named(path).into_iter().next() {
            Some(file) => self.consider(source, file),
            None => self.candidates.push(Candidate {
                source,
                path: Some(path.to_path_buf()),
                verdict: match self.selected().is_some() || self.error().is_some() {
                    true => Verdict::Skipped,
                    false => Verdict::Rejected(format!("is a folder without {}", file_name())),
                },
            }),
        }
    }
}

impl std::fmt::Display for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, c) in self.candidates.iter().enumerate() {
            let end = if i + 1 < self.candidates.len() { "\n" } else { "" };
            let path = c.path.as_ref().map(|p| format!("{} ", p.display())).unwrap_or_default();
            match &c.verdict {
                Verdict::Selected(version) => write!(f, "{}: {path}is taken, version {version}{end}", c.source)?,
                Verdict::Rejected(problem) => write!(f, "{}: {path}{problem}{end}", c.source)?,
                Verdict::Absent(reason) => write!(f, "{}: {reason}{end}", c.source)?,
                Verdict::Skipped => write!(f, "{}: {path}was not checked{end}", c.source)?,
            }
        }
        Ok(())
    }
}

/// Searches for a library as `options` specify, without loading it into ort and without fetching.
pub fn search(options: &RuntimeOptions) -> Search {
    let mut search = Search::default();
    let env = &options.env;
    if let Some(host) = &options.host {
        let verdict = host.version().map_or_else(Verdict::Rejected, Verdict::Selected);
        search.candidates.push(Candidate { source: LibrarySource::Host, path: Some(host.path()), verdict });
        return search;
    }
    // Checking a library loads it, so the copies already in the process are listed first.
    let copies = loaded_copies();
    match &options.path {
        Some(path) => search.consider_named(LibrarySource::Option, path),
        None => search.absent(LibrarySource::Option, "not given"),
    }
    match env.ort_dylib_path.as_ref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => search.consider_named(LibrarySource::Variable, path),
        None => search.absent(LibrarySource::Variable, "not set"),
    }
    if copies.is_empty() {
        search.absent(LibrarySource::Loaded, "no copy is loaded in this process");
    }
    for path in copies {
        search.consider(LibrarySource::Loaded, path);
    }
    consider_package(&mut search, env, options.flavor);
    consider_cache(&mut search, env, options.flavor);
    let mut any = false;
    for folder in system_folders(env) {
        if let Some(path) = files_in(&folder).into_iter().next() {
            any = true;
            search.consider(LibrarySource::System, path);
        }
    }
    if !any {
        search.absent(LibrarySource::System, &format!("no {} in the system's library folders", file_name()));
    }
    search
}

fn consider_cache(search: &mut Search, env: &Env, flavor: Option<Flavor>) {
    let mut builds = cached_builds(env, flavor);
    builds.retain(|build| !build.flavor.is_plugin());
    if builds.is_empty() {
        match directory(env) {
            Ok(dir) => search.absent(LibrarySource::Cache, &format!("nothing in {}", dir.display())),
            Err(e) => search.absent(LibrarySource::Cache, &e.to_string()),
        }
    }
    for build in builds {
        match files_in(&build.folder).into_iter().next() {
            Some(path) => search.consider(LibrarySource::Cache, path),
            None => {
                search.absent(LibrarySource::Cache, &format!("{} holds no {}", build.folder.display(), file_name()))
            }
        }
    }
}

/// Returns the library's usual file name on this system.
fn file_name() -> String {
    library_file_name("onnxruntime")
}

/// Returns the libraries that a user's path refers to: the file itself, or those in the folder and in the subfolders
/// that archives and wheels use.
pub(super) fn files_named(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_path_buf()];
    }
    ["", "lib", "bin", "capi", "onnxruntime/capi"].iter().flat_map(|sub| files_in(&path.join(sub))).collect()
}

/// Returns the copies of ONNX Runtime in a folder: the plain name first, then the newest version.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| is_runtime(p)).collect();
    let version = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.split('.').filter_map(|part| part.parse::<u32>().ok()).collect::<Vec<_>>()
    };
    files.sort_by_key(|path| (path.file_name() != Some(file_name().as_ref()), std::cmp::Reverse(version(path))));
    files
}

/// Returns the folders that the system's loader searches, the program's own first.
fn system_folders(env: &Env) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = env.program_dir.iter().cloned().collect();
    folders.extend(env.library_path.iter().filter(|path| !path.as_os_str().is_empty()).cloned());
    if cfg!(target_os = "linux") {
        folders.extend(ld_so_conf());
        let arch = std::env::consts::ARCH;
        folders.extend(["/usr/local/lib", "/usr/local/lib64"].map(PathBuf::from));
        folders.extend([format!("/usr/lib/{arch}-linux-gnu"), format!("/lib/{arch}-linux-gnu")].map(PathBuf::from));
        folders.extend(["/usr/lib64", "/usr/lib", "/lib64", "/lib"].map(PathBuf::from));
    } else if cfg!(target_os = "macos") {
        folders.extend(["/opt/homebrew/lib", "/usr/local/lib", "/opt/local/lib"].map(PathBuf::from));
    }
    let mut seen = std::collections::HashSet::new();
    folders.retain(|folder| seen.insert(folder.canonicalize().unwrap_or_else(|_| folder.clone())));
    folders
}

/// Returns the folders that /etc/ld.so.conf.d adds to the loader's.
fn ld_so_conf() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/etc/ld.so.conf.d") else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    files.sort();
    let texts = files.iter().filter_map(|file| files::read_text(file).ok());
    texts
        .flat_map(|text| {
            text.lines().map(str::trim).filter(|l| l.starts_with('/')).map(PathBuf::from).collect::<Vec<_>>()
        })
        .collect()
}

/// Considers the library of Python's package, unless its build lacks the preferred one's provider.
fn consider_package(search: &mut Search, env: &Env, flavor: Option<Flavor>) {
    let Some(dir) = &env.package_dir else { return };
    let lacks = |library: &str| !dir.join(library_file_name(library)).is_file();
    let lacking = flavor.filter(|flavor| flavor.own_library().is_some_and(lacks));
    match (files_in(dir).into_iter().next(), lacking) {
        (None, _) => search.absent(LibrarySource::Package, &format!("{} holds no {}", dir.display(), file_name())),
        (Some(_), Some(flavor)) => search.absent(LibrarySource::Package, &format!("it is not a build for {flavor}")),
        (Some(path), None) => search.consider(LibrarySource::Package, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn knows_the_library_from_its_providers() {
        for name in ["libonnxruntime.so", "libonnxruntime.so.1", "libonnxruntime.so.1.31.1"] {
            assert!(is_runtime(Path::new(name)), "{name}");
        }
        for name in ["libonnxruntime_providers_shared.so", "libonnxruntime.so.bak", "libonnxruntime.dylib", "x.so"] {
            assert!(!is_runtime(Path::new(name)), "{name}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn takes_the_plain_name_then_the_newest_version() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.31.1", "libonnxruntime.so"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<_> =
            files_in(dir.path()).iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["libonnxruntime.so", "libonnxruntime.so.1.31.1", "libonnxruntime.so.1.9.0"]);
    }

    #[test]
    fn a_package_counts_where_it_has_the_provider() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env { package_dir: Some(dir.path().to_path_buf()), ..Env::default() };
        let verdict = |flavor| {
            let mut search = Search::default();
            consider_package(&mut search, &env, flavor);
            search.candidates.pop().unwrap().verdict
        };
        assert!(matches!(verdict(None), Verdict::Absent(_)));
        std::fs::write(dir.path().join(file_name()), "no library").unwrap();
        assert!(matches!(verdict(Some(Flavor::Cpu)), Verdict::Rejected(_)));
        assert_eq!(verdict(Some(Flavor::Cuda)), Verdict::Absent("it is not a build for cuda".to_owned()));
        std::fs::write(dir.path().join(library_file_name("onnxruntime_providers_cuda")), "").unwrap();
        assert!(matches!(verdict(Some(Flavor::Cuda)), Verdict::Rejected(_)));
    }

    #[test]
    fn a_library_named_outright_must_be_usable() {
        let dir = tempfile::tempdir().unwrap();
        let options = RuntimeOptions { path: Some(dir.path().join("none.so")), ..RuntimeOptions::default() };
        let search = search(&options);
        let error = search.error().unwrap().to_string();
        assert!(error.contains("none.so (--runtime) does not exist"), "{error}");
        assert!(search.candidates.iter().all(|c| !matches!(c.verdict, Verdict::Selected(_))));
        let options = RuntimeOptions { path: Some(dir.path().to_path_buf()), ..RuntimeOptions::default() };
        let error = super::search(&options).error().unwrap().to_string();
        assert!(error.contains("is a folder without"), "{error}");
    }
}
