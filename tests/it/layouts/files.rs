//! The files of a model, moved about and rewritten before they are laid out.

use std::collections::BTreeMap;
use std::path::Path;

use super::graph::Graph;
use crate::common::models;

/// A model directory in memory: contents by path.
pub struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// Reads a folder of `tests/fixtures`.
    pub fn of(fixture: &str) -> Self {
        let mut files = BTreeMap::new();
        read(&models().join("..").join(fixture), "", &mut files);
        Self(files)
    }

    pub fn get(&self, name: &str) -> Vec<u8> {
        self.0.get(name).unwrap_or_else(|| panic!("there is no {name}")).clone()
    }

    pub fn put(&mut self, name: &str, contents: impl AsRef<[u8]>) -> &mut Self {
        self.0.insert(name.to_owned(), contents.as_ref().to_vec());
        self
    }

    /// Leaves out a file, or a folder with what is in it.
    pub fn without(&mut self, name: &str) -> &mut Self {
        let folder = format!("{name}/");
        let before = self.0.len();
        self.0.retain(|path, _| path != name && !path.starts_with(&folder));
        assert!(self.0.len() < before, "there is no {name}");
        self
    }

    /// Leaves out every file whose path ends like this.
    pub fn without_all(&mut self, ending: &str) -> &mut Self {
        self.0.retain(|path, _| !path.ends_with(ending));
        self
    }

    /// Moves a file, or a folder with what is in it.
    pub fn shift(&mut self, from: &str, to: &str) -> &mut Self {
        let moved = |path: String| match path.strip_prefix(from) {
            Some("") => to.to_owned(),
            Some(rest) if rest.starts_with('/') => format!("{to}{rest}"),
            _ => path,
        };
        self.0 = std::mem::take(&mut self.0).into_iter().map(|(path, bytes)| (moved(path), bytes)).collect();
        self
    }

    /// Rewrites a graph.
    pub fn edit(&mut self, name: &str, change: impl for<'g> FnOnce(&'g mut Graph) -> &'g mut Graph) -> &mut Self {
        let mut graph = Graph::parse(&self.get(name));
        change(&mut graph);
        self.put(name, graph.build())
    }

    /// Moves a graph's weights into a file of this name beside it.
    pub fn weights_out(&mut self, name: &str, file: &str) -> &mut Self {
        let mut graph = Graph::parse(&self.get(name));
        let weights = graph.weights_out(file);
        let folder = name.rsplit_once('/').expect("a graph is in a folder").0;
        self.put(name, graph.build()).put(&format!("{folder}/{file}"), weights)
    }

    /// Contents by path.
    pub fn all(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// Writes everything below a folder.
    pub fn write(&self, folder: &Path) {
        for (name, bytes) in &self.0 {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
            std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

fn read(folder: &Path, below: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        let name = format!("{below}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            read(&path, &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        }
    }
}
