//! Layouts of PixArt.

use super::Row;
use super::files::Files;
use super::graph::{BOOL, F32, Graph, I32, I64};
use super::rows::{made, strip};

const SIGMA: &str = "families/pixart-sigma";
const ALPHA: &str = "families/pixart-alpha";

const TRANSFORMER: &str = "transformer/model.onnx";

/// The model of one of the two with the graphs that it has from others, changed.
fn whole(family: &str, change: impl FnOnce(&mut Files)) -> Files {
    made(SIGMA, |files| {
        for part in ["vae_encoder/model.onnx", "vae_decoder/model.onnx"] {
            files.put(part, Files::of("families/xl").get(part));
        }
        files.put(TRANSFORMER, Files::of(family).get(TRANSFORMER));
        change(files);
    })
}

fn transformer(family: &str, change: impl for<'g> FnOnce(&'g mut Graph) -> &'g mut Graph) -> Files {
    whole(family, |files| {
        files.edit(TRANSFORMER, change);
    })
}

/// A row whose graphs all lie in the model's folder.
fn row(name: &'static str, family: &'static str, files: Files) -> Row {
    let row = [
        "[model.vae_encoder]\ngraph = \"../../../fixtures/families/xl/vae_encoder/model.onnx\"\n",
        "[model.vae_decoder]\ngraph = \"../../../fixtures/families/xl/vae_decoder/model.onnx\"\n",
    ]
    .into_iter()
    .fold(Row::new(name, family, files), |row, table| row.change(table, ""));
    let alphas = "[model.transformer]\ngraph = \"../../../fixtures/families/pixart-alpha/transformer/model.onnx\"\n";
    if family == ALPHA { row.change(alphas, "") } else { row }
}

pub fn rows() -> Vec<Row> {
    let optimum = whole(SIGMA, |files| {
        let axes = "batch_size, sequence_length";
        files.edit("text_encoder/model.onnx", |g| g.input("input_ids", I64, axes).input("attention_mask", I32, axes));
        files.edit(TRANSFORMER, |g| {
            g.input("hidden_states", F32, "batch_size, 4, height, width")
                .input("encoder_hidden_states", F32, &format!("{axes}, 8"))
                .input("encoder_attention_mask", F32, axes)
                .input("timestep", I64, "step")
        });
    });
    let unnamed = transformer(SIGMA, |g| {
        g.input("encoder_attention_mask", BOOL, "batch, sequence").rename("encoder_attention_mask", "onnx::Cast_2")
    });
    let given = transformer(SIGMA, |g| {
        g.input("encoder_attention_mask", F32, "batch, sequence").rename("encoder_attention_mask", "told")
    });
    let alpha = transformer(ALPHA, |g| {
        g.rename("encoder_attention_mask", "onnx::Sub_2").rename("resolution", "x4").rename("aspect_ratio", "x5")
    });
    let fixed = whole(SIGMA, |files| {
        files.edit(TRANSFORMER, |g| g.rows(3).output("out_hidden_states", F32, "3, 8, h, w"));
        files.edit("text_encoder/model.onnx", |g| g.rows(2));
    });
    let scheduler = "[scheduler.dpm-multistep]\nbeta_start = 0.0001\nbeta_end = 0.02\n\n[run]";
    vec![
        row("Optimum, PixArt-Σ, float32 mask", SIGMA, optimum).inspected(&[
            "mask over the context",
            "PixArt-Σ, which reads 300",
            "text-to-image, image-to-image",
        ]),
        row("PixArt-Σ, a bool mask without a name", SIGMA, unnamed)
            .inspected(&["onnx::Cast_2", "mask over the context"]),
        row("PixArt-Σ, a mask that the pipeline file names", SIGMA, given)
            .faulty()
            .change("[task", "[model.transformer]\ninputs = { told = \"context_mask\" }\n[task"),
        row("PixArt-Σ, fixed to three rows", SIGMA, fixed).inspected(&["fixed batch size 3"]),
        row("PixArt-α, inputs without names", ALPHA, alpha).inspected(&[
            "height and width",
            "height by width",
            "PixArt-α, which reads 120",
        ]),
        row("nothing but graphs, PixArt-Σ", SIGMA, whole(SIGMA, strip))
            .inspected(&["0.13025", "that of PixArt-Σ", "that of PixArt-Σ, as no config.json"])
            .change("[run]", scheduler),
        row("nothing but graphs, PixArt-α", ALPHA, whole(ALPHA, strip))
            .inspected(&["0.18215", "that of PixArt-α"])
            .change("[run]", scheduler),
    ]
}

/// What is refused, each with the texts that are said of it.
pub fn refused() -> Vec<(Files, &'static [&'static str])> {
    vec![
        (
            transformer(SIGMA, |g| g.redeclare("encoder_attention_mask", F32, "batch, 1, sequence")),
            &["encoder_attention_mask  float32  [batch, 1, sequence]", "as PixArt takes it", "[n, tokens]"],
        ),
        (
            transformer(SIGMA, |g| g.redeclare("encoder_attention_mask", I64, "batch, 77")),
            &["encoder_attention_mask takes exactly 77 tokens", "give 300", "max_sequence_length"],
        ),
        (
            transformer(SIGMA, |g| g.rename("encoder_attention_mask", "zero").zeros("zero")),
            &["takes no mask over its tokens", "scripts/export.py"],
        ),
        (transformer(SIGMA, |g| g.redeclare("hidden_states", F32, "batch, 32, height, width")), &["takes 32 channels"]),
        (
            whole(SIGMA, |files| {
                files.edit("text_encoder/model.onnx", |g| g.rename("attention_mask", "zero").zeros("zero"));
            }),
            &["text_encoder/model.onnx", "has no input attention_mask"],
        ),
        (
            whole(SIGMA, |files| {
                files.without("tokenizer");
            }),
            &["needs a tokenizer: tokenizer.json", "copy the tokenizer/ folder"],
        ),
        (
            whole(SIGMA, |files| {
                files.without("tokenizer").put("tokenizer/spiece.model", [0; 8]);
            }),
            &["spiece.model and no tokenizer.json", "AutoTokenizer"],
        ),
        (
            whole(SIGMA, |files| {
                files.without("tokenizer");
                for file in ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"] {
                    let name = format!("tokenizer/{file}");
                    files.put(&name, Files::of("families/sd3").get(&name));
                }
            }),
            &["is not a lone T5, as that of PixArt-Σ"],
        ),
    ]
}
