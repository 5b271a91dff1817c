//! The module names of a UNet in Stability AI's own code, which kohya's scripts use for Stable Diffusion XL.
//!
//! That code numbers the blocks consecutively: `input_blocks` from 1 on are the residual blocks and the downsamplers of
//! all `down_blocks`, each followed by its attention. The number of each is read from the graph.

use std::collections::BTreeSet;

use super::names::flatten_name;

/// Names in Stability AI's code, with `_` for `.`, and diffusers' names of the same modules.
pub struct Blocks(Vec<(String, String)>);

/// The modules outside of the blocks, and the middle block.
const FIXED: &[(&str, &str)] = &[
    ("input_blocks_0_0", "conv_in"),
    ("out_2", "conv_out"),
    ("time_embed_0", "time_embedding_linear_1"),
    ("time_embed_2", "time_embedding_linear_2"),
    ("label_emb_0_0", "add_embedding_linear_1"),
    ("label_emb_0_2", "add_embedding_linear_2"),
    ("middle_block_0", "mid_block_resnets_0"),
    ("middle_block_1", "mid_block_attentions_0"),
    ("middle_block_2", "mid_block_resnets_1"),
];

/// The parts of a residual block.
const RESIDUAL: &[(&str, &str)] = &[
    ("_in_layers_2", "_conv1"),
    ("_out_layers_3", "_conv2"),
    ("_emb_layers_1", "_time_emb_proj"),
    ("_skip_connection", "_conv_shortcut"),
];

impl Blocks {
    /// Numbers the blocks of a UNet that has these modules.
    pub fn new<'a>(modules: impl Iterator<Item = &'a str>) -> Self {
        // "down_blocks.1.attentions.0" and the like.
        let stems: BTreeSet<String> =
            modules.map(|module| module.split('.').take(4).collect::<Vec<_>>().join(".")).collect();
        let has = |stem: &str| stems.iter().any(|s| s == stem);
        let mut names: Vec<(String, String)> =
            FIXED.iter().map(|(theirs, ours)| ((*theirs).to_owned(), (*ours).to_owned())).collect();
        let mut put = |theirs: String, ours: &str| names.push((theirs, flatten_name(ours)));

        let resnets = |blocks: &str, block: usize| {
            let stem = format!("{blocks}.{block}.resnets");
            (0..).take_while(move |layer| has(&format!("{stem}.{layer}"))).count()
        };
        let mut at = 1;
        for block in (0..).take_while(|&block| resnets("down_blocks", block) > 0) {
            for layer in 0..resnets("down_blocks", block) {
                put(format!("input_blocks_{at}_0"), &format!("down_blocks.{block}.resnets.{layer}"));
                put(format!("input_blocks_{at}_1"), &format!("down_blocks.{block}.attentions.{layer}"));
                at += 1;
            }
            if has(&format!("down_blocks.{block}.downsamplers.0")) {
                put(format!("input_blocks_{at}_0_op"), &format!("down_blocks.{block}.downsamplers.0.conv"));
                at += 1;
            }
        }
        at = 0;
        for block in (0..).take_while(|&block| resnets("up_blocks", block) > 0) {
            for layer in 0..resnets("up_blocks", block) {
                put(format!("output_blocks_{at}_0"), &format!("up_blocks.{block}.resnets.{layer}"));
                let attends = has(&format!("up_blocks.{block}.attentions.{layer}"));
                if attends {
                    put(format!("output_blocks_{at}_1"), &format!("up_blocks.{block}.attentions.{layer}"));
                }
                // The upsampler follows the last layer's attention, if any.
                let behind = if attends { 2 } else { 1 };
                put(format!("output_blocks_{at}_{behind}_conv"), &format!("up_blocks.{block}.upsamplers.0.conv"));
                at += 1;
            }
        }
        Self(names)
    }

    /// Translates a module's name in Stability AI's code to diffusers' name, with `_` for `.`.
    pub fn translate(&self, module: &str) -> Option<String> {
        let rest_of =
            |theirs: &str| module.strip_prefix(theirs).filter(|rest| rest.is_empty() || rest.starts_with('_'));
        // The longest match wins: `input_blocks_3_0_op` before `input_blocks_3_0`.
        let found = self.0.iter().filter_map(|(theirs, ours)| Some((theirs.len(), ours, rest_of(theirs)?)));
        let (_, ours, rest) = found.max_by_key(|(length, ..)| *length)?;
        let inner = RESIDUAL.iter().find(|(theirs, _)| *theirs == rest).map_or(rest, |(_, inner)| inner);
        Some(format!("{ours}{inner}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The residual blocks, attentions and samplers of Stable Diffusion XL's UNet.
    fn sdxl() -> Vec<String> {
        let mut modules = Vec::new();
        for block in 0..3 {
            for layer in 0..2 {
                modules.push(format!("down_blocks.{block}.resnets.{layer}.conv1"));
                if block > 0 {
                    modules.push(format!("down_blocks.{block}.attentions.{layer}.proj_in"));
                }
            }
            if block < 2 {
                modules.push(format!("down_blocks.{block}.downsamplers.0.conv"));
                modules.push(format!("up_blocks.{block}.upsamplers.0.conv"));
            }
            for layer in 0..3 {
                modules.push(format!("up_blocks.{block}.resnets.{layer}.conv1"));
                if block < 2 {
                    modules.push(format!("up_blocks.{block}.attentions.{layer}.proj_in"));
                }
            }
        }
        modules
    }

    #[test]
    fn blocks_are_counted_through() {
        let modules = sdxl();
        let blocks = Blocks::new(modules.iter().map(String::as_str));
        for (theirs, ours) in [
            ("input_blocks_0_0", "conv_in"),
            ("input_blocks_1_0_in_layers_2", "down_blocks_0_resnets_0_conv1"),
            ("input_blocks_2_0_emb_layers_1", "down_blocks_0_resnets_1_time_emb_proj"),
            ("input_blocks_3_0_op", "down_blocks_0_downsamplers_0_conv"),
            ("input_blocks_4_0_skip_connection", "down_blocks_1_resnets_0_conv_shortcut"),
            (
                "input_blocks_4_1_transformer_blocks_1_attn1_to_q",
                "down_blocks_1_attentions_0_transformer_blocks_1_attn1_to_q",
            ),
            ("input_blocks_8_1_proj_out", "down_blocks_2_attentions_1_proj_out"),
            ("middle_block_1_proj_in", "mid_block_attentions_0_proj_in"),
            ("middle_block_2_out_layers_3", "mid_block_resnets_1_conv2"),
            (
                "output_blocks_0_1_transformer_blocks_9_ff_net_2",
                "up_blocks_0_attentions_0_transformer_blocks_9_ff_net_2",
            ),
            ("output_blocks_2_2_conv", "up_blocks_0_upsamplers_0_conv"),
            ("output_blocks_5_2_conv", "up_blocks_1_upsamplers_0_conv"),
            ("output_blocks_8_0_in_layers_2", "up_blocks_2_resnets_2_conv1"),
            ("label_emb_0_2", "add_embedding_linear_2"),
            ("out_2", "conv_out"),
        ] {
            assert_eq!(blocks.translate(theirs).as_deref(), Some(ours), "{theirs}");
        }
        assert_eq!(blocks.translate("down_blocks_0_resnets_0_conv1"), None);
        assert_eq!(blocks.translate("input_blocks_44_1_proj_in"), None);
    }

    #[test]
    fn an_upsampler_stands_where_there_is_no_attention() {
        let modules = ["up_blocks.0.resnets.0.conv1", "up_blocks.0.resnets.1.conv1", "up_blocks.0.upsamplers.0.conv"];
        let blocks = Blocks::new(modules.into_iter());
        assert_eq!(blocks.translate("output_blocks_1_1_conv").as_deref(), Some("up_blocks_0_upsamplers_0_conv"));
    }
}
