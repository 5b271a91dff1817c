//! The lines of the input, good and bad.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use super::{call, command, folder, images, manifest, objects, summary, write};
use crate::common::Answer;

#[test]
fn bad_lines_are_recorded_and_passed_over() {
    let folder = folder();
    let lines = [
        "\"a red cat\"",
        "",
        "{\"prompt\": \"a dog\", \"images\": 2, \"seed\": 7}",
        "{\"prompt\": \"a bird\"",
        "[1, 2]",
        "{\"task\": {\"text-to-image\": {\"prompt\": \"a fish\", \"guidance_scale\": 2.0}}, \"run\": {\"steps\": 1}}",
        "{\"prompt\": \"a horse\", \"stepps\": 3}",
        "{\"prompt\": \"a horse\", \"width\": 63}",
        "\"a red cat\"",
    ];
    write(folder.path(), "prompts.jsonl", &lines);
    let arguments = ["p.toml", "prompts.jsonl", "--out", "out"];
    let made = objects(folder.path(), &arguments, 1);
    let numbers = |name: &str| summary(&made)[name].as_u64().expect("a number");
    let names = ["lines", "images", "made", "existing", "failed"];
    assert_eq!(names.map(numbers), [8, 4, 4, 0, 4]);
    assert_eq!(images(&folder.path().join("out")).len(), 4);
    let entries = manifest(&folder.path().join("out"), "1-of-1");
    let of = |line: u64| -> Vec<&Value> { entries.iter().filter(|entry| entry["line"] == line).collect() };
    assert_eq!((of(3)[0]["seed"].as_u64(), of(3)[1]["seed"].as_u64()), (Some(7), Some(8)));
    assert_eq!((of(3)[0]["image"].as_u64(), of(3)[1]["image"].as_u64()), (Some(0), Some(1)));
    assert_eq!(of(1)[0]["key"], of(9)[0]["key"], "the same request is the same image");
    for (line, says) in [(4, "is not JSON"), (5, "found an array"), (7, "stepps: unknown field"), (8, "width")] {
        assert!(of(line)[0]["error"].as_str().expect("an error").contains(says), "{:?}", of(line));
    }
    // Each image's record is that of its line.
    let record = |entry: &Value| {
        let file = folder.path().join("out").join(entry["file"].as_str().expect("a file"));
        ldm_ort::metadata::read_png(&file).expect("a record")
    };
    let fish = record(of(6)[0]);
    assert_eq!((fish.prompt.as_str(), fish.guidance_scale, fish.steps), ("a fish", 2.0, 1));
    assert_eq!((record(of(3)[1]).prompt.as_str(), record(of(3)[1]).seed), ("a dog", 8));

    // Again: nothing is made, and nothing is recorded twice.
    let again = objects(folder.path(), &arguments, 1);
    assert_eq!((&summary(&again)["made"], &summary(&again)["existing"]), (&0.into(), &4.into()));
    assert_eq!(manifest(&folder.path().join("out"), "1-of-1"), entries);
    let told = call(folder.path(), &arguments);
    assert!(told.stderr.contains("4 of 8 lines failed; see out"), "{told}");
    assert!(told.stderr.contains("line 7 failed: stepps"), "{told}");
}

#[test]
fn prompts_come_from_text_and_standard_input() {
    let folder = folder();
    write(folder.path(), "prompts.txt", &["a cat", "", "  {a dog}  "]);
    write(folder.path(), "prompts.jsonl", &["\"a cat\"", "{\"prompt\": \"{a dog}\"}"]);
    let from_text = call(folder.path(), &["p.toml", "prompts.txt", "-o", "out"]);
    assert_eq!(from_text.code, Some(0), "{from_text}");
    assert_eq!(from_text.stdout.lines().count(), 2);
    assert!(from_text.stdout.lines().all(|path| folder.path().join(path).is_file()), "{from_text}");
    let mut command = command(folder.path(), &["p.toml", "-", "--out", "piped", "--format", "jpeg", "--quality", "80"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("a child");
    let text = std::fs::read(folder.path().join("prompts.jsonl")).expect("prompts");
    child.stdin.take().expect("a pipe").write_all(&text).expect("prompts");
    let piped: Answer = child.wait_with_output().expect("an answer").into();
    assert_eq!(piped.code, Some(0), "{piped}");
    // The same keys, whatever the form of the lines and of the files.
    let names = |out: &str| -> Vec<String> { images(&folder.path().join(out)).into_keys().collect() };
    let stems: Vec<String> = names("out").iter().map(|name| name.replace(".png", ".jpg")).collect();
    assert_eq!((names("piped"), stems.len()), (stems, 2));
}

#[test]
fn what_is_wrong_is_said_before_anything_is_made() {
    let folder = folder();
    write(folder.path(), "prompts.jsonl", &["\"a cat\""]);
    write(folder.path(), "blank.jsonl", &["", " "]);
    std::fs::write(folder.path().join("file"), "").expect("a file");
    let slurm = ["p.toml", "prompts.jsonl", "--out", "out", "--shard", "auto"];
    for (arguments, says) in [
        (&["p.toml", "none.jsonl", "--out", "out"][..], "none.jsonl: no such file"),
        (&["p.toml", "blank.jsonl", "--out", "out"], "blank.jsonl: holds no request"),
        (&["none.toml", "prompts.jsonl", "--out", "out"], "none.toml"),
        (&["-", "-", "--out", "out"], "more than once"),
        (&["p.toml", "prompts.jsonl"], "--out"),
        (&["p.toml", "prompts.jsonl", "--out", "file"], "file is a file, expected a folder"),
        (&["p.toml", "prompts.jsonl", "--out", "/proc/batch"], "--out: /proc/batch cannot be written"),
        (&["p.toml", "prompts.jsonl", "--out", "ftp://host/x"], "there is no store for ftp://"),
        (&["p.toml", "prompts.jsonl", "--out", "out", "--shard", "4/3"], "there is no shard 4 of 3"),
        (&["p.toml", "prompts.jsonl", "--out", "out", "--quality", "80"], "--quality"),
        (&slurm, "auto finds none of SLURM_ARRAY_TASK_ID"),
    ] {
        let answer = call(folder.path(), arguments);
        assert_eq!(answer.code, Some(2), "{arguments:?}: {answer}");
        assert!(answer.stderr.contains(says), "{arguments:?}: {answer}");
        assert!(!folder.path().join("out").exists(), "{arguments:?}");
    }
}
