//! Mistakes in LoRA files, and LoRAs of other models.

use crate::common::root;

use super::Row;

/// A LoRA of scripts/goldens/golden_lora.py, or what else that script makes.
fn golden(name: &str) -> Vec<u8> {
    let path = root().join("tests/golden/lora/files").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A safetensors file of float32 zeros.
fn zeros(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let (mut header, mut at) = (Vec::new(), 0);
    for (name, shape) in tensors {
        let end = at + 4 * shape.iter().product::<usize>();
        header.push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{at},{end}]}}"#));
        at = end;
    }
    header.push(r#""__metadata__":{"ss_base_model_version":"sdxl_base_v1-0"}"#.to_owned());
    let header = format!("{{{}}}", header.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; at]].concat()
}

const LORA: &str = "\n[[lora]]\npath = 'style.safetensors'\n";

/// Layers of the tiny model that there are.
const TO_K: &str = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";

fn pair(module: &str, down: &[usize], up: &[usize]) -> Vec<u8> {
    zeros(&[(&format!("{module}.lora_down.weight"), down), (&format!("{module}.lora_up.weight"), up)])
}

pub fn rows() -> Vec<Row> {
    let row = |name| Row::new(name).add(LORA);
    vec![
        row("no such LoRA").says(&["style.safetensors", "no such file", "[[lora]]"]),
        row("a folder for a LoRA").files(|f| f.write("style.safetensors/a.txt", "a")).says(&[
            "style.safetensors",
            "directory",
            "the .safetensors file in it",
        ]),
        row("an empty LoRA").files(|f| f.write("style.safetensors", "")).says(&["style.safetensors", "empty"]),
        row("a LoRA that is cut off")
            .files(|f| {
                let whole = golden("kohya.safetensors");
                f.write("style.safetensors", &whole[..whole.len() - 100]);
            })
            .says(&["style.safetensors", "truncated", "download"]),
        row("a LoRA whose header is cut off")
            .files(|f| f.write("style.safetensors", &golden("kohya.safetensors")[..100]))
            .says(&["style.safetensors", "safetensors", "download"]),
        row("a pointer for a LoRA")
            .files(|f| {
                f.write("style.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\n")
            })
            .says(&["style.safetensors", "Git LFS", "git lfs pull"]),
        row("a web page for a LoRA")
            .files(|f| f.write("style.safetensors", "<!DOCTYPE html>\n<html></html>"))
            .says(&["style.safetensors", "web page"]),
        row("a pickle for a LoRA").files(|f| f.write("style.safetensors", b"PK\x03\x04 archive/data.pkl")).says(&[
            "style.safetensors",
            "pickle",
            ".safetensors",
        ]),
        row("a model for a LoRA")
            .files(|f| {
                f.write("style.safetensors", zeros(&[("model.diffusion_model.out.2.weight", &[4, 4]), ("x", &[1])]));
            })
            .says(&["style.safetensors", "model.diffusion_model.out.2.weight and 1 more", "not a whole model"]),
        row("nothing in a LoRA").files(|f| f.write("style.safetensors", zeros(&[]))).says(&["contains no LoRA"]),
        row("DoRA")
            .files(|f| {
                let (down, up) = (format!("{TO_K}.lora_down.weight"), format!("{TO_K}.lora_up.weight"));
                let scale = format!("{TO_K}.dora_scale");
                f.write("style.safetensors", zeros(&[(&down, &[2, 16]), (&up, &[16, 2]), (&scale, &[1, 16])]));
            })
            .says(&["style.safetensors", "DoRA", "to_k.dora_scale", "plain LoRA"]),
        row("LoHa")
            .files(|f| f.write("style.safetensors", zeros(&[(&format!("{TO_K}.hada_w1_a"), &[2, 16])])))
            .says(&["LoHa", "hada_w1_a"]),
        row("LoKr")
            .files(|f| f.write("style.safetensors", zeros(&[(&format!("{TO_K}.lokr_w1"), &[2, 16])])))
            .says(&["LoKr", "lokr_w1"]),
        row("LoHa on a module that there is, beside plain LoRA")
            .files(|f| {
                let (down, up) = (format!("{TO_K}.lora_down.weight"), format!("{TO_K}.lora_up.weight"));
                let other = TO_K.replace("to_k", "to_v") + ".hada_w1_a";
                f.write("style.safetensors", zeros(&[(&down, &[2, 16]), (&up, &[16, 2]), (&other, &[2, 16])]));
            })
            .says(&["style.safetensors", "LoHa", "to_v.hada_w1_a", "plain LoRA"]),
        row("LoKr on the UNet beside plain LoRA on the text encoder")
            .files(|f| {
                let module = "lora_te_text_model_encoder_layers_0_self_attn_q_proj";
                let (down, up) = (format!("{module}.lora_down.weight"), format!("{module}.lora_up.weight"));
                let other = format!("{TO_K}.lokr_w1");
                f.write("style.safetensors", zeros(&[(&down, &[2, 16]), (&up, &[16, 2]), (&other, &[2, 16])]));
            })
            .says(&["style.safetensors", "LoKr", "to_k.lokr_w1", "plain LoRA"]),
        row("a difference of biases on a module that there is")
            .files(|f| {
                let (down, up) = (format!("{TO_K}.lora_down.weight"), format!("{TO_K}.lora_up.weight"));
                let other = format!("{TO_K}.diff_b");
                f.write("style.safetensors", zeros(&[(&down, &[2, 16]), (&up, &[16, 2]), (&other, &[16])]));
            })
            .says(&["style.safetensors", "a full difference of biases", "to_k.diff_b"]),
        row("a LoRA that fits the text encoder alone")
            .files(|f| {
                let (text, unet) =
                    ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", "lora_unet_double_blocks_0_qkv");
                let ends = |module: &str| [".lora_down.weight", ".lora_up.weight"].map(|end| format!("{module}{end}"));
                let [[a, b], [c, d]] = [ends(text), ends(unet)];
                let shapes: [&[usize]; 2] = [&[2, 16], &[16, 2]];
                f.write(
                    "style.safetensors",
                    zeros(&[(&a, shapes[0]), (&b, shapes[1]), (&c, shapes[0]), (&d, shapes[1])]),
                );
            })
            .says(&["1 of 1 modules are not in", "unet/model.onnx", "double_blocks_0_qkv", "another model family"]),
        row("alphas alone")
            .files(|f| f.write("style.safetensors", zeros(&[(&format!("{TO_K}.alpha"), &[])])))
            .says(&["contains alphas but no matrices"]),
        row("half a LoRA")
            .files(|f| f.write("style.safetensors", zeros(&[(&format!("{TO_K}.lora_down.weight"), &[2, 16])])))
            .says(&["attn2_to_k", "incomplete", "lacks a matrix"]),
        row("matrices that do not fit each other")
            .files(|f| f.write("style.safetensors", pair(TO_K, &[2, 16], &[16, 3])))
            .says(&["attn2_to_k", "[2, 16]", "[16, 3]", "[out, rank]"]),
        row("a LoRA of another width").files(|f| f.write("style.safetensors", pair(TO_K, &[2, 32], &[16, 2]))).says(&[
            "style.safetensors",
            "unet/model.onnx",
            "attn2_to_k (expected a weight [16, 16], found [16, 32])",
            "another model family",
            "sdxl_base_v1-0",
        ]),
        row("a LoRA of a deeper model")
            .files(|f| {
                let module = "unet.down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_q";
                f.write("style.safetensors", pair(module, &[2, 16], &[16, 2]));
            })
            .says(&[
                "1 of 1 modules are not in",
                "unet/model.onnx",
                "down_blocks.2.attentions.0",
                "another model family",
            ]),
        row("a LoRA of a model with two text encoders")
            .files(|f| {
                let module = "lora_te2_text_model_encoder_layers_0_mlp_fc1";
                f.write("style.safetensors", pair(module, &[2, 16], &[32, 2]));
            })
            .says(&["style.safetensors", "text_encoder_2", "does not load", "another model family"]),
        row("a LoRA of which a fused graph has a module")
            .files(|f| {
                let ends = |module: &str| [".lora_down.weight", ".lora_up.weight"].map(|end| format!("{module}{end}"));
                let [[a, b], [c, d]] = [ends(TO_K), ends("lora_unet_attn1_to_qkv")];
                f.write("style.safetensors", zeros(&[(&a, &[2, 16]), (&b, &[16, 2]), (&c, &[2, 16]), (&d, &[48, 2])]));
                f.write("model/unet/model.onnx", golden("fused.onnx"));
            })
            .says(&["1 of 2 modules are not in", "attn2_to_k", "com.microsoft:MultiHeadAttention"]),
        row("a LoRA on a fused graph")
            .files(|f| {
                f.write("style.safetensors", pair(TO_K, &[2, 16], &[16, 2]));
                f.write("model/unet/model.onnx", golden("fused.onnx"));
            })
            .says(&["attn2_to_k", "fused", "com.microsoft:MultiHeadAttention", "as it was exported"]),
        Row::new("two LoRAs that are both wrong")
            .add("\n[[lora]]\npath = 'a.safetensors'\n\n[[lora]]\npath = 'b.safetensors'\nscale = 0\n")
            .says(&["a.safetensors", "b.safetensors"]),
    ]
}
