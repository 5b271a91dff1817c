//! DeepCache: Ma et al. 2023, "DeepCache: Accelerating Diffusion Models for Free", arXiv 2312.00858.
//!
//! What the deep layers of a UNet make changes little from step to step. All of them run at every `interval`th step, and at
//! those between only the layers outside of one long skip connection, on what the deep ones gave: the paper's uniform
//! 1:N inference (section 3.2), with the branches counted as in its authors' code, 0 the outermost.

use super::{At, Entry, Key, Method, StepCache};
use crate::denoise::RunInterval;

pub(super) const ENTRY: Entry = Entry {
    name: "deepcache",
    about: "Runs the deep layers of a UNet at every few steps, and at the others the shallow ones alone (arXiv 2312.00858).",
    decides_by_image: false,
    runs_outer_layers: true,
    keys: &[
        Key::whole("interval", 3, 2, 1000),
        Key::whole("branch", 0, 0, 1000),
        Key::number("start", 0.0, 0.0, 1.0),
        Key::number("end", 1.0, 0.0, 1.0),
    ],
    build,
};

#[derive(Debug)]
struct DeepCache {
    interval: usize,
    share: RunInterval,
    /// The steps since all layers were run, where they were.
    since: Option<usize>,
}

fn build(cache: &StepCache) -> Box<dyn Method> {
    Box::new(DeepCache {
        interval: cache.whole("interval"),
        share: RunInterval { start: cache.number("start"), end: cache.number("end") },
        since: None,
    })
}

impl Method for DeepCache {
    fn skips(&mut self, at: At, _: &[f32]) -> bool {
        self.since = self.since.map(|since| since + 1);
        self.since.is_some_and(|since| since < self.interval) && self.share.holds_part(at.step, at.of)
    }

    fn forecast(&self, _: At, _: &[f32], _: &mut [f32]) -> bool {
        false
    }

    fn learn(&mut self, at: At, _: &[f32], _: &[f32]) {
        if at.stage == 0 {
            self.since = Some(0);
        }
    }

    fn forget(&mut self) {
        self.since = None;
    }
}
