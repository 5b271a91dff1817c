//! Values out of range, by the component that computed them.

use super::graph::Session;
use crate::error::Result;
use crate::tensor::require_finite_else;

impl Session {
    /// Rejects NaN and infinity in the values of an output, at step `step` of `steps` (0 outside of the denoising loop). The
    /// error names the component, and what to do about the precision in which it computes.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) with the count.
    pub fn require_finite(&self, values: &[f32], output: &str, step: usize, steps: usize) -> Result<()> {
        let name = format!("output {output} of the {}", self.component());
        require_finite_else(values, [&name, self.help()], step, steps)
    }

    fn help(&self) -> &'static str {
        let is_one_of = |names: &[&str]| names.iter().any(|name| self.component().starts_with(name));
        let is_vae = is_one_of(&["vae_decoder", "vae_encoder"]);
        match (self.computes_in_half(), is_vae) {
            (true, true) => {
                "this graph computes in half precision, whose largest number is 65504; use the VAE's float32 graph, or a VAE \
                 made for half precision, such as sdxl-vae-fp16-fix"
            }
            (true, false) => {
                "this graph computes in half precision, whose largest number is 65504; use its float32 graph, or one with \
                 half-precision weights and float32 arithmetic (ldm-ort quantize --weights half)"
            }
            (false, _) if is_one_of(&["unet", "transformer", "controlnet"]) => {
                "the model's weights or its precision produce values out of range; try its float32 export, precision = \
                 \"float32\" in [device], another scheduler, or a lower guidance_scale"
            }
            (false, _) => {
                "the graph's weights or the precision of its provider put values out of range; try its float32 export, or \
                 precision = \"float32\" in [device]"
            }
        }
    }
}
