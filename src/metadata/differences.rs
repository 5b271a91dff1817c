//! Differences between the run that made an image and one that makes it again.

use std::collections::BTreeMap;

use super::{ENGINE, Record};

impl Record {
    /// A sentence for each difference of the program and the machine. Such differences can change values in their
    /// last place, and a new version of the program more.
    pub fn differing_engine(&self, runtime: &str, arithmetic: &str, providers: &[String]) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, then: &str, now: &str| {
            if then != now && !then.is_empty() {
                differences.push(format!("the image was made {what} {then}, and this is {now}; it may differ"));
            }
        };
        compare("by", &self.engine, ENGINE);
        compare("with ONNX Runtime", &self.runtime, runtime);
        compare("on the providers", &self.providers.join(", "), &providers.join(", "));
        compare("with the arithmetic of", &self.arithmetic, arithmetic);
        differences
    }

    /// A warning about the digests that a record of an older version lacks.
    pub fn untold(&self) -> Option<&'static str> {
        (self.schema < 2).then_some(
            "its record is of version 1, without digests of the model's configuration and tokenizer files: if one of them \
             has changed, that goes unnoticed",
        )
    }
}

/// A sentence for each file, by name, that is not the record's. `stage` is put before the names, and may be empty.
pub fn differing_files(stage: &str, then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let prefix = if stage.is_empty() { String::new() } else { format!("{stage}: ") };
    let of_then = then.iter().filter_map(|(name, digest)| match now.get(name) {
        Some(same) if same == digest => None,
        Some(_) => {
            Some(format!("{prefix}{name} is not the file that the image was made with; it will be another image"))
        }
        None => Some(format!("{prefix}{name} was used for the image and is missing now; it will be another image")),
    });
    let added = now.keys().filter(|name| !then.contains_key(*name));
    let added =
        added.map(|name| format!("{prefix}{name} was not there when the image was made; it will be another image"));
    of_then.chain(added).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn each_difference_is_told_by_name() {
        let record = record();
        let same = ("1.31.1", "x86_64 avx2, graphs as stored", ["cpu".to_owned()]);
        let told = |runtime: &str, arithmetic: &str, providers: &[String]| {
            record.differing_engine(runtime, arithmetic, providers).join("\n")
        };
        let of_engine = if record.engine == ENGINE { 0 } else { 1 };
        assert_eq!(record.differing_engine(same.0, same.1, &same.2).len(), of_engine);
        assert!(told("1.32.0", same.1, &same.2).contains("ONNX Runtime 1.31.1, and this is 1.32.0"));
        assert!(told(same.0, "aarch64", &same.2).contains("x86_64 avx2, graphs as stored, and this is aarch64"));
        assert!(told(same.0, same.1, &["cuda".into(), "cpu".into()]).contains("cpu, and this is cuda, cpu"));
        let older = Record { engine: "ldm-ort 0.0.1".into(), ..record.clone() };
        assert!(older.differing_engine(same.0, same.1, &same.2).join("").contains("by ldm-ort 0.0.1, and this is"));
        assert!(record.untold().is_none() && Record { schema: 1, ..record }.untold().is_some());
    }

    #[test]
    fn each_file_is_told_by_name() {
        let files = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
            list.iter().map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned())).collect()
        };
        let then = files(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let now = files(&[("a", "1"), ("b", "9"), ("d", "4")]);
        assert!(differing_files("", &then, &then).is_empty());
        let told = differing_files("stage[0]", &then, &now);
        assert_eq!(told.len(), 3);
        for (sentence, says) in
            told.iter().zip(["stage[0]: b is not the file", "stage[0]: c was used", "stage[0]: d was not"])
        {
            assert!(sentence.starts_with(says), "{sentence}");
        }
    }
}
