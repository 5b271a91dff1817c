//! The images of a batch are those of `ldm-ort run`.

use super::{call, folder, objects, summary, write};
use crate::common::{answer, ldm_ort, root};

/// The bytes of the images in a folder of `ldm-ort run`, and of a batch's, in the order of their names' bytes.
fn sorted(mut images: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    images.sort();
    images
}

#[test]
fn the_bytes_are_those_of_a_run() {
    let folder = folder();
    let line = "{\"prompt\": [\"a dog\", \"a bird\"], \"seed\": 3, \"images\": 2, \"scheduler\": \"euler\"}";
    write(folder.path(), "prompts.jsonl", &[line]);
    objects(folder.path(), &["p.toml", "prompts.jsonl", "--out", "out"], 0);
    let mut command = ldm_ort(folder.path());
    command.args([
        "run",
        "p.toml",
        "-p",
        "a dog",
        "-p",
        "a bird",
        "-s",
        "3",
        "--images",
        "2",
        "--scheduler",
        "euler",
        "-o",
        "run",
    ]);
    let run = answer(command);
    assert_eq!(run.code, Some(0), "{run}");
    let of_run = run.stdout.lines().map(|path| std::fs::read(folder.path().join(path)).expect("an image"));
    let of_batch = super::images(&folder.path().join("out")).into_values();
    let (of_run, of_batch) = (sorted(of_run.collect()), sorted(of_batch.collect()));
    assert_eq!(of_run.len(), 4);
    assert!(of_run == of_batch, "other bytes");
}

#[test]
fn models_in_a_row_are_one_pipeline() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = root().join("tests/golden/stages/refine/pipeline.toml").display().to_string();
    write(
        folder.path(),
        "prompts.jsonl",
        &["{\"seed\": 5, \"images\": 2}", "{\"seed\": 6, \"images\": 1}", "{\"seed\": 9}"],
    );
    let batch = [pipeline.as_str(), "prompts.jsonl", "--out", "out"];
    let made = objects(folder.path(), &batch, 0);
    // The second image of the first line is that of the second line.
    let keys: Vec<_> = made[..made.len() - 1].iter().map(|entry| entry["key"].as_str().expect("a key")).collect();
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!((distinct.len(), keys.len()), (keys.len(), summary(&made)["made"].as_u64().expect("a number") as usize));
    assert_eq!(summary(&made)["images"], 4);
    let again = objects(folder.path(), &batch, 0);
    assert_eq!(summary(&again)["made"], 0);
    let verified = call(folder.path(), &[&["verify"][..], &batch].concat());
    assert_eq!(verified.code, Some(0), "{verified}");
    let record =
        ldm_ort::metadata::read_png(&folder.path().join("out").join(made[0]["file"].as_str().expect("a file")));
    assert_eq!(record.expect("a record").stages.len(), 1);
}
