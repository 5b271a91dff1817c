//! What pipelines are held to.

use crate::common::root;
use std::path::PathBuf;

/// A pipeline and what it is to draw: its files, whose names all begin with the same path.
pub struct Reference {
    pub name: String,
    pub pipeline: PathBuf,
    pub limits: PathBuf,
    pub latents: PathBuf,
    pub images: Vec<PathBuf>,
}

impl Reference {
    /// The folders of one of the folders of `tests/golden`.
    pub fn of_diffusers(folder: &str) -> Vec<Self> {
        let folder = root().join("tests/golden").join(folder);
        let folders = std::fs::read_dir(folder).expect("the references are there");
        let reference = |folder: PathBuf| Self {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            pipeline: folder.join("pipeline.toml"),
            limits: folder.join("case.json"),
            latents: folder.join("latents.npy"),
            images: numbered(|i| folder.join(format!("image-{i}.png"))),
        };
        folders.map(|entry| reference(entry.expect("an entry").path())).collect()
    }

    /// The pipelines of `tests/golden/systems`.
    pub fn of_systems() -> Vec<Self> {
        let folder = root().join("tests/golden/systems");
        let paths = std::fs::read_dir(&folder).expect("the references are there").map(|e| e.expect("an entry").path());
        let reference = |pipeline: PathBuf| Self {
            name: pipeline.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            limits: pipeline.with_extension("json"),
            latents: pipeline.with_extension("latents.npy"),
            images: numbered(|i| pipeline.with_extension(format!("{i}.png"))),
            pipeline,
        };
        paths.filter(|path| path.extension().is_some_and(|e| e == "toml")).map(reference).collect()
    }
}

/// The files that are there, counted from 0.
fn numbered(path: impl Fn(usize) -> PathBuf) -> Vec<PathBuf> {
    (0..).map(path).take_while(|path| path.exists()).collect()
}
