//! The user's cache of fetched packages: `runtime/<version>-<flavor>/`, one complete package each.

use std::path::PathBuf;

use super::file_name::library_file_name;
use super::{Env, Flavor};
use crate::error::{Error, Result};

/// A package in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedBuild {
    /// Its folder.
    pub folder: PathBuf,
    /// Its version.
    pub version: String,
    /// Its flavor.
    pub flavor: Flavor,
    /// The size of its files, in bytes.
    pub bytes: u64,
}

impl CachedBuild {
    /// Returns the file of a plugin provider's library; `None` for a build of ONNX Runtime.
    pub(in crate::session) fn plugin_library(&self) -> Option<PathBuf> {
        let library = self.flavor.own_library().filter(|_| self.flavor.is_plugin())?;
        Some(self.folder.join(library_file_name(library)))
    }
}

/// Returns this program's folder in the user's cache.
///
/// # Errors
/// [`Error::Runtime`] if the system does not define a user cache folder.
pub fn user_cache(env: &Env) -> Result<PathBuf> {
    let root = match &env.cache_dir {
        Some(dir) => Some(dir.clone()),
        None => directories::ProjectDirs::from("", "", "ldm-ort").map(|dirs| dirs.cache_dir().to_path_buf()),
    };
    root.ok_or_else(|| {
        Error::runtime("this system does not define a user cache folder", "set LDM_ORT_CACHE_DIR to a folder")
    })
}

/// Returns the folder that contains the fetched packages.
///
/// # Errors
/// As [`user_cache`].
pub(in crate::session) fn directory(env: &Env) -> Result<PathBuf> {
    user_cache(env).map(|root| root.join("runtime"))
}

/// Returns the name of a package's folder in [`directory`].
pub(in crate::session) fn flavor_directory(version: &str, flavor: Flavor) -> String {
    format!("{version}-{flavor}")
}

/// Returns the packages in the cache, best first: `preferred`, then in the order of [`Flavor::ALL`]; within a flavor,
/// the version that this program pins, then the newest.
pub fn cached_builds(env: &Env, preferred: Option<Flavor>) -> Vec<CachedBuild> {
    let Ok(entries) = directory(env).and_then(|dir| std::fs::read_dir(&dir).map_err(|e| Error::io(&dir, "listing", e)))
    else {
        return Vec::new();
    };
    let mut found: Vec<CachedBuild> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (version, flavor) = name.rsplit_once('-')?;
            let flavor = Flavor::from_name(flavor)?;
            if version.is_empty() || !version.chars().all(|c| c.is_ascii_digit() || c == '.') {
                return None;
            }
            let files = std::fs::read_dir(entry.path()).ok()?;
            let bytes = files.flatten().filter_map(|file| file.metadata().ok()).map(|m| m.len()).sum();
            Some(CachedBuild { folder: entry.path(), version: version.to_string(), flavor, bytes })
        })
        .collect();
    found.sort_by_key(|c| {
        let parts: Vec<u32> = c.version.split('.').map(|part| part.parse().unwrap_or(0)).collect();
        (
            Some(c.flavor) != preferred,
            Flavor::ALL.iter().position(|f| *f == c.flavor),
            c.version != crate::session::fetch::pinned_version(c.flavor),
            std::cmp::Reverse(parts),
        )
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_the_preferred_flavor_first_and_passes_over_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["1.31.1-cpu", "1.40.0-cpu", "1.9.0-cpu", "1.31.1-cuda", "0.4.0-webgpu", "download-x", "notes", "1.x-cpu"]
        {
            std::fs::create_dir_all(dir.path().join("runtime").join(name)).unwrap();
        }
        let env = Env { cache_dir: Some(dir.path().to_path_buf()), ..Env::default() };
        let names = |preferred| {
            cached_builds(&env, preferred)
                .iter()
                .map(|c| c.folder.file_name().unwrap().to_string_lossy().into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["1.31.1-cpu", "1.40.0-cpu", "1.9.0-cpu", "1.31.1-cuda", "0.4.0-webgpu"]);
        assert_eq!(names(Some(Flavor::Cuda))[0], "1.31.1-cuda");
        let plugins: Vec<_> = cached_builds(&env, None).iter().filter_map(CachedBuild::plugin_library).collect();
        let library = library_file_name("onnxruntime_providers_webgpu");
        assert_eq!(plugins, [dir.path().join("runtime/0.4.0-webgpu").join(library)]);
    }
}
