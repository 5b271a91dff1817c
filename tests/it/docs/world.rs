//! The folder in which a page's snippets run: tiny models under the names that the pages use, and the files they name.

use std::path::{Path, PathBuf};

use super::root;
use crate::common;

/// Names in models/ with the tiny models that take their places.
const MODELS: [(&str, &str); 24] = [
    ("shapes", "models/shapes"),
    ("sd15", "tests/fixtures/models/sd1"),
    ("sd21", "tests/fixtures/models/sd2v"),
    ("sd15-controlnet", "tests/fixtures/families/control"),
    ("sd15-inpainting", "tests/fixtures/families/inpaint"),
    ("instruct-pix2pix", "tests/fixtures/families/instruct"),
    ("depth", "tests/fixtures/families/depth"),
    ("upscaler", "tests/fixtures/families/upscale"),
    ("lcm", "tests/fixtures/families/lcm"),
    ("sdxl", "tests/fixtures/families/xl"),
    ("sdxl-refiner", "tests/fixtures/families/refiner"),
    ("sd35", "tests/fixtures/families/sd3"),
    ("flux-dev", "tests/fixtures/families/flux-dev"),
    ("flux-schnell", "tests/fixtures/families/flux-schnell"),
    ("pixart-sigma", "tests/fixtures/families/pixart-sigma"),
    ("sana", "tests/fixtures/families/sana"),
    ("ddpm", "tests/fixtures/models/pixel"),
    ("ldm-faces", "tests/fixtures/systems/uncond-vq"),
    ("ldm-classes", "tests/fixtures/systems/class-embedder"),
    ("ldm-text", "tests/fixtures/systems/text-bert"),
    ("ldm-layout", "tests/fixtures/systems/layout"),
    ("ldm-labels", "tests/fixtures/systems/semantic"),
    ("ldm-retrieval", "tests/fixtures/systems/retrieval"),
    ("ldm-upscaler", "tests/fixtures/systems/super-resolution"),
];

/// Tiny models whose files are in part another's: name, the other one, and the components that it fills up.
const SHARING: [(&str, &str, &[&str]); 2] = [
    ("flux-schnell", "flux-dev", &["text_encoder", "text_encoder_2", "vae_encoder", "vae_decoder"]),
    ("pixart-sigma", "sdxl", &["vae_encoder", "vae_decoder"]),
];

/// Files that pages name, with the files that take their places.
const FILES: [(&str, &str); 5] = [
    ("pipeline.toml", "pipeline.toml"),
    ("labels.png", "tests/golden/systems/semantic.labels.png"),
    ("neighbours.npy", "tests/golden/systems/retrieval-vectors.neighbours.npy"),
    ("style.safetensors", "tests/golden/lora/files/kohya.safetensors"),
    ("cat-toy.safetensors", "tests/golden/pipelines/embedding-vectors/moody-style.safetensors"),
];

/// A folder with all of it.
pub(super) struct World(tempfile::TempDir);

impl World {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("models")).expect("a folder");
        for (name, model) in MODELS {
            let from = if model.starts_with("tests/fixtures") { common::root() } else { root() };
            link(&from.join(model), &folder.path().join("models").join(name));
        }
        for (name, other, components) in SHARING {
            fill_up(&folder.path().join("models"), name, other, components);
        }
        for (name, file) in FILES {
            std::fs::copy(root().join(file), folder.path().join(name))
                .unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        // Colors with something to see in them; what is white in the mask is its right half.
        let photo = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([(4 * x) as u8, (4 * y) as u8, 90]));
        let mask = image::GrayImage::from_fn(64, 64, |x, _| image::Luma([if x < 32 { 0 } else { 255 }]));
        let depth = image::GrayImage::from_fn(64, 64, |x, y| image::Luma([(2 * (x + y)) as u8]));
        let small = image::imageops::thumbnail(&photo, 16, 16);
        for (name, image) in [("photo.png", &photo), ("edges.png", &photo), ("small.png", &small)] {
            image.save(folder.path().join(name)).expect("a PNG");
        }
        for (name, image) in [("mask.png", &mask), ("depth.png", &depth)] {
            image.save(folder.path().join(name)).expect("a PNG");
        }
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).expect("a folder");
        link(Path::new(env!("CARGO_BIN_EXE_ldm-ort")), &bin.join("ldm-ort"));
        Self(folder)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The folder with the program.
    pub(super) fn bin(&self) -> PathBuf {
        self.path().join("bin")
    }
}

/// Replaces a link to a model by a folder of links, with files of another model in components that lack them.
fn fill_up(models: &Path, name: &str, other: &str, components: &[&str]) {
    let own = std::fs::canonicalize(models.join(name)).expect("a model");
    std::fs::remove_file(models.join(name)).expect("a link");
    std::fs::create_dir(models.join(name)).expect("a folder");
    for entry in std::fs::read_dir(&own).expect("a model").map(|entry| entry.expect("an entry")) {
        let target = models.join(name).join(entry.file_name());
        if !components.iter().any(|component| entry.file_name() == *component) {
            link(&entry.path(), &target);
            continue;
        }
        std::fs::create_dir(&target).expect("a folder");
        let folders = [entry.path(), models.join(other).join(entry.file_name())];
        let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a component"));
        for file in files.map(|file| file.expect("a file")) {
            if !target.join(file.file_name()).exists() {
                let from = std::fs::canonicalize(file.path()).expect("a file");
                link(&from, &target.join(file.file_name()));
            }
        }
    }
}

#[cfg(unix)]
fn link(target: &Path, name: &Path) {
    assert!(target.exists(), "{}", target.display());
    std::os::unix::fs::symlink(target, name).expect("a link");
}
