//! Names by content, and seeds.

use std::path::Path;

use base64::Engine;
use serde_json::Value;

use super::{folder, manifest, objects, write};
use crate::common::models;

/// The keys and seeds of a request with these flags, in the order of its images.
fn keys_with(folder: &Path, line: &str, flags: &[&str]) -> Vec<(String, u64)> {
    write(folder, "one.jsonl", &[line]);
    let out = tempfile::tempdir_in(folder).expect("a folder");
    let out = out.path().to_str().expect("Unicode");
    let made = objects(folder, &[&["p.toml", "one.jsonl", "--out", out], flags].concat(), 0);
    let entry =
        |entry: &Value| (entry["key"].as_str().expect("a key").to_owned(), entry["seed"].as_u64().expect("a seed"));
    let told: Vec<_> = made[..made.len() - 1].iter().map(entry).collect();
    let listed: Vec<_> = manifest(Path::new(out), "1-of-1").iter().map(entry).collect();
    assert_eq!(told, listed);
    told
}

fn keys(folder: &Path, line: &str) -> Vec<(String, u64)> {
    keys_with(folder, line, &[])
}

#[test]
fn a_seed_follows_from_the_request() {
    let folder = folder();
    let one = keys(folder.path(), "\"a dog\"");
    let [(key, seed)] = &one[..] else { panic!("{one:?}") };
    assert!(*seed < 1 << 31);
    assert_eq!(keys(folder.path(), "{\"prompt\": \"a dog\"}"), one);
    // The seed that was derived, given, is the same image; so is the first of several.
    assert_eq!(keys(folder.path(), &format!("{{\"prompt\": \"a dog\", \"seed\": {seed}}}")), one);
    let three = keys(folder.path(), "{\"prompt\": \"a dog\", \"images\": 3}");
    assert_eq!(three[0], one[0]);
    assert_eq!(three.iter().map(|(_, seed)| *seed).collect::<Vec<_>>(), [*seed, seed + 1, seed + 2]);
    let single = keys(folder.path(), &format!("{{\"prompt\": \"a dog\", \"seed\": {}}}", seed + 2));
    assert_eq!(single[0], three[2]);
    // Other requests have other seeds.
    for other in
        ["\"a cat\"", "{\"prompt\": \"a dog\", \"steps\": 1}", "{\"prompt\": \"a dog\", \"negative_prompt\": \"x\"}"]
    {
        let other = keys(folder.path(), other);
        assert!(other[0].0 != *key && other[0].1 != *seed, "{other:?}");
    }
}

#[test]
fn a_key_is_that_of_the_image_and_not_of_the_machine() {
    let folder = folder();
    let plain = keys(folder.path(), "{\"prompt\": \"a dog\", \"seed\": 3}");
    // Settings that leave the image as it is, and defaults that are spelled out.
    for flags in [
        &["--set", "device.threads=1"][..],
        &["--set", "output.preview=1", "--set", "run.max_input_megapixels=9"],
        &["--set", "device.batching=sequential"],
        &["--format", "webp"],
        &["--seed", "8", "--prompt", "another"],
        &["--set", "task.text-to-image.guidance_scale=7.5"],
    ] {
        assert_eq!(keys_with(folder.path(), "{\"prompt\": \"a dog\", \"seed\": 3}", flags), plain, "{flags:?}");
    }
    // A copy of the model elsewhere is the same model, and another model is not.
    let copy = folder.path().join("copy");
    copy_folder(&models().join("sd1"), &copy);
    let text = std::fs::read_to_string(folder.path().join("p.toml")).expect("a pipeline");
    let moved = text.replace(&models().join("sd1").display().to_string(), "copy");
    std::fs::write(folder.path().join("p.toml"), moved).expect("a pipeline");
    assert_eq!(keys(folder.path(), "{\"prompt\": \"a dog\", \"seed\": 3}"), plain);
    let scheduler = copy.join("scheduler/scheduler_config.json");
    let changed = std::fs::read_to_string(&scheduler).expect("a file").replacen('{', "{\"_note\": 1,", 1);
    std::fs::write(&scheduler, changed).expect("a file");
    assert_ne!(keys(folder.path(), "{\"prompt\": \"a dog\", \"seed\": 3}"), plain);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry")) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

#[test]
fn an_input_image_is_part_of_the_key() {
    let folder = folder();
    let image = |name: &str, shade: u8| {
        let image = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([(3 * x) as u8, (2 * y) as u8, shade]));
        image.save(folder.path().join(name)).expect("a PNG");
    };
    image("one.png", 1);
    image("two.png", 2);
    std::fs::copy(folder.path().join("one.png"), folder.path().join("same.png")).expect("a copy");
    let request =
        |image: &str| keys(folder.path(), &format!("{{\"prompt\": \"a dog\", \"seed\": 3, \"image\": \"{image}\"}}"));
    let in_memory = |name: &str| {
        let bytes = std::fs::read(folder.path().join(name)).expect("an image");
        request(&format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes)))
    };
    let one = request("one.png");
    assert_eq!(request("same.png"), one, "the name of a file does not matter");
    assert_ne!(request("two.png"), one);
    assert_ne!(in_memory("one.png"), in_memory("two.png"));
}
