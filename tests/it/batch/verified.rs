//! `ldm-ort batch verify`.

use super::{call, folder, images, objects, summary, write};

#[test]
fn verification_finds_what_is_missing_or_damaged() {
    let folder = folder();
    let lines = ["{\"prompt\": \"a dog\", \"images\": 3, \"seed\": 1}", "\"a cat\"", "\"a bird\"", "{\"seed\": 3}"];
    write(folder.path(), "prompts.jsonl", &lines);
    let batch = ["p.toml", "prompts.jsonl", "--out", "out"];
    let verify = [&["verify"][..], &batch].concat();
    // Nothing is there, and nothing is written.
    let none = objects(folder.path(), &verify, 1);
    assert_eq!((none.len(), &summary(&none)["faulty"]), (7, &6.into()));
    assert!(!folder.path().join("out").exists());
    let made = objects(folder.path(), &batch, 0);
    let whole = call(folder.path(), &verify);
    assert_eq!((whole.code, whole.stdout.as_str()), (Some(0), "6 images of 4 lines checked\n"), "{whole}");

    let out = folder.path().join("out");
    let file = |at: usize| made[at]["file"].as_str().expect("a file");
    let there = images(&out);
    std::fs::remove_file(out.join(file(0))).expect("an image");
    let cut = &there[file(1)];
    std::fs::write(out.join(file(1)), &cut[..cut.len() - 7]).expect("an image");
    // Both ends are there, and a byte of the pixels is not.
    let mut damaged = there[file(2)].clone();
    let at = damaged.len() - 60;
    damaged[at] ^= 0x55;
    std::fs::write(out.join(file(2)), &damaged).expect("an image");
    // A whole image of another request.
    std::fs::copy(out.join(file(4)), out.join(file(3))).expect("an image");
    let found = objects(folder.path(), &verify, 1);
    assert_eq!(summary(&found)["faulty"], 4);
    let problem = |at: usize| found[at]["problem"].as_str().expect("a problem");
    let files: Vec<_> = found[..4].iter().map(|found| found["file"].as_str().expect("a file")).collect();
    assert_eq!(files, [file(0), file(1), file(2), file(3)]);
    assert_eq!((problem(0), problem(1)), ("is missing", "is truncated"));
    assert!(problem(3).contains("its record has seed"), "{}", problem(3));
    let told = call(folder.path(), &verify);
    assert!(told.stdout.contains(&format!("line 1: out/{} is missing\n", file(0))), "{told}");
    assert!(told.stderr.contains("4 images missing or damaged, 0 lines without images\n  hint: "), "{told}");
    // A shard's own images only.
    let shards = ["1/2", "2/2"].map(|shard| {
        let found = objects(folder.path(), &[&verify[..], &["--shard", shard]].concat(), 1);
        summary(&found)["images"].as_u64().expect("a number")
    });
    assert_eq!(shards.iter().sum::<u64>(), 6);
}

#[test]
fn images_of_another_model_are_found() {
    let folder = folder();
    write(folder.path(), "prompts.jsonl", &["{\"prompt\": \"a dog\", \"seed\": 1}"]);
    let made = objects(folder.path(), &["p.toml", "prompts.jsonl", "--out", "out"], 0);
    // The name that the image of another LoRA would have.
    let lora = crate::common::root().join("tests/golden/lora/files/kohya.safetensors");
    let text = std::fs::read_to_string(folder.path().join("p.toml")).expect("a pipeline");
    let with_lora = format!("{text}[[lora]]\npath = '{}'\n", lora.display());
    std::fs::write(folder.path().join("lora.toml"), with_lora).expect("a pipeline");
    let other = objects(folder.path(), &["lora.toml", "prompts.jsonl", "--out", "other"], 0);
    let file = |made: &[serde_json::Value]| made[0]["file"].as_str().expect("a file").to_owned();
    assert_ne!(file(&made), file(&other));
    std::fs::copy(folder.path().join("out").join(file(&made)), folder.path().join("other").join(file(&other)))
        .expect("an image");
    let found = objects(folder.path(), &["verify", "lora.toml", "prompts.jsonl", "--out", "other"], 1);
    assert!(found[0]["problem"].as_str().expect("a problem").contains("digests of the model's weights"), "{found:?}");
}
