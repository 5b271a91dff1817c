//! The steps of a run: the trait of all schedulers, and the noise that their steps add.

use crate::error::Result;

/// Unit normal noise for a batch, drawn per image from its own generator.
pub trait Noise {
    /// Fills `out` with unit normal values for all images of the batch, one after the other.
    fn fill(&mut self, out: &mut [f32]);

    /// Returns the seed of image `image` of the batch.
    fn seed(&self, image: usize) -> u64;

    /// Fills `out` with the first values of a new generator of the same stream with this seed, for schedulers that draw
    /// from many seeds.
    fn fill_seeded(&self, seed: u64, out: &mut [f32]);
}

/// The schedule and solver of one run.
///
/// A run goes from noise to an image. The inverse classes go from an image to the noise that generates it: their
/// timesteps rise, and the first sample is the image's latents.
///
/// A scheduler is built for a fixed number of steps. The argument `step` is an index into [`Scheduler::timesteps`],
/// which has one entry per model evaluation. A run visits `begin..timesteps().len()` in order; `begin` is 0, or for
/// image-to-image the index passed to [`Scheduler::add_noise`], a multiple of [`Scheduler::order`]. A scheduler serves
/// one run: multistep solvers keep earlier model outputs, beginning with the first [`Scheduler::step`].
///
/// Samples are flat slices: `images` images of equal size, one after the other.
pub trait Scheduler: Send {
    /// Returns the timestep of each model evaluation, in order.
    fn timesteps(&self) -> &[f64];

    /// Returns the factor that scales unit normal noise to the first sample; 1 for inverse schedulers.
    fn init_noise_sigma(&self) -> f64;

    /// Returns the number of model evaluations per step: 2 for second-order methods such as Heun.
    fn order(&self) -> usize {
        1
    }

    /// Scales the sample `x` to the model's input at `step` and writes it to `out`.
    fn scale_model_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        let _ = step;
        out.copy_from_slice(x);
    }

    /// Advances the sample `x` from `step` to the next, given the model output. Draws from `noise` exactly when and as
    /// often as diffusers' pipeline does.
    ///
    /// `model_output` has the length of `x`, or twice that if the model predicts variances too: then the second half of
    /// each image's output holds them.
    ///
    /// # Errors
    /// [`Error::Scheduler`](crate::Error::Scheduler) if the model output contradicts the configuration, for example if it has no variances with
    /// a learned `variance_type`.
    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()>;

    /// Noises the original sample `x0` to the level of `step` with unit normal `noise`, and writes it to `out`.
    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]);

    /// Writes the predicted original sample (x0) to `out`, given the model output at `step` and the sample `x` before
    /// that step: diffusers' `pred_original_sample`, neither clipped nor thresholded. Does not change the run.
    ///
    /// `model_output` has the length of `x`, without variances.
    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]);
}
