//! The layouts.

use serde_json::Value;

use crate::Row;
use crate::files::Files;
use crate::graph::{BOOL, F16, F32, F64, Graph, I32, I64};

pub fn rows() -> Vec<Row> {
    [diffusers(), optimum(), directml(), runtime_demos(), others(), axes(), bare()].into_iter().flatten().collect()
}

const LEGACY: &str = "models/sd1-legacy";
const SD1: &str = "models/sd1";
const XL: &str = "families/xl";
const CONTROL: &str = "families/control";
const DDIM: &str = "[scheduler.ddim]\nbeta_schedule = \"scaled_linear\"\nbeta_start = 0.00085\nbeta_end = 0.012\n\
    clip_sample = false\nset_alpha_to_one = false\nsteps_offset = 1\n\n[run]";
const PNDM: &str = "[scheduler.pndm]\nbeta_schedule = \"scaled_linear\"\nbeta_start = 0.00085\nbeta_end = 0.012\n\
    skip_prk_steps = true\nset_alpha_to_one = false\nsteps_offset = 1\n\n[run]";
const EULER: &str = "[scheduler.euler]\nbeta_schedule = \"scaled_linear\"\nbeta_start = 0.00085\nbeta_end = 0.012\n\
    timestep_spacing = \"leading\"\nsteps_offset = 1\n\n[run]";

fn made(fixture: &str, change: impl FnOnce(&mut Files)) -> Files {
    let mut files = Files::of(fixture);
    change(&mut files);
    files
}

/// Leaves graphs, tokenizers and weights.
fn strip(files: &mut Files) {
    files.without("model_index.json").without("scheduler").without_all("/config.json");
}

fn diffusers() -> Vec<Row> {
    let upscaler = made("families/upscale", |files| {
        files.without_all("/config.json").without("vae_encoder").shift("vae_decoder", "vae");
        files.edit("text_encoder/model.onnx", |g| g.input("input_ids", I32, "batch, sequence"));
    });
    vec![
        Row::new("diffusers, legacy", "pipelines/legacy", Files::of(LEGACY))
            .inspected(&["diffusers' legacy ONNX layout", "weights.pb"]),
        Row::new("diffusers, legacy, encoder that draws", "pipelines/image-to-image-100", Files::of(LEGACY))
            .inspected(&["draws its own noise"])
            .limit(f32::INFINITY)
            .warned("vae_encoder draws its noise inside the graph"),
        Row::new(
            "diffusers, legacy, return_dict left over",
            "pipelines/legacy",
            made(LEGACY, |files| {
                files.edit("unet/model.onnx", |g| g.leftover("return_dict", BOOL, ""));
            }),
        )
        .inspected(&["switch, false"]),
        Row::new(
            "diffusers, legacy, int64 timestep [1]",
            "pipelines/legacy",
            made(LEGACY, |files| {
                files.edit("unet/model.onnx", |g| g.input("timestep", I64, "batch"));
            }),
        ),
        Row::new("diffusers, legacy upscaler with vae/", "families/upscale", upscaler)
            .inspected(&["super-resolution", "vae/model.onnx"]),
    ]
}

fn optimum() -> Vec<Row> {
    let older = |files: &mut Files| {
        files.edit("text_encoder/model.onnx", |g| g.input("input_ids", I32, "batch_size, sequence_length"));
        files.edit("unet/model.onnx", |g| g.input("timestep", I64, "steps"));
    };
    let oldest = made(SD1, |files| {
        older(files);
        files.put("vae_encoder/model.onnx", Files::of(LEGACY).get("vae_encoder/model.onnx"));
    });
    let xl = made(XL, |files| {
        files.edit("unet/model.onnx", |g| g.input("timestep", I64, "steps"));
        files.edit("text_encoder/model.onnx", |g| g.input("input_ids", I32, "batch_size, sequence_length"));
        files.edit("text_encoder_2/model.onnx", |g| g.input("input_ids", I32, "batch_size, sequence_length"));
    });
    vec![
        Row::new("Optimum up to 1.22", "pipelines/plain", oldest).inspected(&[
            "Optimum up to 1.22",
            "int64",
            "latents, drawn inside the graph",
        ]),
        Row::new("Optimum 1.23", "pipelines/image-to-image-80", made(SD1, older)).inspected(&[
            "Optimum 1.23",
            "int32",
            "moments",
        ]),
        Row::new("Optimum 1.24 and later", "pipelines/image-to-image-80", Files::of(SD1))
            .inspected(&["Optimum 1.24", "config.json"]),
        Row::new("Optimum, Stable Diffusion XL, int64 timestep", "families/xl", xl).inspected(&["sizes and crop"]),
    ]
}

/// The names that Olive's old recipes gave the axes, and OnnxStack after them.
fn olive_axes(g: &mut Graph) -> &mut Graph {
    g.input("sample", F32, "unet_sample_batch, 4, unet_sample_height, unet_sample_width")
        .input("timestep", F32, "unet_time_batch")
        .input("encoder_hidden_states", F32, "unet_hidden_batch, unet_hidden_sequence, 16")
        .output("out_sample", F32, "unet_sample_batch, 4, unet_sample_height, unet_sample_width")
}

fn halves(g: &mut Graph) -> &mut Graph {
    g.input("sample", F16, "unet_sample_batch, 4, unet_sample_height, unet_sample_width")
        .input("timestep", F16, "unet_time_batch")
        .input("encoder_hidden_states", F16, "unet_hidden_batch, unet_hidden_sequence, 16")
        .output("out_sample", F16, "unet_sample_batch, 4, unet_sample_height, unet_sample_width")
}

fn onnx_stack(files: &mut Files) {
    strip(files);
    let weights = files.get("unet/weights.pb");
    files.without("unet/weights.pb").put("unet/model.onnx.data", weights);
    files.edit("unet/model.onnx", |g| {
        olive_axes(g);
        g.weights_in("model.onnx.data")
    });
}

fn directml() -> Vec<Row> {
    let olive_half = made(LEGACY, |files| {
        files.edit("unet/model.onnx", halves);
        files.edit("vae_decoder/model.onnx", |g| {
            g.input("latent_sample", F16, "vd_batch, 4, vd_h, vd_w").output("sample", F16, "vd_batch, 3, vd_H, vd_W")
        });
        files.edit("text_encoder/model.onnx", |g| {
            g.output("last_hidden_state", F16, "batch, sequence, 16").output("pooler_output", F16, "batch, 16")
        });
    });
    let auto_named = |axes: [&'static str; 2]| {
        made(XL, |files| {
            files.edit("unet/model.onnx", |g| {
                g.rename("text_embeds", "onnx::Concat_4").rename("time_ids", "onnx::Shape_5");
                g.input("onnx::Concat_4", F32, axes[0]).input("onnx::Shape_5", F32, axes[1])
            });
        })
    };
    let stack_xl = made(XL, |files| {
        strip(files);
        files.edit("text_encoder/model.onnx", |g| g.input("input_ids", I32, "batch, sequence"));
        files.edit("text_encoder_2/model.onnx", |g| g.leftover("output_hidden_states", BOOL, ""));
    });
    let io32 = made(LEGACY, |files| {
        let weights = files.get("unet/weights.pb");
        files.without("unet/weights.pb").put("unet/model.onnx.data", weights);
        files.edit("unet/model.onnx", |g| {
            olive_axes(g);
            g.weights_in("model.onnx.data")
        });
    });
    vec![
        Row::new("Olive, DirectML names, all of it half precision", "pipelines/legacy", olive_half)
            .inspected(&["axes named unet_", "float16"])
            .limit(5e-3),
        Row::new("Olive, auto-named inputs of XL", "families/xl", auto_named(["batch, 16", "batch, 6"])).inspected(&[
            "onnx::Concat_4",
            "pooled text",
            "sizes and crop",
        ]),
        Row::new("Olive, auto-named inputs of XL, fixed to one row", "families/xl", auto_named(["1, 16", "1, 6"]))
            .inspected(&["fixed to batches of 1"]),
        Row::new(
            "Olive, auto-named inputs, no config",
            "families/xl",
            made(XL, |files| {
                strip(files);
                files.edit("unet/model.onnx", |g| {
                    g.rename("text_embeds", "onnx::Concat_4").rename("time_ids", "onnx::Shape_5")
                });
            }),
        )
        .inspected(&["0.13025"])
        .change("[run]", EULER)
        .change("seed", "width = 32\nheight = 32\nseed"),
        Row::new("OnnxStack", "pipelines/legacy", made(LEGACY, onnx_stack))
            .inspected(&["without model_index.json", "OnnxStack", "model.onnx.data", "0.18215"])
            .change("[run]", PNDM),
        Row::new("OnnxStack, Stable Diffusion XL", "families/xl", stack_xl)
            .inspected(&["switch, true"])
            .change("[run]", EULER)
            .change("seed", "width = 32\nheight = 32\nseed"),
        stack_control("OnnxStack, controlnet/ with a UNet in it", "controlnet"),
        stack_control("onnx-web, cnet/ with a UNet in it, names without suffix", "cnet"),
        Row::new("AMD, _io32", "pipelines/legacy", io32).folder("stable-diffusion_io32").inspected(&["weights"]),
    ]
}

/// A plain UNet, one that takes residuals under the name of a control network, and control networks of their own.
fn stack_control(name: &'static str, folder: &'static str) -> Row {
    let files = made(CONTROL, |files| {
        let with_residuals = files.get("unet/model.onnx");
        files.edit("unet/model.onnx", |g| g.zeros("down_block").zeros("mid_block"));
        files.shift("controlnet", "networks/first").shift("controlnet_1", "networks/second");
        for network in ["networks/first/model.onnx", "networks/second/model.onnx"] {
            files.edit(network, |g| g.input("conditioning_scale", F64, "1"));
        }
        files.put(&format!("{folder}/model.onnx"), with_residuals);
        if folder == "cnet" {
            files.edit("cnet/model.onnx", |g| g.shorten("down_block", "_additional_residual"));
        }
    });
    Row::new(name, "families/control", files)
        .inspected(&["control residual 0", "a denoiser that takes a control network's residuals"])
        .change("image = \"a.png\"", "image = \"a.png\"\npath = \"model/networks/first\"")
        .change("../../../fixtures/families/control/controlnet_1", "model/networks/second")
}

fn demo(files: &mut Files, part: impl Fn(&str) -> String) {
    strip(files);
    files.shift("text_encoder", &part("clip")).shift("vae_decoder", &part("vae"));
    files.shift("vae_encoder", &part("vae_encoder"));
    files.edit(&format!("{}/model.onnx", part("vae")), |g| {
        g.rename("sample", "images").rename("latent_sample", "latent")
    });
    files.edit(&format!("{}/model.onnx", part("vae_encoder")), |g| g.rename("sample", "images"));
}

/// ONNX Runtime's CUDA demo (tlwu) and TensorRT's.
fn runtime_demos() -> Vec<Row> {
    let sd = |part: fn(&str) -> String, context: u64| {
        made(SD1, |files| {
            demo(files, part);
            files.shift("unet", &part("unet"));
            files.edit(&format!("{}/model.onnx", part("clip")), |g| {
                g.without_output("pooler_output").rename("last_hidden_state", "text_embeddings");
                g.input("input_ids", I32, "B, 16")
            });
            files.edit(&format!("{}/model.onnx", part("unet")), |g| {
                g.rename("out_sample", "latent").input("timestep", F32, "1");
                g.input("encoder_hidden_states", context, "2B, 16, 16").input("sample", F32, "2B, 4, H, W")
            });
            files.edit(&format!("{}/model.onnx", part("vae_encoder")), |g| g.rename("latent_parameters", "latent"));
        })
    };
    let xl = |part: fn(&str) -> String| {
        made(XL, |files| {
            files.shift("text_encoder_2", &part("clip2"));
            demo(files, part);
            files.shift("unet", &part("unetxl"));
            files.edit(&format!("{}/model.onnx", part("clip")), |g| {
                g.without_output("hidden_states.0").without_output("hidden_states.2").without_output("pooler_output");
                g.rename("hidden_states.1", "hidden_states").rename("last_hidden_state", "text_embeddings");
                g.input("input_ids", I32, "B, 16")
            });
            files.edit(&format!("{}/model.onnx", part("clip2")), |g| {
                g.without_output("hidden_states.0")
                    .without_output("hidden_states.2")
                    .without_output("last_hidden_state");
                g.rename("hidden_states.1", "hidden_states").rename("text_embeds", "text_embeddings");
                g.input("input_ids", I32, "B, 16")
            });
            files.edit(&format!("{}/model.onnx", part("unetxl")), |g| {
                g.rename("out_sample", "latent").input("encoder_hidden_states", F16, "2B, 16, 32")
            });
        })
    };
    let sized = |row: Row| row.change("[run]", EULER).change("seed", "width = 32\nheight = 32\nseed");
    vec![
        Row::new("ONNX Runtime CUDA, engine/", "pipelines/plain", sd(|p| format!("engine/{p}.ort_cuda.fp16"), F16))
            .inspected(&["engine/unet.ort_cuda.fp16/model.onnx", "text_embeddings", "float16"])
            .change("[run]", PNDM)
            .limit(2e-3),
        sized(
            Row::new("ONNX Runtime CUDA, XL", "families/xl", xl(str::to_owned))
                .inspected(&["unetxl/model.onnx", "state chosen at export"])
                .limit(2e-3),
        ),
        Row::new("TensorRT demo", "pipelines/plain", sd(|p| format!("{p}.opt"), F32))
            .inspected(&["unet.opt/model.onnx"])
            .change("[run]", PNDM),
        sized(Row::new("TensorRT demo, XL", "families/xl", xl(|p| format!("{p}.opt"))).limit(2e-3)),
    ]
}

fn others() -> Vec<Row> {
    let web = made(SD1, |files| {
        for part in ["text_encoder", "unet", "vae_decoder", "vae_encoder"] {
            files.shift(&format!("{part}/model.onnx"), &format!("{part}/onnx/model_fp16.onnx"));
        }
    });
    let web_root = made(SD1, |files| {
        for part in ["text_encoder", "unet", "vae_decoder", "vae_encoder"] {
            files.shift(&format!("{part}/model.onnx"), &format!("onnx/{part}_fp16.onnx"));
        }
    });
    let flat = made(SD1, |files| {
        for part in ["text_encoder", "unet", "vae_decoder", "vae_encoder"] {
            files.shift(&format!("{part}/model.onnx"), &format!("{part}.onnx"));
        }
        files.without_all("/config.json");
    });
    let unnamed = made(XL, |files| {
        files.edit("unet/model.onnx", |g| {
            g.rename("sample", "x0").rename("timestep", "x1").rename("encoder_hidden_states", "x2");
            g.rename("text_embeds", "x3").rename("time_ids", "x4")
        });
        files.edit("vae_decoder/model.onnx", |g| g.rename("latent_sample", "x0"));
    });
    vec![
        Row::new("names that say nothing", "families/xl", unnamed)
            .faulty()
            .inspected(&["x3  float32  [batch, 16]", "[model.unet] inputs = { \"x3\" ="])
            .change("[task", "[model.unet.inputs]\nx3 = \"text_embeds\"\n\n[task"),
        Row::new("transformers.js, onnx/ in each part", "pipelines/image-to-image-80", web)
            .inspected(&["unet/onnx/model_fp16.onnx", "unet/config.json"]),
        Row::new("transformers.js, onnx/ beside the parts", "pipelines/image-to-image-80", web_root)
            .inspected(&["onnx/unet_fp16.onnx"]),
        Row::new("side by side", "pipelines/plain", flat).inspected(&["graphs side by side"]),
    ]
}

fn axes() -> Vec<Row> {
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
    vec![
        Row::new("fixed to batches of one", "pipelines/negative", batch_of(1)).inspected(&["fixed to batches of 1"]),
        Row::new("fixed to batches of two", "pipelines/negative", batch_of(2)).inspected(&["fixed to batches of 2"]),
        Row::new("fixed to batches of two, without guidance", "pipelines/no-guidance", batch_of(2)),
        Row::new("fixed to batches of three", "pipelines/image-to-image-80", batch_of(3)),
        Row::new("fixed size", "pipelines/plain", sized).inspected(&["only size", "64 × 64"]),
        Row::new("timestep in double precision", "pipelines/plain", timestep(F64, "1")).inspected(&["float64"]),
        Row::new("timestep int32", "pipelines/plain", timestep(I32, "")).inspected(&["int32"]),
        Row::new("timestep in half precision", "pipelines/plain", timestep(F16, "")).limit(2e-2),
    ]
}

/// Neither model_index.json nor any config.json.
fn bare() -> Vec<Row> {
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
            .inspected(&["pixels per latent          4", "2 doublings in vae_decoder"])
            .change(
                "[run]",
                format!("{DDIM}").replace("clip_sample", "prediction_type = \"v_prediction\"\nclip_sample"),
            ),
        Row::new("nothing but graphs, control", "families/control", made(CONTROL, strip))
            .change("[run]", DDIM)
            .change("../../../fixtures/families/control/controlnet_1", "model/controlnet_1"),
        Row::new("tokenizer.json alone", "pipelines/plain", written_out),
    ]
}
