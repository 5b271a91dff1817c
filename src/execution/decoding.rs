//! Decoding of images, and the fallbacks if no memory is left for it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use ndarray::{ArrayD, ArrayViewD, Axis, Slice};

use super::batch::{DenoisedBatch, ModelRun};
use super::event::{ExecutionEvent, Observer};
use super::finished_image::Timings;
use super::interrupt::report;
use super::parts::{Decoding, Opener};
use super::short_memory::{unloaded, without_hint};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Rgb8};
use crate::plan::RunSettings;

/// A decoded image.
pub(super) struct DecodedImage {
    pub(super) pixels: Rgb8,
    /// The side in latents of the tiles in which it was decoded; `None` if it was decoded whole.
    pub(super) tile: Option<usize>,
    /// The request's settings as it was run.
    pub(super) settings: Arc<RunSettings>,
    pub(super) seconds: f64,
}

/// Pixels `[1, 3, h, w]` in about [-1, 1], and the side in latents of the tiles that they were decoded in.
type TiledPixels = (ArrayD<f32>, Option<usize>);

impl ModelRun<'_> {
    /// Makes the image of one row of a batch.
    pub(super) fn decode(
        &mut self,
        batch: &DenoisedBatch,
        row: usize,
        observer: &mut Observer<'_>,
        timings: &mut Timings,
    ) -> Result<DecodedImage> {
        let opened_before = timings.open;
        let started = Instant::now();
        let image = LatentImage {
            latents: batch.latents.slice_axis(Axis(0), Slice::from(row..=row)),
            index: batch.indices.start + row,
            of: self.request.total_images(),
        };
        let (pixels, tile) = Decoder { run: self, image, observer, timings }.decode()?;
        let pixels = match &batch.paste {
            Some(paste) => paste.into(&pixels)?,
            None => pixels,
        };
        let seconds = started.elapsed().as_secs_f64() - (timings.open - opened_before);
        timings.decode += seconds;
        timings.tiled += usize::from(tile.is_some());
        if row + 1 == batch.indices.len() {
            self.release(|parts| &mut parts.decoding);
        }
        self.wait_checked()?;
        let settings = match self.smaller_tile() {
            Some(side) => Arc::new(batch.settings.with_decode_tile(side)),
            None => Arc::clone(&batch.settings),
        };
        Ok(DecodedImage { pixels: image::from_tensor(pixels.view())?, tile, settings, seconds })
    }

    /// The side of the tiles that an earlier image of the run needed.
    fn smaller_tile(&self) -> Option<usize> {
        self.pool.decode_tile(&self.plan.model)
    }

    /// Closes all graphs, from now on each as soon as it has done its work. Returns false if none was open.
    pub(super) fn unload_others(&mut self) -> bool {
        let is_any_open = self.parts.beginning.is_some() || self.parts.denoising.is_some() || self.pool.has_open();
        (self.parts.beginning, self.parts.denoising) = (None, None);
        self.pool.close_others(&[]);
        self.pool.set_short_of_memory();
        self.stay = false;
        is_any_open
    }
}

/// The latents `[1, c, h/f, w/f]` of an image, its index in the request and the request's images.
struct LatentImage<'l> {
    latents: ArrayViewD<'l, f32>,
    index: usize,
    of: usize,
}

/// The decoding of one image, with the fallbacks.
struct Decoder<'d, 'r, 'o> {
    run: &'d mut ModelRun<'r>,
    image: LatentImage<'d>,
    observer: &'d mut Observer<'o>,
    timings: &'d mut Timings,
}

impl Decoder<'_, '_, '_> {
    fn decode(&mut self) -> Result<TiledPixels> {
        match self.attempt(self.run.smaller_tile()) {
            Err(error) if error.kind() == ErrorKind::Memory => self.decode_with_less(error),
            decoded => decoded,
        }
    }

    /// Decodes once, in tiles of this side if one is given.
    fn attempt(&mut self, side: Option<usize>) -> Result<TiledPixels> {
        let LatentImage { latents, index, of } = &self.image;
        let (run, index, of) = (&mut *self.run, *index, *of);
        let (request, cancel) = (run.request, run.cancel);
        let plan = match run.pool.is_short_of_memory() {
            true => Cow::Owned(run.plan.with_less_memory(side)),
            false => Cow::Borrowed(run.plan),
        };
        let opening = Instant::now();
        let mut opener = Opener::new(&plan, run.runtime, run.pool, cancel, self.observer);
        let Decoding { decoder } = opener.decoding(&mut run.parts)?;
        self.timings.open += opening.elapsed().as_secs_f64();
        report(self.observer, cancel, ExecutionEvent::Decoding { index, of })?;
        let [_, height, width] = plan.model.sample_shape(request.width, request.height);
        let tiles = plan.decoding_tiles().filter(|tiles| tiles.is_split(height, width));
        match (decoder, tiles) {
            (Some((_, decoder)), None) => Ok((decoder.decode(latents.view(), cancel)?, None)),
            (Some((_, decoder)), Some(tiles)) => {
                Ok((decoder.decode_tiled(latents.view(), tiles, cancel)?, Some(tiles.size)))
            }
            (None, _) => Ok((latents.to_owned(), None)),
        }
    }

    /// Decodes an image for which there was no memory: once more after the other graphs are unloaded, which leaves the image
    /// as it is, and then in smaller and smaller tiles. Later images of the run begin with what succeeds.
    fn decode_with_less(&mut self, error: Error) -> Result<TiledPixels> {
        self.run.parts.decoding = None;
        let known = self.run.smaller_tile();
        let has_unloaded = self.run.unload_others();
        if has_unloaded || self.run.plan.decodes_on_cpu() {
            self.warn(unloaded(&error, "the image is decoded again without ONNX Runtime's arena"))?;
            match self.attempt(known) {
                Err(again) if again.kind() == ErrorKind::Memory => self.run.parts.decoding = None,
                decoded => return decoded,
            }
        }
        self.decode_in_tiles(error)
    }

    fn decode_in_tiles(&mut self, error: Error) -> Result<TiledPixels> {
        let sides = match self.run.pool.may_tile() {
            true => self.run.plan.smaller_decode_tiles(self.run.smaller_tile()),
            false => Vec::new(),
        };
        let mut tried = Vec::new();
        for side in sides {
            let pixels = side * self.run.plan.model.spatial_factor;
            match self.attempt(Some(side)) {
                Err(again) if again.kind() == ErrorKind::Memory => {
                    self.run.parts.decoding = None;
                    tried.push(format!("{pixels}×{pixels}"));
                }
                Err(other) => return Err(other),
                Ok(decoded) => {
                    self.run.pool.set_decode_tile(&self.run.plan.model, side);
                    self.warn(format!(
                        "{}\n  the image is decoded in tiles of {pixels}×{pixels} pixels instead, each of which is normalized by \
                         itself: it differs a little from one decoded whole. run.decode_tile = {side} asks for that from the \
                         start, run.decode_tile = 0 forbids it",
                        without_hint(&error)
                    ))?;
                    return Ok(decoded);
                }
            }
        }
        Err(with_tried(error, &tried))
    }

    fn warn(&mut self, warning: String) -> Result<()> {
        report(self.observer, self.run.cancel, ExecutionEvent::Warning(warning))
    }
}

/// Adds the sizes of tiles for which there was no memory either.
fn with_tried(error: Error, tried: &[String]) -> Error {
    match error {
        Error::Memory { problem, help } if !tried.is_empty() => {
            let problem = format!("{problem}; nor is there any for tiles of {} pixels", tried.join(" and "));
            Error::Memory { problem, help }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_tiles_that_were_tried() {
        let error =
            || Error::Memory { problem: "vae_decoder: no memory is left".into(), help: "make smaller images".into() };
        let tried = ["512×512".to_owned(), "256×256".to_owned()];
        let text = with_tried(error(), &tried).to_string();
        let expected = "memory: vae_decoder: no memory is left; nor is there any for tiles of 512×512 and 256×256 pixels\n  hint: \
                        make smaller images";
        assert_eq!(text, expected);
        assert_eq!(with_tried(error(), &[]).to_string(), error().to_string());
        assert!(!without_hint(&error()).contains("hint"));
    }
}
