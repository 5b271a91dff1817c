//! Batches that were stopped, and that others work on.

use std::io::{BufRead, BufReader};
use std::path::Path;

use super::{Images, call, command, folder, images, manifest, objects, parse, summary, write, write_prompts};

/// The number of images of most batches here.
const IMAGES: usize = 16;

/// The images of a batch that nothing disturbs.
fn undisturbed(folder: &Path) -> Images {
    let made = objects(folder, &["p.toml", "prompts.jsonl", "--out", "whole"], 0);
    assert_eq!(summary(&made)["made"], IMAGES);
    let images = images(&folder.join("whole"));
    assert_eq!(images.len(), IMAGES);
    images
}

/// Runs a batch until it has told of so many images, and then stops it with a signal; returns its exit code.
fn stop_after(folder: &Path, images: usize, signal: &str) -> Option<i32> {
    let mut child = command(folder, &["p.toml", "prompts.jsonl", "--out", "out"]).spawn().expect("a child");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().take(images).count();
    assert_eq!(lines, images);
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.expect("kill is there").success());
    child.wait().expect("an end").code()
}

#[cfg(unix)]
#[test]
fn a_killed_batch_goes_on() {
    let folder = folder();
    write_prompts(folder.path(), IMAGES);
    let whole = undisturbed(folder.path());
    for _ in 0..3 {
        assert_eq!(stop_after(folder.path(), 3, "-KILL"), None);
    }
    let so_far = images(&folder.path().join("out")).len();
    assert!((9..IMAGES).contains(&so_far), "{so_far} images");
    let made = objects(folder.path(), &["p.toml", "prompts.jsonl", "--out", "out"], 0);
    let numbers = ["made", "existing"].map(|name| summary(&made)[name].as_u64().expect("a number") as usize);
    assert_eq!(numbers, [IMAGES - so_far, so_far]);
    assert!(images(&folder.path().join("out")) == whole, "other bytes");
    // Every image has its line, also those whose process was killed before it wrote one.
    let lines: std::collections::BTreeSet<_> =
        manifest(&folder.path().join("out"), "1-of-1").iter().map(|entry| entry["line"].as_u64()).collect();
    assert_eq!(lines.len(), IMAGES);
    assert_eq!(call(folder.path(), &["verify", "p.toml", "prompts.jsonl", "--out", "out"]).code, Some(0));
}

#[cfg(unix)]
#[test]
fn an_interrupted_batch_goes_on() {
    let folder = folder();
    write_prompts(folder.path(), IMAGES);
    let whole = undisturbed(folder.path());
    assert_eq!(stop_after(folder.path(), 2, "-INT"), Some(130));
    let there = images(&folder.path().join("out"));
    assert!((2..IMAGES).contains(&there.len()), "{} images", there.len());
    assert!(there.iter().all(|(name, bytes)| whole.get(name) == Some(bytes)), "an image is not whole");
    assert_eq!(manifest(&folder.path().join("out"), "1-of-1").len(), there.len());
    objects(folder.path(), &["p.toml", "prompts.jsonl", "--out", "out"], 0);
    assert!(images(&folder.path().join("out")) == whole, "other bytes");
}

#[test]
fn two_processes_share_the_work() {
    let folder = folder();
    write_prompts(folder.path(), IMAGES);
    let whole = undisturbed(folder.path());
    let arguments = ["p.toml", "prompts.jsonl", "--out", "out", "--json"];
    let children = [0, 1].map(|_| command(folder.path(), &arguments).spawn().expect("a child"));
    let mut made = Vec::new();
    for child in children {
        let answer: crate::common::Answer = child.wait_with_output().expect("an answer").into();
        assert_eq!(answer.code, Some(0), "{answer}");
        let objects = parse(&answer.stdout);
        let numbers =
            ["made", "existing", "made_elsewhere"].map(|name| summary(&objects)[name].as_u64().expect("a number"));
        assert_eq!(numbers.iter().sum::<u64>(), IMAGES as u64, "{answer}");
        made.push(numbers[0] as usize);
    }
    assert_eq!(made.iter().sum::<usize>(), IMAGES, "{made:?}");
    assert!(images(&folder.path().join("out")) == whole, "other bytes");
    assert_eq!(std::fs::read_dir(folder.path().join("out/claims")).expect("a folder").count(), 0);
}

#[test]
fn missing_and_cut_images_are_made_again() {
    let folder = folder();
    write(folder.path(), "prompts.jsonl", &["{\"prompt\": \"a dog\", \"images\": 4}", "\"a cat\""]);
    let arguments = ["p.toml", "prompts.jsonl", "--out", "out"];
    let made = objects(folder.path(), &arguments, 0);
    let out = folder.path().join("out");
    let before = images(&out);
    let file = |at: usize| out.join(made[at]["file"].as_str().expect("a file"));
    std::fs::remove_file(file(1)).expect("an image");
    std::fs::write(file(2), &before[made[2]["file"].as_str().expect("a file")][..100]).expect("a file");
    std::fs::write(file(4), "").expect("a file");
    // A manifest that lost its end, and one of its lines.
    let manifest_file = out.join("manifest/1-of-1.jsonl");
    let text = std::fs::read_to_string(&manifest_file).expect("a manifest").replacen("\"line\"", "\"li", 1);
    std::fs::write(&manifest_file, &text[..text.len() - 30]).expect("a manifest");
    let again = objects(folder.path(), &arguments, 0);
    assert_eq!((&summary(&again)["made"], &summary(&again)["existing"]), (&3.into(), &2.into()));
    assert!(images(&out) == before, "other bytes");
    let entries = manifest(&out, "1-of-1");
    let images: std::collections::BTreeSet<_> =
        entries.iter().map(|entry| (entry["line"].as_u64(), entry["image"].as_u64())).collect();
    assert_eq!(images.len(), 5, "{entries:?}");
    // Without a manifest it is made anew from what is there.
    std::fs::remove_file(&manifest_file).expect("a manifest");
    assert_eq!(summary(&objects(folder.path(), &arguments, 0))["made"], 0);
    assert_eq!(manifest(&out, "1-of-1").len(), 5);
}
