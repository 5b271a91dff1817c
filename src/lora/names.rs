//! What the name of a tensor in a LoRA file says: which part of the model, which module in it, and what it is of it.
//!
//! | written by | part | module | matrices |
//! |---|---|---|---|
//! | kohya's scripts | `lora_unet_`, `lora_te_`, `lora_te1_`, `lora_te2_` | with `_` for `.` | `.lora_down.weight`, `.lora_up.weight`, `.alpha` |
//! | diffusers, PEFT | `unet.`, `text_encoder.`, `text_encoder_2.`, or none | with `.` | `.lora_A.weight`, `.lora_B.weight` |
//! | older diffusers | as above | with `.`, `.processor` after attention | `.lora.down.weight`, `.to_q_lora.down.weight`, `.lora_linear_layer.down.weight`, … |

/// A part of a model that a LoRA may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The UNet or the transformer.
    Denoiser,
    /// A text encoder, counted from 1.
    TextEncoder(usize),
}

/// What a tensor is of a module's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The matrix into the low rank, A.
    Down,
    /// The matrix out of it, B.
    Up,
    /// What the product is multiplied by, times the rank.
    Alpha,
}

/// What a tensor's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The part of the model.
    pub part: Part,
    /// The module, as the file writes it, without its part.
    pub module: String,
    /// What it is of it.
    pub role: Role,
}

/// How tensors' names end, and what they are then.
const ENDS: &[(&str, Role)] = &[
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".alpha", Role::Alpha),
];

/// How names begin that tell their part. With `_` the module is written with `_` as well.
const PARTS: &[(&str, Part)] = &[
    ("lora_unet_", Part::Denoiser),
    ("lora_te_", Part::TextEncoder(1)),
    ("lora_te1_", Part::TextEncoder(1)),
    ("lora_te2_", Part::TextEncoder(2)),
    ("lora_te3_", Part::TextEncoder(3)),
    ("unet.", Part::Denoiser),
    ("transformer.", Part::Denoiser),
    ("diffusion_model.", Part::Denoiser),
    ("text_encoder.", Part::TextEncoder(1)),
    ("text_encoder_2.", Part::TextEncoder(2)),
    ("text_encoder_3.", Part::TextEncoder(3)),
    ("text_model.", Part::TextEncoder(1)),
];

/// Parts of tensors' names behind a module, at their end with `$`, that belong to other changes than plain LoRA, and the
/// kinds of those changes.
const OTHERS: &[(&str, &str)] = &[
    (".dora_scale", "DoRA, which rescales the weights it changes"),
    (".lora_magnitude_vector", "DoRA, which rescales the weights it changes"),
    (".hada_", "LoHa, a product of Hadamard factors"),
    (".lokr_", "LoKr, a product of Kronecker factors"),
    (".lora_mid", "a LoRA in three factors (lora_mid)"),
    (".oft_", "OFT, which rotates the weights it changes"),
    (".on_input", "(IA)³, which scales what layers give"),
    (".lora_B.bias", "a LoRA that changes biases"),
    (".lora_up.bias", "a LoRA that changes biases"),
    (".diff_b$", "a difference of biases"),
    (".diff$", "a full difference of weights"),
    (".w_norm$", "a full difference of norms"),
    (".b_norm$", "a full difference of norms"),
];

/// Parts of the names of tensors that belong to no module, and the kinds of those tensors.
const WITHOUT_MODULE: &[(&str, &str)] = &[
    ("bundle_emb", "embeddings of words, which [[textual_inversion]] reads from files of their own"),
    ("lora_controlnet", "a Control LoRA"),
];

/// A tensor that belongs to no plain LoRA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// The part and the module that its name names, if it names one.
    pub module: Option<(Part, String)>,
    /// The kind of change that it belongs to, if it is a known one.
    pub kind: Option<&'static str>,
}

impl Key {
    /// Reads a tensor's name.
    ///
    /// # Errors
    /// The tensor's other role, as far as that is known.
    pub fn parse(name: &str) -> Result<Self, Foreign> {
        if let Some((_, kind)) = WITHOUT_MODULE.iter().find(|(sign, _)| name.contains(sign)) {
            return Err(Foreign { module: None, kind: Some(kind) });
        }
        let stem = |sign: &str| match sign.strip_suffix('$') {
            Some(end) => name.strip_suffix(end),
            None => name.split_once(sign).map(|(stem, _)| stem),
        };
        if let Some((stem, kind)) = OTHERS.iter().find_map(|(sign, kind)| Some((stem(sign)?, kind))) {
            let module = module_of(stem, false);
            return Err(Foreign { module, kind: Some(kind) });
        }
        // PEFT writes the adapter's name before the last word.
        let name = name.replace(".default_0.weight", ".weight").replace(".default.weight", ".weight");
        let end = ENDS.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, end.starts_with('_'), *role)));
        let key = end.and_then(|(stem, is_old, role)| Some((module_of(stem, is_old)?, role)));
        let ((part, module), role) = key.ok_or(Foreign { module: None, kind: None })?;
        Ok(Self { part, module, role })
    }
}

/// The part and the module that the beginning of a tensor's name names. In older files (`is_old`) an attention's layer is
/// named for what it does.
fn module_of(stem: &str, is_old: bool) -> Option<(Part, String)> {
    let unwrapped = |stem: &str| stem.strip_prefix("base_model.model.").unwrap_or(stem).to_owned();
    let stem = unwrapped(stem);
    let (part, module) = match PARTS.iter().find_map(|(start, part)| Some((*part, stem.strip_prefix(start)?))) {
        // This one tells the part, and is a module as well.
        Some((part, _)) if stem.starts_with("text_model.") => (part, stem),
        Some((part, module)) => (part, unwrapped(module)),
        // diffusers and PEFT leave the part away where a file holds but one.
        None if stem.contains('.') => (Part::Denoiser, stem),
        None => return None,
    };
    let module = module.replace(".processor", "");
    Some((part, if is_old { attention_layer(&module, part) } else { module }))
}

/// The layer that older diffusers names for what it does in any attention: `attn1.to_out` for `attn1.to_out.0` of a
/// UNet and for `self_attn.out_proj` of a text encoder.
fn attention_layer(module: &str, part: Part) -> String {
    let layers: &[(&str, &str)] = match part {
        Part::Denoiser => &[(".to_out", ".to_out.0")],
        Part::TextEncoder(_) => {
            &[(".to_q", ".q_proj"), (".to_k", ".k_proj"), (".to_v", ".v_proj"), (".to_out", ".out_proj")]
        }
    };
    let renamed = layers.iter().find_map(|(old, new)| Some(format!("{}{new}", module.strip_suffix(old)?)));
    renamed.unwrap_or_else(|| module.to_owned())
}

/// A module's name as names of every kind can be compared: with `_` for `.`.
pub fn flat(module: &str) -> String {
    module.replace('.', "_")
}

impl std::fmt::Display for Part {
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
        let (d, t1, t2) = (Part::Denoiser, Part::TextEncoder(1), Part::TextEncoder(2));
        let rows = [
            (format!("lora_unet_{flat_unet}_to_q.lora_down.weight"), d, format!("{flat_unet}_to_q"), Role::Down),
            (format!("lora_unet_{flat_unet}_to_q.alpha"), d, format!("{flat_unet}_to_q"), Role::Alpha),
            (
                "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight".into(),
                t1,
                "text_model_encoder_layers_0_mlp_fc1".into(),
                Role::Up,
            ),
            ("lora_te1_text_model_x.alpha".into(), t1, "text_model_x".into(), Role::Alpha),
            ("lora_te2_text_projection.lora_up.weight".into(), t2, "text_projection".into(), Role::Up),
            (format!("unet.{unet}.to_out.0.lora_A.weight"), d, format!("{unet}.to_out.0"), Role::Down),
            (format!("unet.{unet}.to_q.lora.up.weight"), d, format!("{unet}.to_q"), Role::Up),
            (format!("unet.{unet}.processor.to_q_lora.down.weight"), d, format!("{unet}.to_q"), Role::Down),
            (format!("{unet}.processor.to_out_lora.up.weight"), d, format!("{unet}.to_out.0"), Role::Up),
            (format!("base_model.model.{unet}.to_k.lora_B.weight"), d, format!("{unet}.to_k"), Role::Up),
            (format!("unet.base_model.model.{unet}.to_k.lora_B.default.weight"), d, format!("{unet}.to_k"), Role::Up),
            (
                format!("text_encoder.{text}.q_proj.lora_linear_layer.down.weight"),
                t1,
                format!("{text}.q_proj"),
                Role::Down,
            ),
            (format!("text_encoder.{text}.to_out_lora.up.weight"), t1, format!("{text}.out_proj"), Role::Up),
            (format!("text_encoder_2.{text}.k_proj.lora_B.weight"), t2, format!("{text}.k_proj"), Role::Up),
            (format!("base_model.model.{text}.k_proj.lora_A.weight"), t1, format!("{text}.k_proj"), Role::Down),
        ];
        for (name, part, module, role) in rows {
            assert_eq!(Key::parse(&name), Ok(Key { part, module, role }), "{name}");
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
            let foreign = Key::parse(name).unwrap_err();
            assert_eq!(foreign.module, Some((Part::Denoiser, module.to_owned())), "{name}");
            assert!(foreign.kind.unwrap().contains(word), "{name}");
        }
        let bundled = Key::parse("bundle_emb.cat.string_to_param.*").unwrap_err();
        assert_eq!((bundled.module, bundled.kind.is_some()), (None, true));
        for name in ["model.diffusion_model.input_blocks.0.0.weight", "lora_down.weight", "", "x.alpha.y"] {
            assert_eq!(Key::parse(name), Err(Foreign { module: None, kind: None }), "{name}");
        }
    }
}
