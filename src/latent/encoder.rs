//! Pixels to latents.

use ndarray::{ArrayD, ArrayViewD, Axis, Slice};

use super::Scaling;
use super::single::{self, Ports};
use crate::bundle::{VaeEncoderContract, VaeEncoderKind};
use crate::error::{Error, Result};
use crate::session::{Cancel, Session};

/// The distribution a KL VAE encodes an image to, before scaling.
#[derive(Debug, Clone, PartialEq)]
pub enum Posterior {
    /// A diagonal normal distribution: mean and standard deviation, each `[1, c, h/f, w/f]`.
    Normal {
        /// The mean.
        mean: ArrayD<f32>,
        /// The standard deviation, of a log-variance held to [-30, 20].
        deviation: ArrayD<f32>,
    },
    /// Latents that need no more drawing: the graph is deterministic, or draws inside, where no seed reaches.
    Sample(ArrayD<f32>),
}

/// A VAE's encoder graph.
pub struct Encoder {
    session: Session,
    contract: VaeEncoderContract,
    /// The image encoded last and what came of it: every image of a request begins with the same.
    last: Option<EncodedImage>,
}

/// An image and its encoding.
#[derive(Debug, Clone)]
pub struct EncodedImage {
    pixels: ArrayD<f32>,
    posterior: Posterior,
}

impl Encoder {
    /// Takes an open graph.
    pub fn new(session: Session, contract: VaeEncoderContract) -> Self {
        Self { session, contract, last: None }
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
    /// [`Error::Model`] where the moments cannot be halved, [`Error::NonFinite`], and whatever the graph fails with.
    pub fn encode(&mut self, pixels: ArrayViewD<'_, f32>, cancel: &Cancel) -> Result<Posterior> {
        if let Some(last) = self.last.as_ref().filter(|last| last.pixels.view() == pixels) {
            return Ok(last.posterior.clone());
        }
        let posterior = self.run(pixels.view(), cancel)?;
        // A graph that draws inside draws anew for every image.
        if !self.contract.samples_inside {
            self.last = Some(EncodedImage { pixels: pixels.to_owned(), posterior: posterior.clone() });
        }
        Ok(posterior)
    }

    fn run(&mut self, pixels: ArrayViewD<'_, f32>, cancel: &Cancel) -> Result<Posterior> {
        let ports = Ports {
            input: &self.contract.sample,
            output: &self.contract.output,
            switches: &self.contract.switches,
            batch: self.contract.batch,
        };
        let output = single::run(&mut self.session, &ports, pixels, "the encoded image", cancel)?;
        match self.contract.kind {
            VaeEncoderKind::Sample => Ok(Posterior::Sample(output)),
            VaeEncoderKind::Moments => {
                let channels = output.shape().get(1).copied().unwrap_or(0);
                if output.ndim() != 4 || channels % 2 != 0 {
                    return Err(Error::model(
                        self.session.path(),
                        format!(
                            "output {} should hold mean and log-variance, an even number of channels, and is {:?}",
                            self.contract.output.name,
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
    /// The likeliest latents, `[1, c, h/f, w/f]`, not scaled.
    pub fn mode(&self) -> &ArrayD<f32> {
        match self {
            Self::Normal { mean, .. } => mean,
            Self::Sample(latents) => latents,
        }
    }

    /// Draws latents for the diffusion, with `draw` giving as many unit normal values as it is asked for; it is asked
    /// only where there is something to draw.
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
