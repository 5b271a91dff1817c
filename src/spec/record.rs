//! Pipelines as the record in an image holds them: written without what belongs to one machine, read without trust.
//!
//! Anybody can have made an image, so its record names nothing outside of the current directory: no absolute path, no
//! `..`, no home folder, no URL, and of provider options only those known to be harmless. `[output]` says nothing of the
//! image and is ignored, and so are the keys that lift a limit or name a library to load: that is for the machine's user to
//! say.
//! Whatever the command line gives anew is the user's own and is not restricted.

use std::collections::HashMap;
use std::path::Path;

use super::overrides::{dotted, paths_in};
use super::{DeviceSpec, OutputSpec, Overrides, RecordPaths, RunSpec, Spec};
use crate::conditioner::Graph;
use crate::error::Result;
use crate::keys::{Entries, Node, Reading, RecordNames, Value, Writer, absolute, reaches_outside, without_parents};

/// A pipeline from the record in an image.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedSpec {
    /// The pipeline, with flags over it.
    pub spec: Spec,
    /// The record's names for its files, which a record of the image made again has too: its bytes are then the same,
    /// wherever the files are now.
    pub names: RecordNames,
    /// A sentence for each thing in the record that is ignored.
    pub ignored: Vec<String>,
}

/// Takes over the names in a record, for those files that still have them at the end of their paths.
fn record_names(named: &HashMap<String, String>, spec: &Spec) -> RecordNames {
    let known = spec.paths().into_iter().filter_map(|(key, path)| {
        let name = named.get(&dotted(&key)).filter(|name| reaches_outside(name).is_none())?;
        let whole = without_parents(&absolute(path));
        whole.ends_with(name).then(|| (whole, name.clone()))
    });
    RecordNames(known.collect())
}

impl Spec {
    /// Writes the spec as the text that goes into an image's record: as [`Spec::to_toml`], but without `[output]`, keys that
    /// lift a limit and libraries of providers, and with [`RecordPaths::Relative`] also without absolute paths and without provider options that hold paths. Files that
    /// an older record has `names` for keep them.
    pub fn to_record(&self, paths: RecordPaths, names: &RecordNames) -> String {
        let mut own = self.clone();
        own.leave_out_unrecorded();
        own.stages.iter_mut().for_each(|stage| stage.spec.leave_out_unrecorded());
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
        let spec = Self::parse_as(text, Reading::of_record(image), overrides, |entries, _| {
            ignored = take_unrecorded(entries);
            named = paths_in(entries).into_iter().map(|(key, path)| (key.join("."), path.to_owned())).collect();
        })?;
        Ok(RecordedSpec { names: record_names(&named, &spec), spec, ignored })
    }

    /// Resets what [`take_unrecorded`] takes out of a record.
    fn leave_out_unrecorded(&mut self) {
        self.output = OutputSpec::default();
        let DeviceSpec { overcommit, verify, .. } = DeviceSpec::default();
        (self.device.overcommit, self.device.verify) = (overcommit, verify);
        self.device.provider_libraries.clear();
        self.run.max_input_megapixels = RunSpec::default().max_input_megapixels;
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
        let inversions = self.textual_inversions.iter().enumerate();
        let inversions = inversions.map(|(at, own)| (format!("textual_inversion[{at}].path"), own.path.as_path()));
        paths.extend(inversions);
        paths.extend(self.own_inputs());
        for (at, stage) in self.stages.iter().enumerate() {
            let own = stage.spec.paths().into_iter();
            paths.extend(own.map(|(key, path)| (format!("stage[{at}].{key}"), path)));
        }
        paths
    }
}

/// Takes `[output]`, keys that lift a limit or a check, and libraries to load out of a record and its stages. Returns a
/// sentence for each.
fn take_unrecorded(entries: &mut Entries) -> Vec<String> {
    let mut ignored = Vec::new();
    take_from(entries, "", &mut ignored);
    if let Some(Node { value: Value::Array(stages), .. }) = entries.get_mut("stage") {
        for (at, stage) in stages.iter_mut().enumerate() {
            if let Value::Table(stage) = &mut stage.value {
                take_from(stage, &format!("stage[{at}]."), &mut ignored);
            }
        }
    }
    ignored
}

fn take_from(entries: &mut Entries, prefix: &str, ignored: &mut Vec<String>) {
    if entries.remove("output").is_some() {
        ignored.push(format!("[{prefix}output] in the record is ignored: where images go is for this run to say"));
    }
    for (table, key, reason) in [
        ("device", "overcommit", "it lifts a limit"),
        ("device", "verify", "it lifts a check"),
        ("device", "provider_library", "it names a library to load"),
        ("run", "max_input_megapixels", "it lifts a limit"),
    ] {
        if let Some(Node { value: Value::Table(inner), .. }) = entries.get_mut(table)
            && inner.remove(key).is_some()
        {
            ignored.push(format!(
                "{prefix}{table}.{key} in the record is ignored, as {reason}; if this run needs it: --set \
                 {prefix}{table}.{key}=VALUE"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_lifts_no_limit_and_loads_no_library() {
        let text = "[model]\npath = 'm'\n[task.text-to-image]\nprompt = ''\n[device]\novercommit = true\nverify = false\nthreads = 2\nprovider_library = 'x.so'\n\
                    [run]\nmax_input_megapixels = 4000\nseed = 3\n\
                    [[stage]]\nmodel.path = 'n'\ntask.image-to-image = {}\nrun.max_input_megapixels = 999\n";
        let read = |set: &[&str]| {
            let set = set.iter().map(|&set| set.to_owned()).collect();
            Spec::from_record(text, Path::new("image.png"), &Overrides { set, ..Overrides::default() }).unwrap()
        };
        let RecordedSpec { spec, ignored, .. } = read(&[]);
        let limits = |spec: &Spec| (spec.device.overcommit, spec.device.verify, spec.run.max_input_megapixels);
        let usual = (false, None, RunSpec::default().max_input_megapixels);
        assert_eq!((limits(&spec), limits(&spec.stages[0].spec)), (usual, usual));
        assert_eq!((spec.device.threads, spec.run.seed), (Some(2), Some(3)));
        assert!(spec.device.provider_libraries.is_empty());
        let keys = [
            "device.overcommit",
            "device.verify",
            "device.provider_library",
            "run.max_input_megapixels",
            "stage[0].run.max_input_megapixels",
        ];
        assert_eq!(ignored.len(), keys.len());
        assert!(ignored.iter().zip(keys).all(|(said, key)| said.starts_with(key)), "{ignored:?}");
        // The command line may, and a record that is written holds nothing that would be ignored.
        let set = [
            "device.overcommit=true",
            "device.verify=false",
            "device.provider_library=own.so",
            "run.max_input_megapixels=100",
        ];
        let lifted = read(&set).spec;
        assert_eq!(limits(&lifted), (true, Some(false), 100));
        assert_eq!(lifted.device.provider_libraries, [Path::new("own.so")]);
        for paths in [RecordPaths::Relative, RecordPaths::Absolute] {
            let written = lifted.to_record(paths, &RecordNames::default());
            let left_out = ["overcommit =", "verify =", "provider_library =", "megapixels ="];
            assert!(left_out.iter().all(|key| !written.contains(key)), "{written}");
        }
    }
}
