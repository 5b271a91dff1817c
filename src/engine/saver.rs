//! Finished images on disk.

use std::path::{Path, PathBuf};

use super::NamePattern;
use crate::error::{Error, Result};
use crate::execution::FinishedImage;
use crate::files;
use crate::image::{ImageFormat, Rgb8, encode_as};
use crate::metadata::Record;

/// Writes images into a folder.
#[derive(Debug, Clone)]
pub struct Saver {
    dir: PathBuf,
    format: ImageFormat,
    pattern: NamePattern,
}

impl Saver {
    /// Creates the folder if there is none, so that a wrong path is known before the work is done, and removes temporary
    /// files that a killed process left there a day ago or earlier.
    ///
    /// # Errors
    /// As [`Saver::check`]; [`Error::Io`] if the folder cannot be created.
    pub fn new(dir: &Path) -> Result<Self> {
        Self::check(dir)?;
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, "creating the folder", e))?;
        files::remove_leftovers(dir);
        Ok(Self { dir: dir.to_path_buf(), format: ImageFormat::default(), pattern: NamePattern::default() })
    }

    /// Chooses the format of files and the pattern of their names.
    pub fn with_form(self, format: ImageFormat, pattern: NamePattern) -> Self {
        Self { format, pattern, ..self }
    }

    /// Requires that images can be written to `dir`, and creates nothing.
    ///
    /// # Errors
    /// [`Error::Input`] naming the file that is in the way, a folder that cannot be written, or a name such as
    /// `image.png`, which is a file's.
    pub fn check(dir: &Path) -> Result<()> {
        const KEY: &str = "output.dir";
        files::require_writable_folder(KEY, dir)?;
        files::require_format(KEY, dir, "", "images are written to a folder, each under a name of its own")
    }

    /// The names that a preview may have of the image that will be saved with this prompt, seed, index and suffix, in order.
    pub fn preview_names(&self, prompt: &str, seed: u64, index: usize, suffix: &str) -> impl Iterator<Item = PathBuf> {
        self.names(self.pattern.fill(&slug(prompt), seed, index) + suffix, ".preview.png")
    }

    /// Writes an image, whole or not at all, and returns its path.
    ///
    /// The name is made of the pattern and of `suffix`, which may be empty; `index` is the image's in the whole run. A file of that name with other
    /// contents is kept, and the new one gets a number: also where several processes write to one folder at once.
    ///
    /// # Errors
    /// [`Error::Io`] if the image cannot be written, for example because the disk is full.
    pub fn save(&self, image: &FinishedImage, index: usize, suffix: &str, record: &Record) -> Result<PathBuf> {
        self.save_pixels(&image.pixels, (&image.prompt, image.seed, index), suffix, &record.chunks()?)
    }

    /// Writes pixels with texts, whole or not at all, and returns their path. Their name is that of an image with this
    /// prompt, seed and index, and `suffix` at its end.
    ///
    /// # Errors
    /// As [`Saver::save`].
    pub(crate) fn save_pixels(
        &self,
        pixels: &Rgb8,
        (prompt, seed, index): (&str, u64, usize),
        suffix: &str,
        texts: &[(&str, String)],
    ) -> Result<PathBuf> {
        let stem = self.pattern.fill(&slug(prompt), seed, index) + suffix;
        let bytes = encode_as(pixels, self.format, texts)?;
        files::write_new_or_same(self.names(stem, self.format.extension()), &bytes)
    }

    /// The names that a file with this stem may have, the plain one first.
    fn names(&self, stem: String, extension: &'static str) -> impl Iterator<Item = PathBuf> {
        let numbered = (2..).map(move |number| format!("-{number}"));
        let dir = &self.dir;
        std::iter::once(String::new()).chain(numbered).map(move |number| dir.join(format!("{stem}{number}{extension}")))
    }
}

/// The part of a file name that tells images apart at a glance: words of the prompt, joined by hyphens.
fn slug(prompt: &str) -> String {
    const LONGEST: usize = 60;
    let mut slug = String::new();
    for word in prompt.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
        let word = word.to_lowercase();
        if !slug.is_empty() && slug.len() + word.len() >= LONGEST {
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        for c in word.chars().filter(|c| c.is_alphanumeric()) {
            if slug.len() + c.len_utf8() > LONGEST {
                break;
            }
            slug.push(c);
        }
    }
    if slug.is_empty() { "image".to_owned() } else { slug }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_short_and_readable() {
        assert_eq!(slug("A red circle, above: a blue square!"), "a-red-circle-above-a-blue-square");
        assert_eq!(slug("  "), "image");
        assert_eq!(slug("../../etc/passwd"), "etc-passwd");
        assert!(slug(&"long ".repeat(50)).len() <= 60);
        assert!(slug(&"x".repeat(500)).len() <= 60);
        assert!(slug(&"𝒳".repeat(500)).len() <= 60);
    }
}
