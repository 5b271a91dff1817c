//! What is known of published families, for directories that do not say it.

/// The families whose constants differ, told apart where no configuration gives the constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    StableDiffusion,
    Xl,
    Upscaler,
    StableDiffusion3,
    Flux,
}

impl Family {
    /// The name, the scaling factor and the shift factor of the family's published first stage.
    pub(super) fn constants(self) -> (&'static str, f64, f64) {
        match self {
            Self::StableDiffusion => ("Stable Diffusion 1 and 2", 0.18215, 0.0),
            Self::Xl => ("Stable Diffusion XL", 0.13025, 0.0),
            Self::Upscaler => ("the x4 upscaler", 0.08333, 0.0),
            Self::StableDiffusion3 => ("Stable Diffusion 3", 1.5305, 0.0609),
            Self::Flux => ("Flux", 0.3611, 0.1159),
        }
    }
}
