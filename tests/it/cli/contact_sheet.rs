//! The contact sheets of `ldm-ort run --sweep`.

use std::path::{Path, PathBuf};

use font8x8::{BASIC_FONTS, UnicodeFonts};
use image::RgbImage;
use serde_json::Value;

use super::habits::folder;
use crate::common::{Answer, answer, ldm_ort};

fn call(folder: &Path, arguments: &[&str]) -> Answer {
    let mut command = ldm_ort(folder);
    command.args(["run", "p.toml", "--output", "out"]).args(arguments).env("NO_COLOR", "1");
    answer(command)
}

/// The images of a run, in order, as the objects of `--json` name them.
fn images(folder: &Path, arguments: &[&str]) -> Vec<RgbImage> {
    let answer = call(folder, &[arguments, &["--json"]].concat());
    assert_eq!(answer.code, Some(0), "{answer}");
    let path = |line: &str| -> PathBuf {
        let object: Value = serde_json::from_str(line).expect("a JSON object");
        folder.join(object["path"].as_str().expect("a path"))
    };
    answer.stdout.lines().map(|line| open(&path(line))).collect()
}

fn open(path: &Path) -> RgbImage {
    image::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).to_rgb8()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("out")).map_or_else(|_| Vec::new(), |entries| entries.collect());
    let mut names: Vec<_> =
        entries.into_iter().map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The top left corner of every place of a sheet where a part is found.
fn places(sheet: &RgbImage, part: &RgbImage) -> Vec<(u32, u32)> {
    let fits = |x: u32, y: u32| part.enumerate_pixels().all(|(dx, dy, pixel)| sheet.get_pixel(x + dx, y + dy) == pixel);
    let (width, height) = (sheet.width().saturating_sub(part.width()), sheet.height().saturating_sub(part.height()));
    (0..=height).flat_map(|y| (0..=width).map(move |x| (x, y))).filter(|&(x, y)| fits(x, y)).collect()
}

/// The only place of an image.
fn place(sheet: &RgbImage, part: &RgbImage) -> (u32, u32) {
    let places = places(sheet, part);
    assert_eq!(places.len(), 1, "{places:?}");
    places[0]
}

/// A line of text in the letters of sheets, black on white, as small images have it.
fn text(line: &str) -> RgbImage {
    let glyphs: Vec<_> = line.chars().map(|c| BASIC_FONTS.get(c).expect("a character of the font")).collect();
    RgbImage::from_fn(8 * glyphs.len() as u32, 8, |x, y| {
        let is_black = glyphs[(x / 8) as usize][y as usize] >> (x % 8) & 1 == 1;
        image::Rgb([if is_black { 0 } else { 255 }; 3])
    })
}

#[test]
fn two_sweeps_make_a_table_with_headings() {
    let folder = folder();
    let sweeps = ["--sweep", "scheduler=euler,ddim", "--sweep", "guidance_scale=2,7.5"];
    let made = images(folder.path(), &sweeps);
    assert_eq!(names(folder.path()).len(), 5);
    let path = folder.path().join("out/a-cat-4-sweep.png");
    let sheet = open(&path);
    let at: Vec<_> = made.iter().map(|image| place(&sheet, image)).collect();
    let [euler_2, euler_7, ddim_2, ddim_7] = at[..] else { panic!("{at:?}") };
    assert!(euler_2.1 == euler_7.1 && ddim_2.1 == ddim_7.1 && euler_2.1 < ddim_2.1, "{at:?}");
    assert!(euler_2.0 == ddim_2.0 && euler_7.0 == ddim_7.0 && euler_2.0 < euler_7.0, "{at:?}");
    for (label, row) in [("scheduler = euler", euler_2), ("scheduler = ddim", ddim_2)] {
        let (x, y) = place(&sheet, &text(label));
        assert!(x < row.0 && y == row.1, "{label}: {x}, {y}, {row:?}");
    }
    let columns = ["guidance_scale = 2", "guidance_scale = 7.5"].map(|label| place(&sheet, &text(label)));
    assert!(columns[0].0 <= euler_2.0 && euler_2.0 < columns[1].0 && columns[1].0 <= euler_7.0, "{columns:?}");
    assert!(columns.iter().all(|column| column.1 < euler_2.1), "{columns:?}");
    // The sheet is no image of the run, and says so where a record is asked for.
    let mut again = ldm_ort(folder.path());
    again.args(["run", "--from"]).arg(&path);
    let again = answer(again);
    assert!(again.code == Some(2) && again.stderr.contains("has no record"), "{again}");
}

#[test]
fn each_prompt_has_a_sheet_and_its_images_are_below_each_other() {
    let folder = folder();
    let flags = ["-p", "a cat", "-p", "a dog", "--images", "2", "--sweep", "guidance_scale=1,5"];
    let made = images(folder.path(), &flags);
    let sheets = ["a-cat-4-sweep.png", "a-dog-6-sweep.png"].map(|name| open(&folder.path().join("out").join(name)));
    assert_eq!(made.len(), 8, "two prompts, two images, two combinations");
    for (prompt, sheet) in sheets.iter().enumerate() {
        let place_of = |combination: usize, copy: usize| place(sheet, &made[combination * 4 + prompt * 2 + copy]);
        let (first, second, other) = (place_of(0, 0), place_of(0, 1), place_of(1, 0));
        assert!(first.0 == second.0 && first.1 < second.1 && first.1 == other.1 && first.0 < other.0);
        let seed = place(sheet, &text(&format!("seed = {}", 5 + 2 * prompt)));
        assert_eq!(seed.1, second.1);
        assert!(places(sheet, &made[(1 - prompt) * 2]).is_empty(), "an image of the other prompt");
    }
    // With the same seeds for all prompts, in another format, under another name.
    let more = ["--same-seed", "--format", "webp", "--name", "{prompt} {index}"];
    images(folder.path(), &[&flags[..], &more].concat());
    let names = names(folder.path());
    let sheets: Vec<_> = names.iter().filter(|name| name.ends_with("-sweep.webp")).collect();
    assert_eq!(sheets, ["a-cat 0-sweep.webp", "a-dog 4-sweep.webp"], "{names:?}");
}

#[test]
fn three_sweeps_label_each_image() {
    let folder = folder();
    let sweeps = ["--sweep", "scheduler=euler", "--sweep", "steps=1,2", "--sweep", "guidance_scale=2,5"];
    let made = images(folder.path(), &sweeps);
    let sheet = open(&folder.path().join("out/a-cat-4-sweep.png"));
    let at: Vec<_> = made.iter().map(|image| place(&sheet, image)).collect();
    assert_eq!(places(&sheet, &text("scheduler = euler")).len(), 4);
    for (label, cells) in [("steps = 2", [2, 3]), ("guidance_scale = 5", [1, 3])] {
        let found = places(&sheet, &text(label));
        let is_above = |(label, cell): (&(u32, u32), usize)| label.0 <= at[cell].0 && label.1 < at[cell].1;
        assert!(found.len() == 2 && found.iter().zip(cells).all(is_above), "{label}: {found:?}, {at:?}");
    }
}

#[test]
fn without_a_sweep_or_after_an_error_there_is_no_sheet() {
    let folder = folder();
    assert_eq!(call(folder.path(), &[]).code, Some(0));
    assert_eq!(names(folder.path()), ["a-cat-4.png"]);
    // The second combination is refused before the first is made.
    let refused = call(folder.path(), &["--sweep", "scheduler=euler,nosuch"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    // So is a run whose latents cannot be written.
    std::fs::create_dir(folder.path().join("latents.npy")).expect("a folder");
    let failed = call(folder.path(), &["--sweep", "steps=1,2", "--save-latents", "latents.npy"]);
    assert_ne!(failed.code, Some(0), "{failed}");
    assert!(!names(folder.path()).iter().any(|name| name.contains("sweep")), "{:?}", names(folder.path()));
    let said = call(folder.path(), &["--sweep", "steps=1,2"]);
    assert!(said.stderr.contains("contact sheet: out/a-cat-4-sweep.png"), "{said}");
    assert!(!said.stdout.contains("sweep"), "{said}");
}
