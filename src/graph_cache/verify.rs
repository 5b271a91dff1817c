//! The check of all that the cache holds.

use std::path::PathBuf;

use super::cache_folder::DIGESTS;
use super::digest::Remembered;
use super::entry::{DamagedFile, UNFINISHED};
use super::{CachedGraph, GraphCache, lock};
use crate::error::Result;
use crate::session::Cancel;

/// One part of the cache, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The folder of the optimized graph, or the file whose digest is remembered.
    pub path: PathBuf,
    /// The component of an optimized graph; absent for a file whose digest is remembered.
    pub component: Option<String>,
    /// The bytes that were read.
    pub bytes: u64,
    /// The damage, if any, with the file that it is in.
    pub damage: Option<DamagedFile>,
}

impl GraphCache {
    /// Reads every file that the cache holds, and every file whose digest it remembers, and compares them with what was
    /// written. What is damaged is dropped, so that the next run makes it again; what another process works on is left
    /// out.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the folder cannot be read, [`Error::Interrupted`](crate::Error::Interrupted) if
    /// `cancel` is thrown.
    pub fn verify(&self, cancel: &Cancel, mut see: impl FnMut(&Verified)) -> Result<()> {
        let goes_on = || !cancel.is_cancelled();
        let mut folders = self.folders()?;
        folders.sort();
        for folder in folders {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) {
                continue;
            }
            let Some(_lock) = lock::try_lock(&self.root, &folder)? else { continue };
            let entry = CachedGraph::read(&folder);
            let damage = match &entry {
                Some(entry) => entry.damage(u64::MAX, &goes_on),
                None => Some(DamagedFile {
                    component: String::new(),
                    path: folder.clone(),
                    problem: "is not complete, or was changed since it was written".to_owned(),
                    is_dropped: false,
                }),
            };
            cancel.check()?;
            if damage.is_some() {
                entry.iter().try_for_each(CachedGraph::invalidate)?;
            }
            let component = Some(entry.as_ref().map(|entry| entry.component.clone()).unwrap_or_default());
            see(&Verified { path: folder, component, bytes: entry.as_ref().map_or(0, CachedGraph::bytes), damage });
        }
        for (place, remembered) in self.remembered() {
            let Some(verified) = verify_digest(&remembered, cancel)? else { continue };
            if verified.damage.is_some() {
                // Without it, the next run reads the file again.
                let _ = std::fs::remove_file(place);
            }
            see(&verified);
        }
        Ok(())
    }

    /// The digests that are remembered, each with the file that it is remembered in.
    fn remembered(&self) -> Vec<(PathBuf, Remembered)> {
        let listed = std::fs::read_dir(self.root.join(DIGESTS)).into_iter().flatten().flatten();
        let mut places: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
        places.sort();
        places.into_iter().filter_map(|place| Some((place.clone(), Remembered::read(&place)?))).collect()
    }
}

/// Compares files with the digest that is remembered of them; `None` if they have changed since, as their sizes and
/// times tell, so that nobody goes by it.
fn verify_digest(remembered: &Remembered, cancel: &Cancel) -> Result<Option<Verified>> {
    let Some(first) = remembered.files.first().filter(|_| remembered.is_current()) else { return Ok(None) };
    let problem = match remembered.digest_now(cancel) {
        Ok(digest) if digest == remembered.digest => None,
        Ok(_) => Some("is damaged: its contents changed, and its size and times did not".to_owned()),
        Err(error) => {
            cancel.check()?;
            Some(error.to_string())
        }
    };
    let path = first.name.clone();
    let damage =
        problem.map(|problem| DamagedFile { component: String::new(), path: path.clone(), problem, is_dropped: false });
    let bytes = remembered.files.iter().map(|file| file.bytes).sum();
    Ok(Some(Verified { path, component: None, bytes, damage }))
}
