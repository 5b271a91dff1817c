//! `run --from`: records, and the images made again from them.

mod changed_files;
mod foreign_records;
mod records;
mod requests;

use super::draw;
use crate::common::{Answer, answer, copy_folder, ldm_ort, models};
use ldm_ort::image::{InputLimit, encode_png, load, save_png};
use ldm_ort::metadata::{self, Record};
use std::path::Path;

/// A folder with a copy of the model in `models/sd1`, an image made of it in `out.png`, and its record.
fn made(more: &str) -> (tempfile::TempDir, Record) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    copy_folder(&models().join("sd1"), &at("models/sd1"));
    let text_of =
        "[model]\npath = 'models/sd1'\n[task.text-to-image]\nprompt = 'a black cat'\n[run]\nsteps = 2\nseed = 4\n";
    std::fs::write(at("pipeline.toml"), format!("{text_of}{more}")).expect("a file");
    let drawn = draw(folder.path(), ["pipeline.toml"]);
    std::fs::rename(&drawn.paths[0], at("out.png")).expect("a new name");
    let record = metadata::read_png(&at("out.png")).expect("a record");
    (folder, record)
}

/// `ldm-ort run --from IMAGE` in a folder.
fn again(folder: &Path, image: &str, flags: &[&str]) -> Answer {
    let mut command = ldm_ort(folder);
    command.args(["run", "--from", image, "--output", "again"]).args(flags);
    answer(command)
}

/// Writes an image with this record.
fn forge(path: &Path, pixels: &Path, record: &Record) {
    let png = encode_png(&load(pixels, InputLimit::default()).expect("an image"), &record.chunks().expect("JSON"))
        .expect("a PNG");
    save_png(path, &png).expect("the folder can be written");
}
