//! Encodes pixels to latents.

use ndarray::{ArrayD, ArrayViewD, Axis, Slice};

use super::Scaling;
use super::single::{self, Ports};
use crate::bundle::{VaeEncoderKind, VaeEncoderSignature};
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};

/// The distribution to which a KL VAE encodes an image, before scaling.
#[derive(Debug, Clone, PartialEq)]
pub enum Posterior {
    /// A diagonal normal distribution: mean and standard deviation, each `[1, c, h/f, w/f]`.
    Normal {
        /// The mean.
        mean: ArrayD<f32>,
        /// The standard deviation, from a log-variance clamped to [-30, 20].
        deviation: ArrayD<f32>,
    },
    /// Final latents: the graph is deterministic, or samples internally, without a seed.
    Sample(ArrayD<f32>),
}

/// A VAE encoder graph.
pub struct VaeEncoder {
    session: Session,
    signature: VaeEncoderSignature,
    /// The image encoded last and what came of it: every image of a request begins with the same.
    last: Option<EncodedImage>,
}

/// An image and its encoding.
#[derive(Debug, Clone)]
pub struct EncodedImage {
    pixels: ArrayD<f32>,
    posterior: Posterior,
}

impl VaeEncoder {
    /// Wraps an open graph.
    pub fn new(session: Session, signature: VaeEncoderSignature) -> Self {
        Self { session, signature, last: None }
    }

    /// Gives the encoder an image that the same graph encoded before, so that it need not be encoded again.
    pub fn with_last(self, last: Option<EncodedImage>) -> Self {
        Self { last, ..self }
    }

    /// Gives back the open graph, and the image that it encoded last.
    pub fn into_session(self) -> (Session, Option<EncodedImage>) {
        (self.session, self.last)
    }

    /// Encodes one image, `[1, 3, h, w]` in [-1, 1].
    ///
    /// # Errors
    /// [`Error::Model`] if the moments cannot be halved, [`Error::NonFinite`], and all errors of the graph.
    pub fn encode(&mut self, pixels: ArrayViewD<'_, f32>, cancel: &Cancel) -> Result<Posterior> {
        if let Some(last) = self.last.as_ref().filter(|last| last.pixels.view() == pixels) {
            return Ok(last.posterior.clone());
        }
        let posterior = self.run(pixels.view(), cancel)?;
        // A graph that draws inside draws anew for every image.
        if !self.signature.samples_inside {
            self.last = Some(EncodedImage { pixels: pixels.to_owned(), posterior: posterior.clone() });
        }
        Ok(posterior)
    }

    fn run(&mut self, pixels: ArrayViewD<'_, f32>, cancel: &Cancel) -> Result<Posterior> {
        let ports = Ports {
            input: &self.signature.sample,
            output: &self.signature.output,
            switches: &self.signature.switches,
            batch: self.signature.batch,
        };
        let output = single::run(&mut self.session, &ports, pixels, cancel)?;
        match self.signature.kind {
            VaeEncoderKind::Sample => Ok(Posterior::Sample(output)),
            VaeEncoderKind::Moments => {
                let channels = output.shape().get(1).copied().unwrap_or(0);
                if output.ndim() != 4 || channels % 2 != 0 {
                    return Err(Error::model(
                        self.session.path(),
                        format!(
                            "output {} should hold mean and log-variance, an even number of channels, and is {:?}",
                            self.signature.output.name,
                            output.shape()
                        ),
                        "export the VAE with scripts/export.py",
                    ));
                }
                let mean = output.slice_axis(Axis(1), Slice::from(..channels / 2)).as_standard_layout().into_owned();
                let deviation = output
                    .slice_axis(Axis(1), Slice::from(channels / 2..))
                    .mapv(|log_variance| (0.5 * log_variance.clamp(-30.0, 20.0)).exp());
                Ok(Posterior::Normal { mean, deviation })
            }
        }
    }
}

impl Posterior {
    /// Returns the mode of the distribution: latents `[1, c, h/f, w/f]`, not scaled.
    pub fn mode(&self) -> &ArrayD<f32> {
        match self {
            Self::Normal { mean, .. } => mean,
            Self::Sample(latents) => latents,
        }
    }

    /// Samples latents for the diffusion. `draw` fills a slice with unit normal values; it is called only if the
    /// distribution is not a single point.
    pub fn sample(&self, scaling: Scaling, draw: impl FnOnce(&mut [f32])) -> ArrayD<f32> {
        match self {
            Self::Sample(latents) => latents.mapv(|v| scaling.apply(v)),
            Self::Normal { mean, deviation } => {
                let mut noise = vec![0.0; mean.len()];
                draw(&mut noise);
                let mut latents = mean.clone();
                for ((z, s), n) in latents.iter_mut().zip(deviation).zip(&noise) {
                    *z = scaling.apply(*z + s * n);
                }
                latents
            }
        }
    }
}
