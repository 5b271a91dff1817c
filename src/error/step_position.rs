//! The step at which a run stopped.

/// A step of a run and the images it belongs to. Displayed as `step 7 of 20`, or as `step 7 of 20, image 2 of 4` if the
/// run generates several images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepPosition {
    /// The step, counted from 1.
    pub step: usize,
    /// The steps of this batch.
    pub steps: usize,
    /// The index of the batch's first image, counted from 0.
    pub first_image: usize,
    /// The images of the batch.
    pub images: usize,
    /// The images of the whole run.
    pub total_images: usize,
}

impl std::fmt::Display for StepPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { step, steps, first_image, images, total_images } = *self;
        write!(f, "step {step} of {steps}")?;
        match (images, total_images) {
            (_, ..=1) => Ok(()),
            (..=1, _) => write!(f, ", image {} of {total_images}", first_image + 1),
            _ => write!(f, ", images {} to {} of {total_images}", first_image + 1, first_image + images),
        }
    }
}
