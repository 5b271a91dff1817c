//! `ldm-ort run --compare`: images of fewer evaluations beside those of all of them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::engine::Image;
use crate::error::{Error, Result};
use crate::image::{self, Rgb8};
use crate::spec::Spec;

/// The end of the names of images made with all evaluations.
pub(super) const SUFFIX: &str = "-full";

/// Requires that the pipeline asks for fewer evaluations than a full run.
///
/// # Errors
/// [`Error::Input`] if it evaluates the model at every step.
pub(super) fn require_fewer_evaluations(spec: &Spec) -> Result<()> {
    let stages = spec.stages.iter().map(|stage| &stage.spec);
    if std::iter::once(spec).chain(stages).any(Spec::asks_for_fewer_evaluations) {
        return Ok(());
    }
    Err(Error::input(
        "--compare",
        "the pipeline evaluates the model at every step, so there is nothing to compare",
        "add a table such as [cache.easycache], or a guidance_interval, or leave --compare out",
    ))
}

/// An image of fewer evaluations that waits for the one to compare it with.
pub(super) struct ComparedImage {
    pub index: usize,
    /// The number of `[[stage]]` tables it went through.
    pub stages: usize,
    pub pixels: Rgb8,
    pub path: PathBuf,
    pub seconds: f64,
    /// The object that `--json` prints of it.
    pub object: Value,
}

/// Two images of one prompt and one seed, and how alike they are.
pub(super) struct Comparison<'a> {
    made: &'a ComparedImage,
    full: &'a Image,
    path: &'a Path,
    psnr: Option<f64>,
    ssim: Option<f64>,
}

impl<'a> Comparison<'a> {
    /// Compares an image with the one of all evaluations, which was written to `path`.
    pub(super) fn new(made: &'a ComparedImage, full: &'a Image, path: &'a Path) -> Self {
        let psnr = image::psnr(&made.pixels, full.pixels());
        Self { made, full, path, psnr, ssim: image::ssim(&made.pixels, full.pixels()) }
    }

    /// The object of the image with what was compared; `psnr` is null where the images are the same, `ssim` where
    /// they are smaller than its window.
    pub(super) fn json(&self) -> String {
        let mut object = self.made.object.clone();
        object["compare"] = json!({
            "path": self.path.to_string_lossy(),
            "psnr": self.psnr.filter(|psnr| psnr.is_finite()),
            "ssim": self.ssim,
            "seconds": self.full.seconds(),
        });
        object.to_string()
    }

    /// One line for a person.
    pub(super) fn text(&self) -> String {
        let psnr = match self.psnr {
            Some(psnr) if psnr.is_finite() => format!("PSNR {psnr:.2} dB"),
            _ => "the same pixels".to_owned(),
        };
        let ssim = self.ssim.map_or_else(String::new, |ssim| format!(", SSIM {ssim:.4}"));
        let (seconds, full) = (self.made.seconds, self.full.seconds());
        format!(
            "{}: {psnr}{ssim}, {seconds:.2} s against {full:.2} s of {} ({:.2} of the time)",
            self.made.path.display(),
            self.path.display(),
            seconds / full
        )
    }
}
