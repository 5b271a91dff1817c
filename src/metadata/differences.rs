//! Differences between the run that generated an image and a replay.

use std::collections::BTreeMap;

use super::{ENGINE, Record};

impl Record {
    /// Returns a sentence for each difference of the program and the machine. Such differences can change values in the
    /// last place, and a new version of the program can change more.
    pub fn compare_engine(&self, runtime: &str, arithmetic: &str, providers: &[String]) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, then: &str, now: &str| {
            if then != now && !then.is_empty() {
                differences.push(format!("the image was generated {what} {then}, this run uses {now}; it may differ"));
            }
        };
        compare("by", &self.engine, ENGINE);
        compare("with ONNX Runtime", &self.runtime, runtime);
        compare("on the providers", &self.providers.join(", "), &providers.join(", "));
        compare("with the arithmetic of", &self.arithmetic, arithmetic);
        differences
    }

    /// Returns a warning if the record's version has no digests of files.
    pub fn missing_digests_warning(&self) -> Option<&'static str> {
        (self.schema < 2).then_some(
            "its record has version 1, without digests of the model's configuration and tokenizer files: changes in them \
             are not detected",
        )
    }
}

/// Returns a sentence for each file, by name, that differs from the record. `stage` is a prefix of the names and may be
/// empty.
pub fn compare_files(stage: &str, then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let prefix = if stage.is_empty() { String::new() } else { format!("{stage}: ") };
    let changed = then.iter().filter_map(|(name, digest)| match now.get(name) {
        Some(same) if same == digest => None,
        Some(_) => Some(format!(
            "{prefix}{name} differs from the file that the image was generated with; the image will differ"
        )),
        None => Some(format!("{prefix}{name} was used for the image and is missing now; the image will differ")),
    });
    let added = now.keys().filter(|name| !then.contains_key(*name));
    let added =
        added.map(|name| format!("{prefix}{name} did not exist when the image was generated; the image will differ"));
    changed.chain(added).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn each_difference_is_reported() {
        let record = record();
        let same = ("1.31.1", "x86_64 avx2, graphs as stored", ["cpu".to_owned()]);
        let report = |runtime: &str, arithmetic: &str, providers: &[String]| {
            record.compare_engine(runtime, arithmetic, providers).join("\n")
        };
        let engine_differences = if record.engine == ENGINE { 0 } else { 1 };
        assert_eq!(record.compare_engine(same.0, same.1, &same.2).len(), engine_differences);
        assert!(report("1.32.0", same.1, &same.2).contains("ONNX Runtime 1.31.1, this run uses 1.32.0"));
        assert!(report(same.0, "aarch64", &same.2).contains("x86_64 avx2, graphs as stored, this run uses aarch64"));
        assert!(report(same.0, same.1, &["cuda".into(), "cpu".into()]).contains("cpu, this run uses cuda, cpu"));
        let older = Record { engine: "ldm-ort 0.0.1".into(), ..record.clone() };
        assert!(older.compare_engine(same.0, same.1, &same.2).join("").contains("by ldm-ort 0.0.1, this run uses"));
        assert!(
            record.missing_digests_warning().is_none()
                && Record { schema: 1, ..record }.missing_digests_warning().is_some()
        );
    }

    #[test]
    fn each_changed_file_is_reported() {
        let files = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter().map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned())).collect()
        };
        let then = files(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let now = files(&[("a", "1"), ("b", "9"), ("d", "4")]);
        assert!(compare_files("", &then, &then).is_empty());
        let report = compare_files("stage[0]", &then, &now);
        assert_eq!(report.len(), 3);
        for (sentence, says) in
            report.iter().zip(["stage[0]: b differs", "stage[0]: c was used", "stage[0]: d did not"])
        {
            assert!(sentence.starts_with(says), "{sentence}");
        }
    }
}
