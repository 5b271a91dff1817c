//! Layouts that are nobody's in particular: fixed axes, and directories without a configuration.

use serde_json::Value;

use super::Row;
use super::files::Files;
use super::graph::{F16, F32, F64, I32, I64};
use super::rows::{CONTROL, DDIM, PNDM, SD1, XL, made, strip};

/// Axes that are fixed, and element types of the timestep.
pub fn axes() -> Vec<Row> {
    let batch_of = |n: usize| {
        made(SD1, |files| {
            files.edit("unet/model.onnx", |g| {
                g.input("sample", F32, &format!("{n}, 4, height, width")).input("timestep", F32, &n.to_string());
                g.input("encoder_hidden_states", F32, &format!("{n}, 16, 16"));
                g.output("out_sample", F32, &format!("{n}, 4, height, width"))
            });
            files.edit("text_encoder/model.onnx", |g| g.input("input_ids", I64, &format!("{n}, 16")));
            files.edit("vae_decoder/model.onnx", |g| g.input("latent_sample", F32, &format!("{n}, 4, h, w")));
            files.edit("vae_encoder/model.onnx", |g| g.input("sample", F32, &format!("{n}, 3, h, w")));
        })
    };
    let sized = made(SD1, |files| {
        files.edit("unet/model.onnx", |g| {
            g.input("sample", F32, "batch, 4, 8, 8").output("out_sample", F32, "batch, 4, 8, 8")
        });
        files.edit("vae_decoder/model.onnx", |g| {
            g.input("latent_sample", F32, "batch, 4, 8, 8").output("sample", F32, "batch, 3, 64, 64")
        });
    });
    let timestep = |dtype: u64, shape: &'static str| {
        made(SD1, |files| {
            files.edit("unet/model.onnx", |g| g.input("timestep", dtype, shape));
        })
    };
    let control = made(CONTROL, |files| {
        for graph in ["unet", "controlnet", "controlnet_1"].map(|part| format!("{part}/model.onnx")) {
            files.edit(&graph, |g| g.rows(1));
        }
    });
    // The second network calls the axes of its image by the names of the first one's latents.
    let renamed = made(CONTROL, |files| {
        files.edit("controlnet_1/model.onnx", |g| {
            g.input("sample", F32, "batch, 4, rows, columns").input("controlnet_cond", F32, "batch, 3, height, width")
        });
    });
    vec![
        Row::new("ControlNets with other names for their axes", "families/control", renamed)
            .change("../../../fixtures/families/control/controlnet_1", "model/controlnet_1"),
        Row::new("fixed to batches of one, control", "families/control", control)
            .inspected(&["fixed batch size 1"])
            .change("../../../fixtures/families/control/controlnet_1", "model/controlnet_1"),
        Row::new(
            "fixed to batches of two, Stable Diffusion XL",
            "families/xl",
            made(XL, |files| {
                files.edit("unet/model.onnx", |g| g.rows(2));
                files.edit("text_encoder/model.onnx", |g| g.rows(2));
                files.edit("text_encoder_2/model.onnx", |g| g.rows(1));
                files.edit("vae_decoder/model.onnx", |g| g.rows(2));
            }),
        ),
        Row::new(
            "fixed to batches of two, Stable Diffusion 3",
            "families/sd3",
            made("families/sd3", |files| {
                for part in ["text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae_decoder"] {
                    files.edit(&format!("{part}/model.onnx"), |g| g.rows(2));
                }
            }),
        ),
        Row::new("fixed to batches of one", "pipelines/negative", batch_of(1)).inspected(&["fixed batch size 1"]),
        Row::new("fixed to batches of two", "pipelines/negative", batch_of(2)).inspected(&["fixed batch size 2"]),
        Row::new("fixed to batches of two, without guidance", "pipelines/no-guidance", batch_of(2)),
        Row::new("fixed to batches of three", "pipelines/image-to-image-80", batch_of(3)),
        Row::new("fixed size", "pipelines/plain", sized).inspected(&["only size", "64 × 64"]),
        Row::new("timestep in double precision", "pipelines/plain", timestep(F64, "1")).inspected(&["float64"]),
        Row::new("timestep int32", "pipelines/plain", timestep(I32, "")).inspected(&["int32"]),
        Row::new("timestep in half precision", "pipelines/plain", timestep(F16, "")),
    ]
}

/// Neither model_index.json nor any config.json.
pub fn bare() -> Vec<Row> {
    let written_out = made(SD1, |files| {
        let json = |bytes: Vec<u8>| -> Value { serde_json::from_slice(&bytes).expect("the fixture is JSON") };
        let vocabulary = json(files.get("tokenizer/vocab.json"));
        let merges = String::from_utf8(files.get("tokenizer/merges.txt")).expect("the merges are text");
        let merges: Vec<&str> = merges.lines().filter(|line| !line.starts_with("#version")).collect();
        let text = Files::of("tokenizer-json").get("tokenizer.json");
        let mut whole = json(text);
        let (start, end) = (&vocabulary["<|startoftext|>"], &vocabulary["<|endoftext|>"]);
        whole["padding"]["pad_id"] = end.clone();
        whole["added_tokens"][0]["id"] = start.clone();
        whole["added_tokens"][1]["id"] = end.clone();
        whole["post_processor"]["cls"][1] = start.clone();
        whole["post_processor"]["sep"][1] = end.clone();
        whole["model"]["merges"] = merges.into();
        whole["model"]["vocab"] = vocabulary;
        files.without("tokenizer/vocab.json").without("tokenizer/merges.txt");
        files.put("tokenizer/tokenizer.json", whole.to_string());
    });
    vec![
        Row::new("nothing but graphs", "pipelines/plain", made(SD1, strip))
            .inspected(&["without model_index.json", "0.18215", "pixels per latent"])
            .change("[run]", PNDM),
        Row::new("nothing but graphs, a factor of 4, v-prediction", "pipelines/sd2v", made("models/sd2v", strip))
            .inspected(&["pixels per latent         4", "2 doublings in vae_decoder"])
            .change("[run]", DDIM.replace("clip_sample", "prediction_type = \"v_prediction\"\nclip_sample")),
        Row::new("nothing but graphs, control", "families/control", made(CONTROL, strip))
            .change("[run]", DDIM)
            .change("../../../fixtures/families/control/controlnet_1", "model/controlnet_1"),
        Row::new("nothing but graphs, Stable Diffusion 3", "families/sd3", made("families/sd3", strip))
            .inspected(&["1.5305", "0.0609", "Stable Diffusion 3"])
            .change("[run]", "[scheduler.flow-match-euler]\nshift = 3.0\n\n[run]\nwidth = 32\nheight = 32"),
        Row::new("tokenizer.json alone", "pipelines/plain", written_out),
    ]
}
