//! Runs of the program, and what they drew.

use std::path::{Path, PathBuf};
use std::process::Command;

use ldm_ort::Runtime;
use ldm_ort::graph_cache::{self, CachedGraph};
use serde_json::Value;

use crate::common::{Answer, answer, ldm_ort};
use ldm_ort::spec::{Overrides, Spec};

/// What a run left behind.
pub struct Drawn {
    pub answer: Answer,
    /// The objects of `--json`.
    pub images: Vec<Value>,
    /// The images' files, in the same order.
    pub paths: Vec<PathBuf>,
}

/// A temporary folder in which runs keep their optimized graphs.
pub struct GraphCache {
    folder: tempfile::TempDir,
    /// ONNX Runtime's library, which is not looked for in that folder.
    library: PathBuf,
}

impl GraphCache {
    pub fn new() -> Self {
        let runtime =
            Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("ONNX Runtime is found or fetched");
        Self { folder: tempfile::tempdir().expect("a folder"), library: runtime.path().to_owned() }
    }

    /// The optimized graphs.
    pub fn graphs(&self) -> Vec<CachedGraph> {
        graph_cache::GraphCache::new(self.folder.path().join("graphs")).entries().expect("a list")
    }
}

/// Runs `ldm-ort run` on unoptimized graphs with its images in `folder`, and expects it to succeed.
pub fn draw<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>) -> Drawn {
    draw_with(folder, arguments, None)
}

/// As [`draw`], on optimized graphs if there is a cache. No graph may fall back to its unoptimized form.
pub fn draw_with<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>, cache: Option<&GraphCache>) -> Drawn {
    Drawn::of(folder, answer(command(folder, arguments, cache)))
}

/// The command of [`draw_with`].
pub fn command<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a str>, cache: Option<&GraphCache>) -> Command {
    let mut command = ldm_ort(folder);
    command.arg("run").args(arguments).arg("--output").arg(folder).arg("--json");
    if let Some(GraphCache { folder, library }) = cache {
        command.env_remove("LDM_ORT_OPTIMIZE").env("LDM_ORT_CACHE_DIR", folder.path()).env("ORT_DYLIB_PATH", library);
    }
    command
}

impl Drawn {
    fn of(folder: &Path, answer: Answer) -> Self {
        assert_eq!(answer.code, Some(0), "{answer}");
        assert!(!answer.stderr.contains("opened as exported"), "{answer}");
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}\n{answer}"));
        let images: Vec<Value> = answer.stdout.lines().map(parse).collect();
        let path = |image: &Value| folder.join(image["path"].as_str().expect("an image has a path"));
        let paths = images.iter().map(path).collect();
        Self { images, paths, answer }
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
    let image = image::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    image.to_rgb8()
}

/// A pixel of each square of four, another one of them in each neighbor: what references hold.
pub fn quarter(image: &image::RgbImage) -> image::RgbImage {
    let (width, height) = image.dimensions();
    image::RgbImage::from_fn(width.div_ceil(2), height.div_ceil(2), |x, y| {
        *image.get_pixel((2 * x + y % 2).min(width - 1), (2 * y + x % 2).min(height - 1))
    })
}

/// The part of all values that is off by more than `levels` of 255.
pub fn far_off(got: &image::RgbImage, want: &image::RgbImage, levels: u8) -> f64 {
    let far = got.as_raw().iter().zip(want.as_raw()).filter(|(a, b)| a.abs_diff(**b) > levels).count();
    far as f64 / want.as_raw().len() as f64
}
