//! Mistakes with Flux.

use super::Row;

/// Line 6 is the guidance, 8 and 9 the size.
const FLUX: &str = "\
[model]
path = 'MODEL'

[task.text-to-image]
prompt = 'a red circle'
guidance_scale = 3.5

[run]
width = 32
height = 48
steps = 2
seed = 1

[output]
dir = 'out'
";

pub fn rows() -> Vec<Row> {
    let flux = |name| Row::new(name).base(FLUX).model("../families/flux-dev");
    vec![
        flux("a size that is no whole number of tokens").change("width = 32", "width = 36").says(&[
            "run.width",
            "36 is not a multiple of 8",
            "choose 32 or 40",
        ]),
        flux("guidance from outside, and nothing to lead away from")
            .change("guidance_scale = 3.5", "true_cfg_scale = 4.0")
            .says(&["pipeline.toml:6", "true_cfg_scale", "negative_prompt"]),
        flux("the guidance of Flux for another model")
            .model("sd1")
            .change("guidance_scale = 3.5", "negative_prompt = 'blurry'\ntrue_cfg_scale = 4.0")
            .change("width = 32\nheight = 48", "width = 32\nheight = 32")
            .says(&["task.text-to-image.true_cfg_scale", "guidance_scale", "Flux"]),
        flux("layers of CLIP left out")
            .change("guidance_scale = 3.5", "clip_skip = 1")
            .says(&["clip_skip", "one vector of text_encoder"]),
        flux("no T5").files(|f| f.remove("model/text_encoder_2")).says(&[
            "encoder_hidden_states",
            "width 40",
            "text_encoder_2/model.onnx",
        ]),
        flux("latents as diffusers packs them")
            .change("seed = 1", "seed = 1\nlatents = 'packed.npy'")
            .files(|f| f.array("packed.npy", &[1, 24, 64]))
            .says(&["packed.npy", "[1, 24, 64]", "[1, 16, 12, 8]"]),
        flux("position ids without their other half")
            .files(|f| {
                f.replace("model/transformer/model.onnx", "img_ids", "img_eds");
                f.replace("model/transformer/model.onnx", "img_ids", "img_eds");
            })
            .says(&["model/transformer/model.onnx", "txt_ids", "img_ids and txt_ids"]),
    ]
}
