//! The input of a stage: images or latents of the stage before it.

use crate::bundle::{Autoencoder, Bundle, DenoiserSignature, Role};
use crate::error::{Error, Result};
use crate::spec::{Spec, StageInput};

/// The space of a model's latents: two models of one such space can go on with each other's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LatentSpace {
    autoencoder: Autoencoder,
    channels: usize,
    scaling_factor: f64,
    shift_factor: f64,
    spatial_factor: usize,
}

impl LatentSpace {
    pub(super) fn of(bundle: &Bundle) -> Self {
        let facts = &bundle.facts;
        Self {
            autoencoder: facts.autoencoder,
            channels: facts.latent_channels.value,
            scaling_factor: facts.scaling_factor.value,
            shift_factor: facts.shift_factor.value,
            spatial_factor: facts.spatial_factor.value,
        }
    }
}

impl std::fmt::Display for LatentSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { autoencoder, channels, scaling_factor, shift_factor, spatial_factor } = self;
        write!(f, "{autoencoder}, {channels} channels, 1/{spatial_factor} of a side, scaled by {scaling_factor}")?;
        if *shift_factor == 0.0 { Ok(()) } else { write!(f, " after {shift_factor} is subtracted") }
    }
}

/// The results of the stages before a stage, as far as those could be planned.
#[derive(Debug, Default)]
pub(super) struct PreviousStage {
    /// The form that the pipeline file asks for.
    pub(super) asked: Option<StageInput>,
    /// True if the stage's prompts are those of the file's own tables.
    pub(super) shares_prompts: bool,
    /// The latents of the stage before.
    pub(super) space: Option<LatentSpace>,
    /// Width and height of its images.
    pub(super) size: Option<(usize, usize)>,
    /// The seed of the file's own run.
    pub(super) seed: Option<u64>,
}

impl PreviousStage {
    /// Decides the form in which the stage gets its input, and writes that into its task.
    pub(super) fn take(&self, spec: &mut Spec, bundle: &Bundle) -> Result<StageInput> {
        self.leave_prompts_out(spec, bundle);
        let obstacle = self.obstacle(spec, bundle);
        let hand = match (self.asked, obstacle) {
            (Some(StageInput::Latents), Some(obstacle)) => {
                return Err(Error::input("input", obstacle, "leave it out, or set input = \"image\""));
            }
            (Some(asked), _) => asked,
            (None, None) => StageInput::Latents,
            (None, Some(_)) => StageInput::Image,
        };
        spec.task.start_from_stage(hand == StageInput::Latents);
        Ok(hand)
    }

    /// Returns the reason why the stage cannot start from latents, if any.
    fn obstacle(&self, spec: &Spec, bundle: &Bundle) -> Option<String> {
        if !spec.task.accepts_latents() {
            return Some(format!("{} begins with an image, and not with latents", spec.task.name()));
        }
        let own = LatentSpace::of(bundle);
        if let Some(space) = self.space.as_ref().filter(|space| **space != own) {
            return Some(format!("the latents before it ({space}) are not those of its model ({own})"));
        }
        let (width, height) = self.size?;
        let wanted = (spec.run.width.unwrap_or(width), spec.run.height.unwrap_or(height));
        if wanted != (width, height) {
            let (w, h) = wanted;
            return Some(format!(
                "latents keep their size, and {w}×{h} is asked for where {width}×{height} is handed on"
            ));
        }
        let step = bundle.facts.size_multiple();
        let fits = width % step == 0 && height % step == 0;
        (!fits).then(|| format!("{width}×{height} is handed on, and its model needs multiples of {step}"))
    }

    /// Leaves out prompts that the stage has from the file's own task, where its model reads none and the task does
    /// without.
    fn leave_prompts_out(&self, spec: &mut Spec, bundle: &Bundle) {
        let reads_none = || {
            let signature = bundle.denoiser().and_then(DenoiserSignature::resolve);
            signature.is_ok_and(|signature| !signature.takes(Role::Context))
        };
        if !self.shares_prompts || !reads_none() {
            return;
        }
        let images = spec.task.groups() * spec.run.images;
        if spec.task.remove_prompt() {
            spec.run.images = images;
        }
    }
}
