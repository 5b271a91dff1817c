//! The sizes of a model's latents and images.

use serde_json::{Map, Value};

use super::{Autoencoder, Evidence, Fact, from_config};
use crate::bundle::component::{Component, ComponentKind};
use crate::bundle::pipeline_class::Family;
use crate::bundle::{json, roles};
use crate::error::count_of;

impl Evidence<'_> {
    pub(super) fn spatial_factor(&self) -> Fact<usize> {
        if self.autoencoder == Autoencoder::Pixels {
            return Fact::new(1, "there is no VAE");
        }
        /// Each level of an autoencoder but the last halves the image.
        const LEVELS: [&str; 4] = [
            "block_out_channels",
            "encoder_block_out_channels",
            "decoder_block_out_channels",
            "down_block_out_channels",
        ];
        let levels = |c: &Map<String, Value>| LEVELS.iter().find_map(|key| c.get(*key)?.as_array().map(Vec::len));
        if let Some(fact) = self.stage_config(|c| levels(c).filter(|n| (1..=8).contains(n))) {
            return Fact::new(1 << (fact.value - 1), format!("{} in {}", count_of(fact.value, "level"), fact.source));
        }
        if let Some(decoder) = self.decoder {
            let fixed = |t: Option<&crate::tensor::TensorInfo>| t.and_then(|t| t.shape.last()?.fixed());
            let (input, output) = (roles::image_input(&decoder.graph), roles::image_output(&decoder.graph));
            if let (Some(from), Some(to)) = (fixed(input), fixed(output))
                && to >= from
                && to % from == 0
            {
                return Fact::new(to / from, format!("the shapes of {}", decoder.kind));
            }
            let counted = decoder.graph.upsamplings.by_scale + decoder.graph.upsamplings.by_size;
            if (1..=6).contains(&counted) {
                return Fact::new(1 << counted, doublings(counted, decoder));
            }
        }
        Fact::new(8, "assumed, as in nearly all VAEs")
    }

    /// A UNet that halves its input and doubles it again by a fixed factor meets its own skip connections only where
    /// every level's size was even. One that enlarges to a size taken from the skip connection takes any size.
    pub(super) fn latent_multiple(&self, family: Option<Family>) -> Fact<usize> {
        let Some(denoiser) = self.denoiser else { return Fact::new(1, "there is no denoiser") };
        if self.signature().is_some_and(|c| c.is_packed()) {
            return Fact::new(2, "two by two latents are packed into one token");
        }
        if denoiser.kind == ComponentKind::Transformer {
            return from_config(denoiser, &|c| json::count(c, "patch_size")).unwrap_or_else(|| match family {
                Some(Family::StableDiffusion3) => {
                    Fact::new(2, "that of Stable Diffusion 3, as no config.json gives one")
                }
                Some(Family::PixArtAlpha | Family::PixArtSigma) => {
                    Fact::new(2, "that of PixArt, as no config.json gives one")
                }
                _ => Fact::new(1, "nothing asks for more"),
            });
        }
        match denoiser.graph.upsamplings.by_scale {
            0 => Fact::new(1, "the graph has no doublings by a fixed factor"),
            // A residual block that enlarges does so twice, to what it learns from and to what it adds that to.
            n => {
                let levels = from_config(denoiser, &|c| Some(c.get("block_out_channels")?.as_array()?.len()));
                let n = levels.map_or(n, |levels| n.min(levels.value.saturating_sub(1)));
                Fact::new(1 << n.min(6), doublings(n, denoiser))
            }
        }
    }

    pub(super) fn fixed_size(&self, factor: usize) -> Option<Fact<(usize, usize)>> {
        let denoiser = self.denoiser?;
        let sample = roles::image_input(&denoiser.graph)?;
        let (height, width) = (sample.shape.get(2)?.fixed()?, sample.shape.get(3)?.fixed()?);
        Some(Fact::new(
            (width.saturating_mul(factor), height.saturating_mul(factor)),
            format!("the shape of {}'s {}", denoiser.kind, sample.name),
        ))
    }

    pub(super) fn default_size(&self, factor: usize, family: Option<Family>) -> Fact<(usize, usize)> {
        let sizes = |c: &Map<String, Value>| match c.get("sample_size")? {
            Value::Array(pair) => {
                let at = |i: usize| pair.get(i).and_then(Value::as_u64).filter(|&n| n > 0).map(|n| n as usize);
                Some((at(1)?, at(0)?))
            }
            _ => json::count(c, "sample_size").map(|n| (n, n)),
        };
        // Flux's classes look at no configuration.
        let denoiser = self.denoiser.filter(|_| !matches!(family, Some(Family::Flux | Family::FluxKontext)));
        if let Some(Fact { value: (width, height), source }) = denoiser.and_then(|d| from_config(d, &sizes)) {
            return Fact::new(
                (width.saturating_mul(factor), height.saturating_mul(factor)),
                format!("sample_size {width} in {source}, × {factor}"),
            );
        }
        let square =
            |latent: usize, why: &str| Fact::new((latent.saturating_mul(factor), latent.saturating_mul(factor)), why);
        if self.autoencoder == Autoencoder::Pixels {
            return square(64, "assumed, as nothing says otherwise");
        }
        let context_width = self.signature().and_then(|signature| signature.context_width());
        let predicts_v =
            self.scheduler.is_some_and(|s| json::string(&s.config, "prediction_type") == Some("v_prediction"));
        match family {
            Some(
                Family::StableDiffusionXl
                | Family::StableDiffusion3
                | Family::Flux
                | Family::FluxKontext
                | Family::PixArtAlpha
                | Family::PixArtSigma,
            ) => square(128, "that of the family: 128 latent values"),
            Some(Family::StableDiffusion) if context_width == Some(1024) && predicts_v => {
                square(96, "that of Stable Diffusion 2 with v-prediction: 96 latent values")
            }
            _ => square(64, "that of the family: 64 latent values"),
        }
    }
}

fn doublings(count: usize, component: &Component) -> String {
    format!("{} in {}", count_of(count, "doubling"), component.kind)
}
