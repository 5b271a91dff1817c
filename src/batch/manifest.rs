//! The list of a shard's images and failures.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::key::Key;
use super::lines::InputLine;
use super::planner::PlannedImage;
use super::store::Store;
use crate::error::{Error, Result};

/// A line of a manifest: an image, or a line of the input that has none. Of several lines with one key, the last counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ManifestEntry {
    /// The number of the input's line, counted from 1; absent for a request that is of no file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<usize>,
    /// The index of the image in the request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<usize>,
    /// The image's [`Key`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// The image's seed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seed: Option<u64>,
    /// The image's file, below the batch's folder.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// The seconds that the image took; absent if this run did not make it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds: Option<f64>,
    /// The text of a line that has no images and no number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<String>,
    /// The error of a line that has no images.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl ManifestEntry {
    pub(super) fn image(line: Option<usize>, image: PlannedImage, file: String, seconds: Option<f64>) -> Self {
        let PlannedImage { image, key, seed } = image;
        Self {
            line,
            image: Some(image),
            key: Some(key.to_string()),
            seed: Some(seed),
            file: Some(file),
            seconds,
            request: None,
            error: None,
        }
    }

    pub(super) fn failure(line: &InputLine, error: &Error) -> Self {
        let request = Some(line.text()).filter(|text| line.number.is_none() && !text.is_empty()).map(str::to_owned);
        let (image, key, seed, file, seconds) = (None, None, None, None, None);
        Self { line: line.number, image, key, seed, file, seconds, request, error: Some(error.to_string()) }
    }

    /// The entry as a line of JSON, without its end.
    ///
    /// # Errors
    /// [`Error::Internal`] if it cannot be written, which no entry is known for.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::internal("manifest", error.to_string()))
    }

    /// The digest of all but the seconds.
    fn identity(&self) -> Result<Key> {
        Ok(Key::of(&Self { seconds: None, ..self.clone() }.to_json()?))
    }
}

/// A manifest that grows. An entry that it has is not added again.
pub(super) struct Manifest {
    store: Arc<dyn Store>,
    name: String,
    known: HashSet<Key>,
}

impl Manifest {
    /// Reads a manifest. One with a line that was cut off or cannot be read is written anew with its other lines.
    pub(super) fn open(store: Arc<dyn Store>, name: String) -> Result<Self> {
        let bytes = match store.get(&name)? {
            Some(bytes) => bytes,
            None => {
                // Also a shard without images shows that it was run.
                store.append(&name, "")?;
                Vec::new()
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<(&str, Option<ManifestEntry>)> =
            text.lines().map(|line| (line, serde_json::from_str(line).ok())).collect();
        let known = lines.iter().filter_map(|(_, entry)| entry.as_ref()).map(ManifestEntry::identity);
        let known = known.collect::<Result<HashSet<_>>>()?;
        let is_damaged = lines.iter().any(|(_, entry)| entry.is_none()) || !text.is_empty() && !text.ends_with('\n');
        if is_damaged {
            let whole = lines.iter().filter(|(_, entry)| entry.is_some()).map(|(line, _)| format!("{line}\n"));
            store.put(&name, whole.collect::<String>().as_bytes())?;
        }
        Ok(Self { store, name, known })
    }

    /// Adds an entry.
    pub(super) fn add(&mut self, entry: &ManifestEntry) -> Result<()> {
        if self.known.insert(entry.identity()?) {
            self.append(entry)?;
        }
        Ok(())
    }

    /// Adds an entry, also if it is there with other seconds.
    pub(super) fn append(&mut self, entry: &ManifestEntry) -> Result<()> {
        self.known.insert(entry.identity()?);
        self.store.append(&self.name, &(entry.to_json()? + "\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::LocalStore;
    use super::*;

    #[test]
    fn a_damaged_manifest_keeps_its_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(LocalStore::new(dir.path()));
        store.prepare().unwrap();
        let name = || "manifest/1-of-1.jsonl".to_owned();
        let image = PlannedImage { image: 0, key: Key::of("a"), seed: 3 };
        let entry = |line| ManifestEntry::image(Some(line), image, image.key.file(Default::default()), Some(0.5));
        let mut manifest = Manifest::open(Arc::clone(&store), name()).unwrap();
        for line in [1, 2, 2, 3] {
            manifest.add(&entry(line)).unwrap();
        }
        let read = || String::from_utf8(store.get(&name()).unwrap().unwrap()).unwrap();
        let text = read();
        assert_eq!(text.lines().count(), 3);
        let cut = text.replacen("\"line\":2", "\"line\":?", 1);
        std::fs::write(dir.path().join(name()), &cut[..cut.len() - 5]).unwrap();
        let mut manifest = Manifest::open(Arc::clone(&store), name()).unwrap();
        assert_eq!(read(), format!("{}\n", entry(1).to_json().unwrap()));
        for line in [1, 2, 3] {
            manifest.add(&ManifestEntry { seconds: None, ..entry(line) }).unwrap();
        }
        assert_eq!(read().lines().count(), 3);
        assert!(read().starts_with(&entry(1).to_json().unwrap()), "the seconds stay");
    }
}
