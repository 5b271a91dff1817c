//! The contact sheet of `ldm-ort run --sweep`: one image of all combinations, with labels, for each prompt.

mod canvas;
mod grid;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use self::canvas::Canvas;
use self::grid::{Grid, Labels};
use super::requests::Sweep;
use crate::engine::{Image, Saver};
use crate::error::Result;
use crate::image::{Rgb8, resize};

/// The end of a sheet's name.
const SUFFIX: &str = "-sweep";

/// The sheets of a run, one per prompt. Images are reduced to the size of their cells as they are added.
pub(super) struct ContactSheets {
    labels: Labels,
    grid: Grid,
    /// The number of requests that began.
    begun: usize,
    /// Images per prompt of the request in progress.
    images: usize,
    /// The sheets by the number of their prompt.
    sheets: BTreeMap<usize, Sheet>,
}

/// The images of one prompt.
struct Sheet {
    /// Prompt, seed and index of its first image, for its name.
    prompt: String,
    seed: u64,
    index: usize,
    cells: Vec<Cell>,
}

/// An image of a sheet.
struct Cell {
    /// The number of the combination.
    combination: usize,
    /// The number of the image among those of its prompt and its combination.
    copy: usize,
    seed: u64,
    pixels: Rgb8,
}

impl ContactSheets {
    /// Sheets for these sweeps, with at most `copies` images of each prompt and combination. `None` if a sheet would have
    /// too many images to show any.
    pub(super) fn new(sweeps: Vec<Sweep>, copies: usize) -> Option<Self> {
        let labels = Labels { sweeps };
        let grid = Grid::fitting(&labels, copies)?;
        Some(Self { labels, grid, begun: 0, images: 1, sheets: BTreeMap::new() })
    }

    /// Notes that the next request begins, which makes `images` images of each prompt.
    pub(super) fn begin_request(&mut self, images: usize) {
        self.begun += 1;
        self.images = images.max(1);
    }

    /// Adds an image of the request in progress; `first_index` is the number of images of those before it.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) if the image cannot be resized.
    pub(super) fn add(&mut self, image: &Image, first_index: usize) -> Result<()> {
        let combinations = self.labels.combinations();
        let request = self.begun.saturating_sub(1);
        // Requests of --same-seed have one prompt each; all others have all prompts.
        let prompt = request / combinations + image.index() / self.images;
        let cell = Cell {
            combination: request % combinations,
            copy: image.index() % self.images,
            seed: image.seed(),
            pixels: reduce(image.pixels(), self.grid.largest_cell())?,
        };
        let sheet = self.sheets.entry(prompt).or_insert_with(|| Sheet {
            prompt: image.prompt().to_owned(),
            seed: image.seed(),
            index: first_index + image.index(),
            cells: Vec::new(),
        });
        sheet.cells.push(cell);
        Ok(())
    }

    /// Writes the sheets, each whole or not at all, under the name of its first image with `-sweep` at the end, and returns
    /// their paths.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if one cannot be written.
    pub(super) fn write(&self, saver: &Saver) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        let content = [("Description", self.labels.summary())];
        for sheet in self.sheets.values() {
            let Some(image) = self.draw(sheet) else { continue };
            paths.push(saver.save_pixels(&image, (&sheet.prompt, sheet.seed, sheet.index), SUFFIX, &content)?);
        }
        Ok(paths)
    }

    /// Draws a sheet; `None` if it has no image.
    fn draw(&self, sheet: &Sheet) -> Option<Rgb8> {
        let widest = sheet.cells.iter().map(|cell| cell.pixels.width()).max()?;
        let highest = sheet.cells.iter().map(|cell| cell.pixels.height()).max()?;
        let seeds: Vec<_> = (0..self.grid.copies).map(|copy| sheet.copy_label(copy)).collect();
        let layout = self.grid.lay_out(&self.labels, &seeds, (widest, highest));
        let mut canvas = Canvas::new(layout.size);
        for cell in &sheet.cells {
            canvas.paste(&cell.pixels, layout.cell(self.grid.place(cell.combination, cell.copy)));
        }
        for text in &layout.texts {
            canvas.text(&text.text, text.at, layout.scale);
        }
        canvas.into_image()
    }
}

impl Sheet {
    /// The label of the images with a number among those of their combination: their seed, or the number if their seeds
    /// differ.
    fn copy_label(&self, copy: usize) -> String {
        let mut seeds = self.cells.iter().filter(|cell| cell.copy == copy).map(|cell| cell.seed);
        let first = seeds.next();
        match first.filter(|&first| seeds.all(|seed| seed == first)) {
            Some(seed) => format!("seed = {seed}"),
            None => format!("image = {}", copy + 1),
        }
    }
}

/// Reduces an image to fit a size, with the same ratio of its sides; a smaller image stays.
fn reduce(image: &Rgb8, (width, height): (usize, usize)) -> Result<Rgb8> {
    let ratio = (width as f64 / image.width() as f64).min(height as f64 / image.height() as f64);
    if ratio >= 1.0 {
        return Ok(image.clone());
    }
    let side = |from: usize, most: usize| ((from as f64 * ratio).round() as usize).clamp(1, most);
    resize(image, side(image.width(), width), side(image.height(), height))
}
