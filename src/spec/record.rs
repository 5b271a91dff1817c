//! Pipelines as the record in an image holds them: written without what belongs to one machine, read without trust.
//!
//! Anybody can have made an image, so its record names nothing outside of the current directory: no absolute path, no
//! `..`, no home folder, no URL, no provider option that is a path. `[output]` says nothing of the image and is ignored.
//! Whatever the command line gives anew is the user's own and is not restricted.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::condition::Graph;
use super::overrides::{dotted, paths_in};
use super::reader::Reading;
use super::tree::{Entries, Node, Value};
use super::writer::{Writer, absolute};
use super::{Output, Overrides, Spec};
use crate::error::Result;

/// The form of the file names in an image's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordPaths {
    /// `"relative"`: relative to the current directory where they are in it, else by their bare names.
    #[default]
    Relative,
    /// `"absolute"`: by absolute paths. A run from such a record needs all of them anew.
    Absolute,
}

impl RecordPaths {
    pub(super) const NAMES: [(&'static str, Self); 2] = [("relative", Self::Relative), ("absolute", Self::Absolute)];

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, paths)| *paths == self).map_or("relative", |(name, _)| name)
    }
}

/// The names that an older record has for files, by their absolute paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordNames(HashMap<PathBuf, String>);

/// A pipeline from the record in an image.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedSpec {
    /// The pipeline, with flags over it.
    pub spec: Spec,
    /// The record's names for its files, which a record of the image made again has too: its bytes are then the same,
    /// wherever the files are now.
    pub names: RecordNames,
    /// What is ignored in the record, a sentence each.
    pub ignored: Vec<String>,
}

impl RecordNames {
    /// Takes over the names in a record, for those files that still have them at the end of their paths.
    fn new(named: &HashMap<String, String>, spec: &Spec) -> Self {
        let known = spec.paths().into_iter().filter_map(|(key, path)| {
            let name = named.get(&dotted(&key)).filter(|name| reaches_outside(name).is_none())?;
            let whole = without_parents(&absolute(path));
            whole.ends_with(name).then(|| (whole, name.clone()))
        });
        Self(known.collect())
    }
}

impl Spec {
    /// Writes the spec as the text that goes into an image's record: as [`Spec::to_toml`], but without `[output]`, and
    /// with [`RecordPaths::Relative`] also without absolute paths and without provider options that hold paths. Files that
    /// an older record has `names` for keep them.
    pub fn to_record(&self, paths: RecordPaths, names: &RecordNames) -> String {
        let mut own = self.clone();
        own.output = Output::default();
        own.stages.iter_mut().for_each(|stage| stage.spec.output = Output::default());
        match paths {
            RecordPaths::Absolute => own.to_toml(),
            RecordPaths::Relative => own.write_to(Writer::of_record(absolute(Path::new(".")), names.clone())),
        }
    }

    /// Reads the text of an image's record, with flags over it. Problems name `image`, the file the record is from; paths
    /// are relative to the current directory.
    ///
    /// # Errors
    ///
    /// As [`Spec::parse`]; also for every key of the record that reaches outside of the current directory.
    pub fn from_record(text: &str, image: &Path, overrides: &Overrides) -> Result<RecordedSpec> {
        let (mut ignored, mut named) = (Vec::new(), HashMap::new());
        let spec = Self::parse_as(text, Reading::of_record(image), overrides, |entries| {
            ignored = take_output(entries);
            named = paths_in(entries).into_iter().map(|(key, path)| (key.join("."), path.to_owned())).collect();
        })?;
        Ok(RecordedSpec { names: RecordNames::new(&named, &spec), spec, ignored })
    }

    /// Every path the pipeline reads from, by its key: the model directory first.
    pub fn paths(&self) -> Vec<(String, &Path)> {
        let mut paths = vec![("model.path".to_owned(), self.model.path.as_path())];
        for (kind, component) in &self.model.components {
            paths.extend(component.graph.iter().map(|path| (format!("model.{kind}.graph"), path.as_path())));
        }
        for (at, condition) in self.conditions.iter().enumerate() {
            if let Some(Graph::Path(path)) = &condition.graph {
                paths.push((format!("condition[{at}].graph"), path.as_path()));
            }
        }
        for (at, control) in self.controls.iter().enumerate() {
            paths.extend(control.path.iter().map(|path| (format!("control[{at}].path"), path.as_path())));
        }
        paths.extend(self.loras.iter().enumerate().map(|(at, lora)| (format!("lora[{at}].path"), lora.path.as_path())));
        let embeddings = self.embeddings.iter().enumerate();
        paths.extend(embeddings.map(|(at, embedding)| (format!("embedding[{at}].path"), embedding.path.as_path())));
        paths.extend(self.own_inputs());
        for (at, stage) in self.stages.iter().enumerate() {
            let own = stage.spec.paths().into_iter();
            paths.extend(own.map(|(key, path)| (format!("stage[{at}].{key}"), path)));
        }
        paths
    }
}

/// Takes `[output]` out of a record and its stages.
fn take_output(entries: &mut Entries) -> Vec<String> {
    let sentence = |key: &str| format!("[{key}] in the record is ignored: where images go is for this run to say");
    let mut ignored = Vec::new();
    if entries.remove("output").is_some() {
        ignored.push(sentence("output"));
    }
    if let Some(Node { value: Value::Array(stages), .. }) = entries.get_mut("stage") {
        for (at, stage) in stages.iter_mut().enumerate() {
            if let Value::Table(stage) = &mut stage.value
                && stage.remove("output").is_some()
            {
                ignored.push(sentence(&format!("stage[{at}].output")));
            }
        }
    }
    ignored
}

/// Says how a path in a record reaches outside of the current directory, if it does. Records travel between systems, so
/// both separators count everywhere.
pub(super) fn reaches_outside(path: &str) -> Option<&'static str> {
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

/// True for provider options that a record may hold: words and numbers that cannot name a file.
pub(super) fn is_plain_option(name: &str, value: &str) -> bool {
    const OF_FILES: [&str; 10] = ["path", "dir", "lib", "file", "plugin", "url", "config", "cache", "prefix", "custom"];
    let name = name.to_ascii_lowercase();
    let is_number = value.parse::<f64>().is_ok();
    let is_word = value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_number || is_word) && !OF_FILES.iter().any(|word| name.contains(word))
}

/// The path as a record names it: as an older record does, or with `/` between its parts, relative to `root` if it is in
/// it, else its last part.
pub(super) fn portable(path: &Path, root: &Path, names: &RecordNames) -> String {
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
fn without_parents(path: &Path) -> PathBuf {
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

    #[test]
    fn options_that_could_name_a_file_are_seen() {
        for (name, value) in
            [("device_id", "0"), ("arena_extend_strategy", "kSameAsRequested"), ("x", "-1.5"), ("y", "true")]
        {
            assert!(is_plain_option(name, value), "{name}");
        }
        for (name, value) in [
            ("trt_engine_cache_path", "x"),
            ("trt_extra_plugin_lib_paths", "1"),
            ("backend_path", "QnnHtp"),
            ("load_config", "a"),
            ("device_type", "../x.so"),
            ("device_type", "x.dll"),
            ("endpoint", "http://host"),
        ] {
            assert!(!is_plain_option(name, value), "{name}");
        }
    }
}
