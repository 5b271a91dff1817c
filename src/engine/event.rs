//! Events of opening and running a pipeline.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;

use super::Image;
use crate::execution::{ComponentVerification, Timings};
use crate::session::FetchEvent;

/// Something that happened while a pipeline was opened or run, in the order in which it happens. Events own what they hold
/// and can be serialized: an object whose `event` names the variant.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// ONNX Runtime is fetched, which happens once.
    Fetch {
        /// The progress.
        progress: FetchEvent,
    },
    /// The next events are about one of several models in a row.
    Stage {
        /// The key of its table, such as `stage[0]`, or `base` for the file's own tables.
        key: String,
        /// Its number, counted from 1.
        number: usize,
        /// The number of models.
        total: usize,
    },
    /// A graph is about to be optimized for this machine, which happens once.
    Optimizing {
        /// The component, such as `unet`.
        component: String,
        /// The room that it will take in the graph cache, roughly, in bytes.
        bytes: u64,
        /// Its folder in the graph cache.
        folder: PathBuf,
    },
    /// Another process optimizes the same graph.
    WaitingForOptimized {
        /// The component.
        component: String,
    },
    /// The ways of batching the denoiser are about to be measured, which happens once.
    Measuring {
        /// The denoiser.
        component: String,
    },
    /// A component is about to be run on its provider and on the CPU, to compare them.
    Verifying {
        /// The component.
        component: String,
    },
    /// A component was compared with the CPU, now or in an earlier run ([`ComponentVerification::to_json`]).
    Verified(ComponentVerification),
    /// A graph is about to be opened.
    Opening {
        /// The component.
        component: String,
        /// The size of its weights in bytes.
        weight_bytes: u64,
        /// The size of the weights opened before it, in bytes.
        opened_bytes: u64,
        /// The size of all weights of the pipeline, in bytes.
        total_bytes: u64,
    },
    /// A graph was opened.
    Loading {
        /// The component.
        component: String,
        /// The seconds that it took.
        seconds: f64,
        /// The number of its nodes that each provider took, by the provider's name in pipeline.toml.
        nodes: BTreeMap<String, usize>,
    },
    /// A batch is about to be prepared: prompts encoded, noise drawn.
    Preparing {
        /// The index of its first image.
        image: usize,
        /// The number of images in the batch.
        images: usize,
        /// The number of images of the request.
        total: usize,
    },
    /// The first call of the denoiser for a batch is about to be made.
    Denoising {
        /// The index of its first image.
        image: usize,
        /// The number of images of the request.
        total: usize,
    },
    /// A step of a batch is done.
    Step {
        /// The index of the batch's first image.
        image: usize,
        /// The number of images in the batch.
        images: usize,
        /// The number of images of the request.
        total: usize,
        /// The step, counted from 1; a scheduler of second order has two a step of the request.
        step: usize,
        /// The steps of this batch.
        steps: usize,
        /// The model's time at this step.
        timestep: f64,
        /// Seconds since the step before, or since denoising began.
        seconds: f64,
    },
    /// A preview of an image; the run does not depend on it.
    Preview {
        /// The index of the image.
        image: usize,
        /// The step, counted from 1.
        step: usize,
        /// Width in pixels; a linear preview has one pixel a latent.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Rows from the top, three bytes a pixel; in base64 when serialized.
        #[serde(serialize_with = "base64")]
        rgb: Vec<u8>,
    },
    /// The latents of an image are about to be decoded.
    Decoding {
        /// The index of the image.
        image: usize,
        /// The number of images of the request.
        total: usize,
    },
    /// An image is finished: the last stage's, or one that a `[[stage]]` goes on with and the file keeps
    /// ([`Image::is_final`]).
    Image(Box<Image>),
    /// Something that deserves attention, although the run goes on.
    Warning {
        /// One sentence.
        text: String,
    },
    /// The run is over.
    Done {
        /// The seconds of its parts.
        timings: Timings,
    },
}

impl Event {
    /// Returns the event as a JSON object without pixels and records, for logs and for programs in other languages, which
    /// get those otherwise.
    pub fn to_json(&self) -> String {
        let object = match self {
            Self::Preview { image, step, width, height, .. } => {
                json!({ "event": "preview", "image": image, "step": step, "width": width, "height": height })
            }
            Self::Image(image) => json!({
                "event": "image", "index": image.index(), "seed": image.seed(), "width": image.width(),
                "height": image.height(), "seconds": image.seconds(), "is_final": image.is_final(),
            }),
            // Whatever else there is can be serialized.
            other => serde_json::to_value(other).unwrap_or_default(),
        };
        object.to_string()
    }
}

fn base64<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    use base64::Engine;
    serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
}
