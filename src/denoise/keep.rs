//! Parts of a sample that are given, and put back after every step.

use ndarray::ArrayD;

use crate::scheduler::Scheduler;

/// What a run leaves as it is: the image outside of an inpainting mask.
#[derive(Debug, Clone)]
pub struct Keep {
    /// The latents that are kept, `[n, c, h, w]`.
    pub latents: ArrayD<f32>,
    /// The noise that they are mixed with for the steps between, of the same shape.
    pub noise: ArrayD<f32>,
    /// 1 where the run draws and 0 where it keeps, `[n, c, h, w]` in row-major order.
    pub mask: ArrayD<f32>,
}

impl Keep {
    /// Puts the kept latents back into `sample`, as noisy as the sample is at the step `next`; without noise where no
    /// step follows. `kept` is room of the sample's length.
    pub fn restore(&self, scheduler: &dyn Scheduler, next: Option<usize>, sample: &mut [f32], kept: &mut [f32]) {
        let latents = self.latents.as_slice().unwrap_or_default();
        match (next, self.noise.as_slice()) {
            (Some(next), Some(noise)) => scheduler.add_noise(next, latents, noise, kept),
            _ => kept.copy_from_slice(latents),
        }
        for ((x, k), m) in sample.iter_mut().zip(&*kept).zip(&self.mask) {
            *x = (1.0 - m) * k + m * *x;
        }
    }
}
