//! Parses the names of tensors in a LoRA file: the part of the model, the module in it, and the tensor's role.
//!
//! | written by | part | module | matrices |
//! |---|---|---|---|
//! | kohya's scripts | `lora_unet_`, `lora_te_`, `lora_te1_`, `lora_te2_` | with `_` for `.` | `.lora_down.weight`, `.lora_up.weight`, `.alpha` |
//! | diffusers, PEFT | `unet.`, `text_encoder.`, `text_encoder_2.`, or none | with `.` | `.lora_A.weight`, `.lora_B.weight` |
//! | older diffusers | as above | with `.`, `.processor` after attention | `.lora.down.weight`, `.to_q_lora.down.weight`, `.lora_linear_layer.down.weight`, … |

/// A part of a model that a LoRA may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoraTarget {
    /// The UNet or the transformer.
    Denoiser,
    /// A text encoder, counted from 1.
    TextEncoder(usize),
}

/// A tensor's role in a module's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatrixRole {
    /// The matrix into the low rank, A.
    Down,
    /// The matrix out of it, B.
    Up,
    /// The alpha: the factor of the product, times the rank.
    Alpha,
}

/// A parsed tensor name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorKey {
    /// The part of the model.
    pub part: LoraTarget,
    /// The module, as the file spells it, without its part.
    pub module: String,
    /// The tensor's role.
    pub role: MatrixRole,
}

/// The suffixes of tensor names, and the role each denotes.
const ENDS: &[(&str, MatrixRole)] = &[
    (".lora_down.weight", MatrixRole::Down),
    (".lora_up.weight", MatrixRole::Up),
    (".lora_A.weight", MatrixRole::Down),
    (".lora_B.weight", MatrixRole::Up),
    (".lora_linear_layer.down.weight", MatrixRole::Down),
    (".lora_linear_layer.up.weight", MatrixRole::Up),
    (".lora.down.weight", MatrixRole::Down),
    (".lora.up.weight", MatrixRole::Up),
    ("_lora.down.weight", MatrixRole::Down),
    ("_lora.up.weight", MatrixRole::Up),
    (".alpha", MatrixRole::Alpha),
];

/// The prefixes that denote a part. Those with `_` also have `_` in the module.
const PARTS: &[(&str, LoraTarget)] = &[
    ("lora_unet_", LoraTarget::Denoiser),
    ("lora_te_", LoraTarget::TextEncoder(1)),
    ("lora_te1_", LoraTarget::TextEncoder(1)),
    ("lora_te2_", LoraTarget::TextEncoder(2)),
    ("lora_te3_", LoraTarget::TextEncoder(3)),
    ("unet.", LoraTarget::Denoiser),
    ("transformer.", LoraTarget::Denoiser),
    ("diffusion_model.", LoraTarget::Denoiser),
    ("text_encoder.", LoraTarget::TextEncoder(1)),
    ("text_encoder_2.", LoraTarget::TextEncoder(2)),
    ("text_encoder_3.", LoraTarget::TextEncoder(3)),
    ("text_model.", LoraTarget::TextEncoder(1)),
];

/// Substrings after a module (at the end if they end in `$`) that denote changes other than plain LoRA, and the kinds
/// of those changes.
const OTHERS: &[(&str, &str)] = &[
    (".dora_scale", "DoRA, which rescales the weights"),
    (".lora_magnitude_vector", "DoRA, which rescales the weights"),
    (".hada_", "LoHa, a product of Hadamard factors"),
    (".lokr_", "LoKr, a product of Kronecker factors"),
    (".lora_mid", "a LoRA in three factors (lora_mid)"),
    (".oft_", "OFT, which rotates the weights"),
    (".on_input", "(IA)³, which scales activations"),
    (".lora_B.bias", "a LoRA with biases"),
    (".lora_up.bias", "a LoRA with biases"),
    (".diff_b$", "a full difference of biases"),
    (".diff$", "a full difference of weights"),
    (".w_norm$", "a full difference of norms"),
    (".b_norm$", "a full difference of norms"),
];

/// Substrings of tensor names without a module, and the kinds of those tensors.
const WITHOUT_MODULE: &[(&str, &str)] = &[
    ("bundle_emb", "textual inversion embeddings, which [[textual_inversion]] reads from separate files"),
    ("lora_controlnet", "a Control LoRA"),
];

/// A tensor that is not plain LoRA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignTensor {
    /// The part and the module in its name, if any.
    pub module: Option<(LoraTarget, String)>,
    /// The kind of change that it belongs to, if known.
    pub kind: Option<&'static str>,
}

impl TensorKey {
    /// Parses a tensor's name.
    ///
    /// # Errors
    /// The tensor's other kind and module, as far as known.
    pub fn parse(name: &str) -> Result<Self, ForeignTensor> {
        if let Some((_, kind)) = WITHOUT_MODULE.iter().find(|(sign, _)| name.contains(sign)) {
            return Err(ForeignTensor { module: None, kind: Some(kind) });
        }
        let stem = |sign: &str| match sign.strip_suffix('$') {
            Some(end) => name.strip_suffix(end),
            None => name.split_once(sign).map(|(stem, _)| stem),
        };
        if let Some((stem, kind)) = OTHERS.iter().find_map(|(sign, kind)| Some((stem(sign)?, kind))) {
            let module = module_of(stem, false);
            return Err(ForeignTensor { module, kind: Some(kind) });
        }
        // PEFT inserts the adapter's name before the last word.
        let name = name.replace(".default_0.weight", ".weight").replace(".default.weight", ".weight");
        let end = ENDS.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, end.starts_with('_'), *role)));
        let key = end.and_then(|(stem, is_old, role)| Some((module_of(stem, is_old)?, role)));
        let ((part, module), role) = key.ok_or(ForeignTensor { module: None, kind: None })?;
        Ok(Self { part, module, role })
    }
}

/// Parses the part and the module at the start of a tensor's name. In older files (`is_old`), an attention's layer is
/// named after its function.
fn module_of(stem: &str, is_old: bool) -> Option<(LoraTarget, String)> {
    let unwrapped = |stem: &str| stem.strip_prefix("base_model.model.").unwrap_or(stem).to_owned();
    let stem = unwrapped(stem);
    let (part, module) = match PARTS.iter().find_map(|(start, part)| Some((*part, stem.strip_prefix(start)?))) {
        // This prefix denotes the part and belongs to the module.
        Some((part, _)) if stem.starts_with("text_model.") => (part, stem),
        Some((part, module)) => (part, unwrapped(module)),
        // diffusers and PEFT omit the part if a file has only one.
        None if stem.contains('.') => (LoraTarget::Denoiser, stem),
        None => return None,
    };
    let module = module.replace(".processor", "");
    Some((part, if is_old { attention_layer(&module, part) } else { module }))
}

/// Translates the layer name that older diffusers uses in any attention: `attn1.to_out` for `attn1.to_out.0` of a UNet
/// and for `self_attn.out_proj` of a text encoder.
fn attention_layer(module: &str, part: LoraTarget) -> String {
    let layers: &[(&str, &str)] = match part {
        LoraTarget::Denoiser => &[(".to_out", ".to_out.0")],
        LoraTarget::TextEncoder(_) => {
            &[(".to_q", ".q_proj"), (".to_k", ".k_proj"), (".to_v", ".v_proj"), (".to_out", ".out_proj")]
        }
    };
    let renamed = layers.iter().find_map(|(old, new)| Some(format!("{}{new}", module.strip_suffix(old)?)));
    renamed.unwrap_or_else(|| module.to_owned())
}

/// Returns a module's name in a form that can be compared across namings: with `_` for `.`.
pub fn flatten_name(module: &str) -> String {
    module.replace('.', "_")
}

impl std::fmt::Display for LoraTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denoiser => f.write_str("the denoiser"),
            Self::TextEncoder(1) => f.write_str("text_encoder"),
            Self::TextEncoder(n) => write!(f, "text_encoder_{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_kind_are_read() {
        let unet = "down_blocks.1.attentions.0.transformer_blocks.0.attn1";
        let flat_unet = "down_blocks_1_attentions_0_transformer_blocks_0_attn1";
        let text = "text_model.encoder.layers.0.self_attn";
        let (d, t1, t2) = (LoraTarget::Denoiser, LoraTarget::TextEncoder(1), LoraTarget::TextEncoder(2));
        let rows = [
            (format!("lora_unet_{flat_unet}_to_q.lora_down.weight"), d, format!("{flat_unet}_to_q"), MatrixRole::Down),
            (format!("lora_unet_{flat_unet}_to_q.alpha"), d, format!("{flat_unet}_to_q"), MatrixRole::Alpha),
            (
                "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight".into(),
                t1,
                "text_model_encoder_layers_0_mlp_fc1".into(),
                MatrixRole::Up,
            ),
            ("lora_te1_text_model_x.alpha".into(), t1, "text_model_x".into(), MatrixRole::Alpha),
            ("lora_te2_text_projection.lora_up.weight".into(), t2, "text_projection".into(), MatrixRole::Up),
            (format!("unet.{unet}.to_out.0.lora_A.weight"), d, format!("{unet}.to_out.0"), MatrixRole::Down),
            (format!("unet.{unet}.to_q.lora.up.weight"), d, format!("{unet}.to_q"), MatrixRole::Up),
            (format!("unet.{unet}.processor.to_q_lora.down.weight"), d, format!("{unet}.to_q"), MatrixRole::Down),
            (format!("{unet}.processor.to_out_lora.up.weight"), d, format!("{unet}.to_out.0"), MatrixRole::Up),
            (format!("base_model.model.{unet}.to_k.lora_B.weight"), d, format!("{unet}.to_k"), MatrixRole::Up),
            (
                format!("unet.base_model.model.{unet}.to_k.lora_B.default.weight"),
                d,
                format!("{unet}.to_k"),
                MatrixRole::Up,
            ),
            (
                format!("text_encoder.{text}.q_proj.lora_linear_layer.down.weight"),
                t1,
                format!("{text}.q_proj"),
                MatrixRole::Down,
            ),
            (format!("text_encoder.{text}.to_out_lora.up.weight"), t1, format!("{text}.out_proj"), MatrixRole::Up),
            (format!("text_encoder_2.{text}.k_proj.lora_B.weight"), t2, format!("{text}.k_proj"), MatrixRole::Up),
            (format!("base_model.model.{text}.k_proj.lora_A.weight"), t1, format!("{text}.k_proj"), MatrixRole::Down),
        ];
        for (name, part, module, role) in rows {
            assert_eq!(TensorKey::parse(&name), Ok(TensorKey { part, module, role }), "{name}");
        }
    }

    #[test]
    fn what_is_no_plain_lora_is_known_for_what_it_is() {
        for (name, module, word) in [
            ("lora_unet_mid_block_x.dora_scale", "mid_block_x", "DoRA"),
            ("unet.mid_block.x.to_q.lora_magnitude_vector", "mid_block.x.to_q", "DoRA"),
            ("unet.mid_block.x.to_q.lora_magnitude_vector.default.weight", "mid_block.x.to_q", "DoRA"),
            ("lora_unet_mid_block_x.hada_w1_a", "mid_block_x", "LoHa"),
            ("lora_unet_mid_block_x.lokr_w1", "mid_block_x", "LoKr"),
            ("lora_unet_mid_block_x.lora_mid.weight", "mid_block_x", "lora_mid"),
            ("lora_unet_mid_block_x.diff_b", "mid_block_x", "biases"),
            ("diffusion_model.mid_block.x.diff", "mid_block.x", "weights"),
        ] {
            let foreign = TensorKey::parse(name).unwrap_err();
            assert_eq!(foreign.module, Some((LoraTarget::Denoiser, module.to_owned())), "{name}");
            assert!(foreign.kind.unwrap().contains(word), "{name}");
        }
        let bundled = TensorKey::parse("bundle_emb.cat.string_to_param.*").unwrap_err();
        assert_eq!((bundled.module, bundled.kind.is_some()), (None, true));
        for name in ["model.diffusion_model.input_blocks.0.0.weight", "lora_down.weight", "", "x.alpha.y"] {
            assert_eq!(TensorKey::parse(name), Err(ForeignTensor { module: None, kind: None }), "{name}");
        }
    }
}
