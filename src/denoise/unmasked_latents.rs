//! The region of a sample outside an inpainting mask, restored after every step.

use ndarray::ArrayD;

use crate::scheduler::Scheduler;

/// The latents of the original image, which a run preserves outside an inpainting mask.
#[derive(Debug, Clone)]
pub struct UnmaskedLatents {
    /// The original latents, `[n, c, h, w]`.
    pub latents: ArrayD<f32>,
    /// The noise that is added to them between steps, of the same shape.
    pub noise: ArrayD<f32>,
    /// 1 for values that the run generates and 0 for values that it preserves, `[n, c, h, w]` in row-major order.
    pub mask: ArrayD<f32>,
}

impl UnmaskedLatents {
    /// Restores the original latents in `sample` outside the mask, noised to the level of the step `next`, or without
    /// noise if no step follows. `buffer` has the length of the sample.
    pub fn restore(&self, scheduler: &dyn Scheduler, next: Option<usize>, sample: &mut [f32], buffer: &mut [f32]) {
        let latents = self.latents.as_slice().unwrap_or_default();
        match (next, self.noise.as_slice()) {
            (Some(next), Some(noise)) => scheduler.add_noise(next, latents, noise, buffer),
            _ => buffer.copy_from_slice(latents),
        }
        for ((x, k), m) in sample.iter_mut().zip(&*buffer).zip(&self.mask) {
            *x = (1.0 - m) * k + m * *x;
        }
    }
}
