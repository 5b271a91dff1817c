//! Events of loading and running a pipeline.

use std::collections::BTreeMap;
use std::path::Path;

use super::{ComponentVerification, FinishedImage};
use crate::bundle::ComponentKind;
use crate::denoise::Step;
use crate::image::Rgb8;

/// Something that happened, in the order in which it happens.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExecutionEvent<'a> {
    /// A graph is about to be opened.
    Opening {
        /// The component.
        component: ComponentKind,
        /// True for the denoiser's shallow layers alone, which are a separate graph if a cache runs them.
        is_shallow: bool,
        /// The size of its weights in bytes.
        weight_bytes: u64,
        /// The size of the weights opened before it.
        opened_bytes: u64,
        /// The size of all the pipeline's weights.
        of_bytes: u64,
    },
    /// A graph is about to be optimized for this machine, which happens once.
    Optimizing {
        /// The component.
        component: ComponentKind,
        /// True for the denoiser's shallow layers alone.
        is_shallow: bool,
        /// About as much room as it will take, in bytes.
        bytes: u64,
        /// The folder that will hold it.
        folder: &'a Path,
    },
    /// Another process optimizes the same graph, and that is waited for.
    WaitingForOptimized {
        /// The component.
        component: ComponentKind,
    },
    /// It is about to be measured which way of running a denoiser's rows is the faster one, which happens once.
    Measuring {
        /// The denoiser.
        component: ComponentKind,
    },
    /// A component is about to be run on its provider and on the CPU, to compare them.
    Verifying {
        /// The component.
        component: ComponentKind,
        /// True for the denoiser's shallow layers alone.
        is_shallow: bool,
    },
    /// A component was compared, now or in an earlier run.
    Verified(&'a ComponentVerification),
    /// A graph was opened.
    Opened {
        /// The component.
        component: ComponentKind,
        /// True for the denoiser's shallow layers alone.
        is_shallow: bool,
        /// The duration.
        seconds: f64,
        /// The number of its nodes that each provider took ([`Placement::by_provider`](crate::session::Placement::by_provider)).
        nodes: BTreeMap<String, usize>,
    },
    /// Something the user should know although the run goes on.
    Warning(String),
    /// A batch is about to be prepared: prompts encoded, noise drawn.
    Preparing {
        /// The index of its first image.
        first: usize,
        /// Its number of images.
        images: usize,
        /// Images of the whole request.
        of: usize,
    },
    /// The first call of the denoiser for a batch is about to be made.
    Denoising {
        /// The index of the batch's first image.
        first: usize,
        /// Images of the whole request.
        of: usize,
    },
    /// A step of a batch was made.
    Step {
        /// The index of the batch's first image.
        first: usize,
        /// Images of the whole request.
        of: usize,
        /// The step.
        step: Step<'a>,
    },
    /// A preview of an image, from the predicted original sample; nothing of the run depends on it.
    Preview {
        /// The image's index.
        index: usize,
        /// Images of the whole request.
        of: usize,
        /// The call of the model that it was made after, counted from 1.
        call: usize,
        /// Calls of this run.
        calls: usize,
        /// Its pixels: as many as the image will have, or where it is made by a linear map one for each latent.
        pixels: &'a Rgb8,
    },
    /// An image's latents are about to be decoded.
    Decoding {
        /// The image's index.
        index: usize,
        /// Images of the whole request.
        of: usize,
    },
    /// An image is finished.
    Image(&'a FinishedImage),
    /// An image is to be kept although a stage goes on with it.
    Kept(&'a FinishedImage),
    /// The events that follow are about one of several models in a row: opening it, or its part of a batch.
    Stage {
        /// The key of its table, such as `stage[0]`, or `base` for the file's own tables.
        key: &'a str,
        /// Its number, counted from 1.
        number: usize,
        /// The number of models.
        of: usize,
    },
}

/// Sees everything that happens. An observer that wants to stop the run cancels its [`Cancel`](crate::Cancel).
pub type Observer<'o> = dyn FnMut(ExecutionEvent<'_>) + 'o;
