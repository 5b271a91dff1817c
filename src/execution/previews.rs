//! Watching a batch's steps, and showing previews of what it is at.

use std::time::{Duration, Instant};

use ndarray::{Axis, Slice};

use super::event::{ExecutionEvent, Observer};
use super::interrupt::report;
use crate::denoise::{Step, StepWatcher};
use crate::error::{Error, Result};
use crate::graph_cache::GraphCache;
use crate::image;
use crate::session::Cancel;
use crate::tiles::Tiles;
use crate::vae::Preview;

/// Tells an observer of a batch's steps, with previews between them where there are to be any.
pub(super) struct Watching<'a> {
    pub observer: &'a mut Observer<'a>,
    /// The index of the batch's first image.
    pub first: usize,
    /// Images of the whole request.
    pub of: usize,
    /// The maker of previews, and the number of steps between two.
    pub preview: Option<(&'a mut Preview, usize)>,
    /// The tiles in which a decoder works.
    pub tiles: Option<Tiles>,
    /// The cache that the graphs may be from.
    pub cache: Option<&'a GraphCache>,
    pub cancel: &'a Cancel,
    /// Calls seen.
    pub calls: usize,
    /// The time that previews took.
    pub took: Duration,
}

impl StepWatcher for Watching<'_> {
    /// The last step needs no preview: the image itself follows.
    fn wants_x0(&mut self, call: usize, calls: usize, order: usize) -> bool {
        let is_its_turn = |every: usize| call < calls && call.is_multiple_of(every.saturating_mul(order).max(1));
        self.preview.as_ref().is_some_and(|&(_, every)| is_its_turn(every))
    }

    fn wants_sample(&self) -> bool {
        false
    }

    fn observe(&mut self, mut step: Step<'_>) -> Result<()> {
        self.calls = step.call;
        let (call, calls, x0) = (step.call, step.calls, step.x0.take());
        report(self.observer, self.cancel, ExecutionEvent::Step { first: self.first, of: self.of, step })?;
        let (Some((preview, _)), Some(x0)) = (&mut self.preview, x0) else { return Ok(()) };
        // A preview is an image too: none is made by a damaged graph.
        self.cache.map_or(Ok(()), |cache| cache.wait_checked(self.cancel))?;
        for row in 0..x0.shape().first().copied().unwrap_or_default() {
            let started = Instant::now();
            let one = x0.slice_axis(Axis(0), Slice::from(row..=row));
            let made = preview.image(one, self.tiles, self.cancel);
            let made = made.and_then(|pixels| image::from_tensor(pixels.view()));
            self.took += started.elapsed();
            let event = match &made {
                Ok(pixels) => ExecutionEvent::Preview { index: self.first + row, of: self.of, call, calls, pixels },
                Err(Error::Interrupted { .. }) => return self.cancel.check(),
                Err(error) => {
                    // The image does not hang on it.
                    self.preview = None;
                    let warning = format!("there are no more previews of this batch: {error}");
                    return report(self.observer, self.cancel, ExecutionEvent::Warning(warning));
                }
            };
            report(self.observer, self.cancel, event)?;
        }
        Ok(())
    }
}
