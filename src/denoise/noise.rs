//! One generator a picture, so that a picture does not depend on its neighbours in the batch.

use crate::rng::TorchCpu;
use crate::scheduler::Noise;

/// The generators of a batch: picture `i` draws from the stream seeded with its own seed.
pub struct BatchNoise {
    generators: Vec<TorchCpu>,
}

impl BatchNoise {
    /// Seeds one generator for each of `seeds`.
    pub fn new(seeds: &[u64]) -> Self {
        Self { generators: seeds.iter().map(|&seed| TorchCpu::new(seed)).collect() }
    }

    /// Fills `out` from the stream of picture `image` of the batch.
    pub fn draw(&mut self, image: usize, out: &mut [f32]) {
        if let Some(generator) = self.generators.get_mut(image) {
            generator.normal(out);
        }
    }
}

impl Noise for BatchNoise {
    fn fill(&mut self, out: &mut [f32]) {
        let each = out.len() / self.generators.len().max(1);
        for (generator, part) in self.generators.iter_mut().zip(out.chunks_mut(each.max(1))) {
            generator.normal(part);
        }
    }
}
