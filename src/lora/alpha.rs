//! alpha / rank: the factor by which diffusers multiplies a module's change.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::names::{LoraTarget, flatten_name};

/// The key of PEFT's settings in the header of a file saved by diffusers.
const SETTINGS: &str = "lora_adapter_metadata";

/// The alphas of a file that may lack some of them.
///
/// PEFT has one alpha per adapter, with exceptions. So a module without an alpha gets that of the header's settings; or
/// else the most common alpha of its part; or else, if no module has one, the rank of the module that diffusers reads
/// first. If all ranks are equal, that is a factor of 1.
///
/// A module's own alpha always counts, as it did in training; diffusers 0.39 ignores that of an attention or text
/// encoder layer if it is not the part's most common one.
pub struct Alphas {
    settings: Map<String, Value>,
    parts: BTreeMap<LoraTarget, AlphaCounts>,
}

#[derive(Default)]
struct AlphaCounts {
    /// The count of each alpha, by its bits, with the index of its first occurrence.
    alphas: BTreeMap<u32, (usize, usize)>,
    /// The rank of the first module, and its sort key.
    first: Option<((usize, usize), usize)>,
}

impl Alphas {
    pub fn new(header: Option<&HashMap<String, String>>) -> Self {
        let settings = header.and_then(|header| serde_json::from_str(header.get(SETTINGS)?).ok()).unwrap_or_default();
        Self { settings, parts: BTreeMap::new() }
    }

    /// Records a module's alpha and rank. `order` counts its matrices in the order of the file.
    pub fn take(&mut self, part: LoraTarget, module: &str, order: usize, rank: usize, alpha: Option<f32>) {
        let taken = self.parts.entry(part).or_default();
        if let Some(alpha) = alpha {
            let (count, at) = taken.alphas.entry(alpha.to_bits()).or_insert((0, order));
            (*count, *at) = (*count + 1, (*at).min(order));
        }
        let place = match part {
            LoraTarget::Denoiser => (0, order),
            LoraTarget::TextEncoder(_) => place_in_layer(module),
        };
        if taken.first.is_none_or(|(first, _)| place < first) {
            taken.first = Some((place, rank));
        }
    }

    /// Returns alpha / rank of a module.
    pub fn factor(&self, part: LoraTarget, module: &str, rank: usize, alpha: Option<f32>) -> f32 {
        let taken = self.parts.get(&part);
        let commonest = || {
            let alphas = &taken?.alphas;
            let (&bits, _) = alphas.iter().max_by_key(|(_, (count, at))| (*count, std::cmp::Reverse(*at)))?;
            Some(f32::from_bits(bits))
        };
        let first = || Some(taken?.first?.1 as f32);
        let alpha = alpha.or_else(|| self.set(part, module)).or_else(commonest).or_else(first);
        let rank = rank as f32;
        let divisor = if self.is_set(part, "use_rslora") { rank.sqrt() } else { rank };
        alpha.map_or(1.0, |alpha| alpha / divisor)
    }

    fn setting(&self, part: LoraTarget, key: &str) -> Option<&Value> {
        let names: &[&str] = match part {
            LoraTarget::Denoiser => &["unet", "transformer"],
            LoraTarget::TextEncoder(1) => &["text_encoder"],
            LoraTarget::TextEncoder(2) => &["text_encoder_2"],
            LoraTarget::TextEncoder(_) => &["text_encoder_3"],
        };
        names.iter().find_map(|name| self.settings.get(&format!("{name}.{key}")))
    }

    fn is_set(&self, part: LoraTarget, key: &str) -> bool {
        self.setting(part, key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Returns the alpha of a module in the header's settings.
    fn set(&self, part: LoraTarget, module: &str) -> Option<f32> {
        let exception = |pattern: &String| {
            let pattern = flatten_name(pattern.trim_start_matches('^'));
            module == pattern || module.ends_with(&format!("_{pattern}"))
        };
        let exceptions = self.setting(part, "alpha_pattern").and_then(Value::as_object);
        let own = exceptions.and_then(|all| all.iter().find(|(pattern, _)| exception(pattern))).map(|(_, alpha)| alpha);
        own.or_else(|| self.setting(part, "lora_alpha")).and_then(Value::as_f64).map(|alpha| alpha as f32)
    }
}

/// Returns the position of a text encoder's layer in torch's order.
fn place_in_layer(module: &str) -> (usize, usize) {
    const LAYERS: [&str; 6] = ["k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"];
    let block = module.split_once("layers_").and_then(|(_, rest)| rest.split('_').next()?.parse().ok());
    let layer = LAYERS.iter().position(|layer| module.ends_with(layer));
    (block.unwrap_or(usize::MAX), layer.unwrap_or(LAYERS.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: LoraTarget = LoraTarget::Denoiser;

    #[test]
    fn a_missing_alpha_is_that_of_most() {
        let mut alphas = Alphas::new(None);
        for (order, (rank, alpha)) in
            [(4, Some(1.0)), (4, Some(2.0)), (4, Some(2.0)), (8, None)].into_iter().enumerate()
        {
            alphas.take(D, "x", order, rank, alpha);
        }
        assert_eq!(alphas.factor(D, "x", 4, Some(1.0)), 0.25);
        assert_eq!(alphas.factor(D, "x", 8, None), 0.25);
    }

    #[test]
    fn without_any_it_is_the_first_rank() {
        let mut alphas = Alphas::new(None);
        alphas.take(D, "b", 1, 4, None);
        alphas.take(D, "a", 0, 8, None);
        assert_eq!(alphas.factor(D, "b", 4, None), 2.0);
        let text = LoraTarget::TextEncoder(1);
        alphas.take(text, "text_model_encoder_layers_10_self_attn_k_proj", 0, 3, None);
        alphas.take(text, "text_model_encoder_layers_2_mlp_fc1", 1, 2, None);
        alphas.take(text, "text_model_encoder_layers_2_self_attn_q_proj", 2, 4, None);
        assert_eq!(alphas.factor(text, "x", 2, None), 2.0);
    }

    #[test]
    fn settings_of_the_header_stand_before_what_is_guessed() {
        let settings = r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"mid_block.x": 2}, "text_encoder.lora_alpha": 3,
            "text_encoder.use_rslora": true}"#;
        let header = HashMap::from([(SETTINGS.to_owned(), settings.to_owned())]);
        let mut alphas = Alphas::new(Some(&header));
        alphas.take(D, "mid_block_x", 0, 4, None);
        assert_eq!(alphas.factor(D, "mid_block_x", 4, None), 0.5);
        assert_eq!(alphas.factor(D, "up_block_x", 4, None), 2.0);
        assert_eq!(alphas.factor(LoraTarget::TextEncoder(1), "y", 9, None), 1.0);
    }
}
