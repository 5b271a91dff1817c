//! Runs of the program, and what they drew.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Answer, answer, ldm_ort};
use ldm_ort::spec::{Overrides, Spec};

/// What a run left behind.
pub struct Drawn {
    pub answer: Answer,
    /// The objects of `--json`.
    pub pictures: Vec<Value>,
    /// The pictures' files, in the same order.
    pub paths: Vec<PathBuf>,
}

/// Runs `ldm-ort run` with its pictures in `folder`, and expects it to succeed.
pub fn draw<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Drawn {
    let mut command = ldm_ort(folder);
    command.arg("run").args(arguments).arg("--output").arg(folder).arg("--json");
    Drawn::of(folder, answer(command))
}

impl Drawn {
    fn of(folder: &Path, answer: Answer) -> Self {
        assert_eq!(answer.code, Some(0), "{answer}");
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}\n{answer}"));
        let pictures: Vec<Value> = answer.stdout.lines().map(parse).collect();
        let path = |picture: &Value| folder.join(picture["path"].as_str().expect("a picture has a path"));
        let paths = pictures.iter().map(path).collect();
        Self { pictures, paths, answer }
    }
}

/// The flags that give a run from a record all paths of this pipeline anew: records name none outside of the current
/// directory.
pub fn anew(pipeline: &Path) -> Vec<String> {
    let spec = Spec::load(pipeline, &Overrides::default()).unwrap_or_else(|error| panic!("{error}"));
    let flag = |(key, path): (String, &Path)| match key.as_str() {
        "model.path" => ["--model".to_owned(), text(path).to_owned()],
        _ => ["--input".to_owned(), format!("{key}={}", text(path))],
    };
    spec.paths().into_iter().flat_map(flag).collect()
}

/// Makes an image of this pipeline again from its record, in another folder and with its files given anew.
pub fn redraw(folder: &Path, image: &Path, pipeline: &Path) -> Drawn {
    let anew = anew(pipeline);
    let mut command = ldm_ort(folder);
    command.args(["run", "--from"]).arg(image).args(&anew).arg("--output").arg(folder).arg("--json");
    Drawn::of(folder, answer(command))
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("the test's folders are named in Unicode")
}

pub fn pixels(path: &Path) -> image::RgbImage {
    let picture = image::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    picture.to_rgb8()
}

/// The part of all values that is off by more than `levels` of 255.
pub fn far_off(got: &image::RgbImage, want: &image::RgbImage, levels: u8) -> f64 {
    let far = got.as_raw().iter().zip(want.as_raw()).filter(|(a, b)| a.abs_diff(**b) > levels).count();
    far as f64 / want.as_raw().len() as f64
}
