//! Layouts of Sana.

use super::Row;
use super::files::Files;
use super::graph::{BOOL, F32, Graph, I32, I64};
use super::rows::{made, strip};

const SANA: &str = "families/sana";

const TRANSFORMER: &str = "transformer/model.onnx";
const TEXT_ENCODER: &str = "text_encoder/model.onnx";

fn edited(graph: &str, change: impl for<'g> FnOnce(&'g mut Graph) -> &'g mut Graph) -> Files {
    made(SANA, |files| {
        files.edit(graph, change);
    })
}

pub fn rows() -> Vec<Row> {
    let optimum = made(SANA, |files| {
        let axes = "batch_size, sequence_length";
        files.edit(TEXT_ENCODER, |g| g.input("input_ids", I64, axes).input("attention_mask", I32, axes));
        files.edit(TRANSFORMER, |g| {
            g.input("hidden_states", F32, "batch_size, 32, height, width")
                .input("encoder_hidden_states", F32, &format!("{axes}, 16"))
                .input("encoder_attention_mask", F32, axes)
        });
    });
    let unnamed = edited(TRANSFORMER, |g| {
        g.input("encoder_attention_mask", BOOL, "batch, sequence").rename("encoder_attention_mask", "onnx::Cast_2")
    });
    let scheduler = "[scheduler.dpm-multistep]\nprediction_type = \"flow_prediction\"\nuse_flow_sigmas = true\n\
        flow_shift = 3.0\n\n[run]";
    vec![
        Row::new("Optimum, Sana, float32 mask", SANA, optimum).inspected(&[
            "mask over the context",
            "Sana, which reads 300 tokens",
            "text-to-image, image-to-image",
        ]),
        Row::new("Sana, a bool mask without a name", SANA, unnamed)
            .inspected(&["onnx::Cast_2", "mask over the context"]),
        Row::new("nothing but graphs, Sana", SANA, made(SANA, strip))
            .inspected(&["0.41407", "that of Sana", "5 doublings in vae_decoder"])
            .change("[run]", scheduler),
    ]
}

/// What is refused, each with the texts that are said of it.
pub fn refused() -> Vec<(Files, &'static [&'static str])> {
    vec![
        (
            edited(TRANSFORMER, |g| g.rename("encoder_attention_mask", "zero").zeros("zero")),
            &["takes no mask over its tokens", "scripts/export.py"],
        ),
        (
            edited(TEXT_ENCODER, |g| g.rename("attention_mask", "zero").zeros("zero")),
            &["text_encoder/model.onnx", "has no input attention_mask"],
        ),
        (
            edited(TEXT_ENCODER, |g| g.redeclare("input_ids", I64, "batch, 300")),
            &["input_ids takes exactly 300 tokens", "678", "complex_human_instruction = \"\""],
        ),
        (
            made(SANA, |files| {
                files.without("tokenizer").put("tokenizer/tokenizer.model", [0; 8]);
            }),
            &["tokenizer.model and no tokenizer.json", "AutoTokenizer"],
        ),
        (
            made(SANA, |files| {
                files.without("tokenizer");
                for file in ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"] {
                    let name = format!("tokenizer/{file}");
                    files.put(&name, Files::of("families/sd3").get(&name));
                }
            }),
            &["is not a lone Gemma, as that of Sana"],
        ),
    ]
}
