//! One generator per image, so that no image depends on its neighbors in the batch.

use crate::rng::{Generator, Stream};
use crate::scheduler::Noise;

/// The generators of a batch: each image has its own, seeded with its own seed.
pub struct BatchNoise {
    stream: Stream,
    images: Vec<(u64, Box<dyn Generator>)>,
}

impl BatchNoise {
    /// Creates one generator of `stream` for each seed.
    pub fn new(stream: Stream, seeds: &[u64]) -> Self {
        Self { stream, images: seeds.iter().map(|&seed| (seed, stream.seeded(seed))).collect() }
    }

    /// Fills `out` from the generator of image `image` of the batch.
    pub fn draw(&mut self, image: usize, out: &mut [f32]) {
        if let Some((_, generator)) = self.images.get_mut(image) {
            generator.normal(out);
        }
    }
}

impl Noise for BatchNoise {
    fn fill(&mut self, out: &mut [f32]) {
        let each = out.len() / self.images.len().max(1);
        for ((_, generator), part) in self.images.iter_mut().zip(out.chunks_mut(each.max(1))) {
            generator.normal(part);
        }
    }

    fn seed(&self, image: usize) -> u64 {
        self.images.get(image).map_or(0, |(seed, _)| *seed)
    }

    fn fill_seeded(&self, seed: u64, out: &mut [f32]) {
        self.stream.seeded(seed).normal(out);
    }
}
