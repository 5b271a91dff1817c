//! The layouts.

use super::Row;
use super::files::Files;
use super::flux;
use super::free;
use super::graph::{BOOL, F16, F32, F64, Graph, I32, I64};
use super::lengths;
use super::pixart;
use super::refused::rename_class;
use super::sana;

pub fn rows() -> Vec<Row> {
    let of_families = [flux::rows(), pixart::rows(), sana::rows(), lengths::rows()];
    [diffusers(), optimum(), named_families(), directml(), runtime_demos(), others(), free::axes(), free::bare()]
        .into_iter()
        .chain(of_families)
        .flatten()
        .collect()
}

pub const LEGACY: &str = "models/sd1-legacy";
pub const SD1: &str = "models/sd1";
pub const XL: &str = "families/xl";
pub const CONTROL: &str = "families/control";
pub const DDIM: &str = "[scheduler.ddim]\nbeta_schedule = \"scaled_linear\"\nbeta_start = 0.00085\nbeta_end = 0.012\n\
    clip_sample = false\nset_alpha_to_one = false\nsteps_offset = 1\n\n[run]";
pub const PNDM: &str = "[scheduler.pndm]\nbeta_schedule = \"scaled_linear\"\nbeta_start = 0.00085\nbeta_end = 0.012\n\
    skip_prk_steps = true\nset_alpha_to_one = false\nsteps_offset = 1\n\n[run]";
const EULER: &str = "[scheduler.euler]\nbeta_schedule = \"scaled_linear\"\nbeta_start = 0.00085\nbeta_end = 0.012\n\
    timestep_spacing = \"leading\"\nsteps_offset = 1\n\n[run]";

/// A fixture's files, changed.
pub fn made(fixture: &str, change: impl FnOnce(&mut Files)) -> Files {
    let mut files = Files::of(fixture);
    change(&mut files);
    files
}

/// Leaves graphs, tokenizers and weights.
pub fn strip(files: &mut Files) {
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
            .inspected(&["samples internally"])
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
    let sd3 = made("families/sd3", |files| {
        let axes = "batch_size, sequence_length";
        for encoder in ["text_encoder", "text_encoder_2", "text_encoder_3"] {
            files.edit(&format!("{encoder}/model.onnx"), |g| g.input("input_ids", I64, axes));
        }
        files.edit("transformer/model.onnx", |g| {
            g.input("hidden_states", F32, "batch_size, 16, height, width").input("timestep", F32, "step");
            g.input("encoder_hidden_states", F32, &format!("{axes}, 40")).input(
                "pooled_projections",
                F32,
                "batch_size, 32",
            )
        });
    });
    vec![
        Row::new("Optimum, Stable Diffusion 3", "families/sd3", sd3).inspected(&["pooled text", "1.5305"]),
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

/// Models whose class nobody knows, with their family in the pipeline file.
fn named_families() -> Vec<Row> {
    let of = |name, case, family: &str| {
        let files = made(case, |files| rename_class(files, "MyOwnPipeline"));
        let row = Row::new(name, case, files).faulty();
        row.change("[model]\n", format!("[model]\nfamily = \"{family}\"\n"))
    };
    vec![
        of("an unknown class, XL by its family", XL, "stable-diffusion-xl"),
        of("an unknown class, Stable Diffusion 3 by its family", "families/sd3", "stable-diffusion-3"),
        of("an unknown class, Flux by its family", "families/flux-dev", "flux"),
    ]
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
    let refiner = made("families/refiner", |files| {
        files
            .edit("unet/model.onnx", |g| g.rename("text_embeds", "onnx::Concat_4").rename("time_ids", "onnx::Shape_5"));
    });
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
            .limit(2e-3),
        Row::new("Olive, auto-named inputs of XL", "families/xl", auto_named(["batch, 16", "batch, 6"])).inspected(&[
            "onnx::Concat_4",
            "pooled text",
            "sizes and crop",
        ]),
        Row::new("Olive, auto-named inputs of XL, fixed to one row", "families/xl", auto_named(["1, 16", "1, 6"]))
            .inspected(&["fixed batch size 1"]),
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
        Row::new("Olive, auto-named inputs of a refiner", "families/refiner", refiner).inspected(&[
            "onnx::Shape_5",
            "[batch, 5]",
            "sizes and crop",
        ]),
        Row::new("OnnxStack", "pipelines/legacy", made(LEGACY, onnx_stack))
            .inspected(&["without model_index.json", "OnnxStack", "model.onnx.data", "0.18215"])
            .change("[run]", PNDM),
        Row::new("OnnxStack, Stable Diffusion XL", "families/xl", stack_xl)
            .inspected(&["switch, true"])
            .change("[run]", EULER)
            .change("seed", "width = 32\nheight = 32\nseed"),
        stack_control("OnnxStack, controlnet/ with a UNet in it", "controlnet"),
        stack_control_by_map(),
        stack_control("onnx-web, cnet/ with a UNet in it, names without suffix", "cnet"),
        Row::new("AMD, _io32", "pipelines/legacy", io32).folder("stable-diffusion_io32").inspected(&["weights"]),
    ]
}

/// The same with names of their own for the inputs of the control networks and of the UNet beside the plain one.
fn stack_control_by_map() -> Row {
    let mut row = stack_control("OnnxStack, inputs by a map", "controlnet");
    row.files.edit("controlnet/model.onnx", |g| g.rename("sample", "x0"));
    for network in ["networks/first/model.onnx", "networks/second/model.onnx"] {
        row.files.edit(network, |g| g.rename("sample", "x0").rename("controlnet_cond", "x1"));
    }
    row.change("[task", "[model.controlnet.inputs]\nx0 = \"sample\"\nx1 = \"control\"\n\n[task")
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
        .inspected(&["control residual 0", "a denoiser that takes ControlNet residuals"])
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
            .limit(2e-4),
        sized(
            Row::new("ONNX Runtime CUDA, XL", "families/xl", xl(str::to_owned))
                .inspected(&["unetxl/model.onnx", "state chosen at export"])
                .limit(2e-4),
        ),
        Row::new("TensorRT demo", "pipelines/plain", sd(|p| format!("{p}.opt"), F32))
            .inspected(&["unet.opt/model.onnx", "TensorRT's demo"])
            .change("[run]", PNDM),
        sized(Row::new("TensorRT demo, XL", "families/xl", xl(|p| format!("{p}.opt"))).limit(2e-4)),
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
    let anywhere = made(LEGACY, |files| {
        let name = "unet/7f3c6b1e-2a5d-11ee-be56-0242ac120002";
        files.shift("unet/weights.pb", name);
        files.edit("unet/model.onnx", |g| g.weights_in(&name[5..]));
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
        Row::new("weights in a file of any name", "pipelines/legacy", anywhere).inspected(&["0242ac120002"]),
        Row::new("side by side", "pipelines/plain", flat).inspected(&["all graphs in one directory"]),
    ]
}
