//! DeepCache: Ma et al. 2023, "DeepCache: Accelerating Diffusion Models for Free", arXiv 2312.00858.
//!
//! The output of a UNet's deep layers changes little from step to step. All layers run at every `interval`th step; at
//! the others only the layers outside one long skip connection run, on the stored output of the deep layers: the
//! paper's uniform 1:N inference (section 3.2), with branches numbered as in its authors' code, 0 the outermost.

use super::{CacheMethod, CacheMethodEntry, CacheParameter, EvaluationPosition, StepCache};
use crate::denoise::RunInterval;

pub(super) const ENTRY: CacheMethodEntry = CacheMethodEntry {
    name: "deepcache",
    about: "Runs the deep layers of a UNet only at every few steps, and the shallow layers at all (arXiv 2312.00858).",
    depends_on_image: false,
    runs_shallow_layers: true,
    keys: &[
        CacheParameter::integer("interval", 3, 2, 1000),
        CacheParameter::integer("branch", 0, 0, 1000),
        CacheParameter::number("start", 0.0, 0.0, 1.0),
        CacheParameter::number("end", 1.0, 0.0, 1.0),
    ],
    build,
};

#[derive(Debug)]
struct DeepCache {
    interval: usize,
    range: RunInterval,
    /// Steps since all layers last ran; `None` if they have not yet.
    since: Option<usize>,
}

fn build(cache: &StepCache) -> Box<dyn CacheMethod> {
    Box::new(DeepCache {
        interval: cache.integer("interval"),
        range: RunInterval { start: cache.number("start"), end: cache.number("end") },
        since: None,
    })
}

impl CacheMethod for DeepCache {
    fn should_skip(&mut self, at: EvaluationPosition, _: &[f32]) -> bool {
        self.since = self.since.map(|since| since + 1);
        self.since.is_some_and(|since| since < self.interval) && self.range.holds_part(at.step, at.steps)
    }

    fn forecast(&self, _: EvaluationPosition, _: &[f32], _: &mut [f32]) -> bool {
        false
    }

    fn observe(&mut self, at: EvaluationPosition, _: &[f32], _: &[f32]) {
        if at.evaluation == 0 {
            self.since = Some(0);
        }
    }

    fn clear(&mut self) {
        self.since = None;
    }
}
