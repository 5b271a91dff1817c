//! The sizes of a model's latents and images.

use serde_json::{Map, Value};

use super::{Autoencoder, Evidence, Fact, from_config};
use crate::bundle::component::{Component, ComponentKind};
use crate::bundle::{json, roles};
use crate::error::count_of;
use crate::family::{Family, Training};

impl Evidence<'_> {
    /// Pixels a side per latent; `None` if nothing tells.
    pub(super) fn spatial_factor(&self) -> Option<Fact<usize>> {
        if self.autoencoder == Autoencoder::Pixels {
            return Some(Fact::new(1, "there is no VAE"));
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
            let source = format!("{} in {}", count_of(fact.value, "level"), fact.source);
            return Some(Fact::new(1 << (fact.value - 1), source));
        }
        let decoder = self.decoder?;
        let fixed = |t: Option<&crate::tensor::TensorInfo>| t.and_then(|t| t.shape.last()?.fixed());
        let (input, output) = (roles::image_input(&decoder.graph), roles::image_output(&decoder.graph));
        if let (Some(from), Some(to)) = (fixed(input), fixed(output))
            && to >= from
            && to % from == 0
        {
            return Some(Fact::new(to / from, format!("the shapes of {}", decoder.kind)));
        }
        let counted = decoder.graph.upsamplings.by_scale + decoder.graph.upsamplings.by_size;
        (1..=6).contains(&counted).then(|| Fact::new(1 << counted, doublings(counted, decoder)))
    }

    /// A UNet that halves its input and doubles it again by a fixed factor meets its own skip connections only where
    /// every level's size was even. One that enlarges to a size taken from the skip connection takes any size.
    pub(super) fn latent_multiple(&self, family: Option<Family>) -> Fact<usize> {
        let Some(denoiser) = self.denoiser else { return Fact::new(1, "there is no denoiser") };
        if self.signature().is_some_and(|c| c.is_packed()) {
            return Fact::new(2, "two by two latents are packed into one token");
        }
        if denoiser.kind == ComponentKind::Transformer {
            return from_config(denoiser, &|c| json::count(c, "patch_size")).unwrap_or_else(|| {
                match family.map(Family::row).filter(|row| row.patch > 1) {
                    Some(row) => Fact::new(row.patch, format!("that of {}, as no config.json gives one", row.title)),
                    None => Fact::new(1, "nothing asks for more"),
                }
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
        let denoiser = self.denoiser.filter(|_| family.is_none_or(|family| family.row().reads_sample_size));
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
        let training = Training { context_width, predicts_v };
        let (side, source) =
            family.map_or((64, "that of the family: 64 latent values"), |family| (family.row().trained_side)(training));
        square(side, source)
    }
}

fn doublings(count: usize, component: &Component) -> String {
    format!("{} in {}", count_of(count, "doubling"), component.kind)
}
