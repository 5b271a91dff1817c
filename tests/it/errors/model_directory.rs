//! Mistakes in the model directory.

use super::Row;
use super::folder::Folder;

/// What a clone without Git LFS holds in the place of a large file.
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 3438167540\n";

/// The length of a text file without its last line.
fn cut_line(text: &[u8]) -> usize {
    let end = text.trim_ascii_end();
    end.iter().rposition(|&byte| byte == b'\n').expect("several lines") + 1
}

/// Replaces the last place where bytes stand in a file.
fn patch(f: &Folder, name: &str, from: &[u8], to: &[u8]) {
    let mut bytes = f.read(name);
    let at = bytes.windows(from.len()).rposition(|window| window == from);
    let at = at.unwrap_or_else(|| panic!("{from:?} is not in {name}"));
    bytes[at..at + from.len()].copy_from_slice(to);
    f.write(name, bytes);
}

pub fn rows() -> Vec<Row> {
    #[cfg(unix)]
    let links = links();
    #[cfg(not(unix))]
    let links = Vec::new();
    directories().into_iter().chain(links).collect()
}

/// Mistakes in links, of which the Hugging Face cache makes its model directories.
#[cfg(unix)]
fn links() -> Vec<Row> {
    fn link(folder: &Folder, name: &str, target: &str) {
        let path = folder.path(name);
        if path.exists() {
            folder.remove(name);
        }
        std::os::unix::fs::symlink(target, path).expect("a link");
    }
    vec![
        Row::new("weights that were not downloaded")
            .model("sd1-legacy")
            .files(|f| link(f, "model/unet/weights.pb", "../../blobs/4d7a2146"))
            .says(&["model/unet/weights.pb: is a link to", "blobs/4d7a2146, which does not exist", "incomplete"]),
        Row::new("weights that are a link to themselves")
            .model("sd1-legacy")
            .files(|f| link(f, "model/unet/weights.pb", "weights.pb"))
            .says(&["model/unet/weights.pb", "points back to itself"]),
        Row::new("a graph that was not downloaded")
            .files(|f| link(f, "model/unet/model.onnx", "../../blobs/4d7a2146"))
            .says(&["model/unet/model.onnx", "blobs/4d7a2146, which does not exist"]),
        Row::new("a component that is a link to nothing")
            .files(|f| link(f, "model/vae_decoder", "/nowhere/vae_decoder"))
            .says(&["model/vae_decoder: is a link to /nowhere/vae_decoder, which does not exist"]),
        Row::new("a configuration that was not downloaded")
            .files(|f| link(f, "model/scheduler/scheduler_config.json", "../../blobs/1"))
            .says(&["model/scheduler/scheduler_config.json", "blobs/1, which does not exist"]),
        Row::new("a tokenizer's file that was not downloaded")
            .files(|f| link(f, "model/tokenizer/tokenizer_config.json", "../../blobs/1"))
            .says(&["model/tokenizer/tokenizer_config.json", "blobs/1, which does not exist"]),
        Row::new("a model that is a link to nothing")
            .change("'MODEL'", "'linked'")
            .files(|f| link(f, "linked", "nowhere"))
            .says(&["linked: is a link to", "nowhere, which does not exist"]),
        Row::new("an image that is a link to nothing")
            .image_to_image()
            .files(|f| link(f, "in.png", "gone.png"))
            .says(&["in.png: is a link to", "gone.png, which does not exist"]),
    ]
}

/// Writes over one byte of a file, counted from its end where `at` is negative.
fn patch_byte(folder: &Folder, name: &str, at: isize, byte: u8) {
    let mut bytes = folder.read(name);
    let at = if at < 0 { bytes.len() - at.unsigned_abs() } else { at.unsigned_abs() };
    bytes[at] = byte;
    folder.write(name, bytes);
}

/// A field of protobuf with a length.
fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [&[tag << 3 | 2, u8::try_from(bytes.len()).expect("short")], bytes].concat()
}

/// Appends to the UNet: protobuf joins messages that come in several parts.
fn append(folder: &Folder, graph: &[u8], model: &[u8]) {
    let more = [&field(7, graph), model].concat();
    folder.write("model/unet/model.onnx", [folder.read("model/unet/model.onnx"), more].concat());
}

/// Appends a node of an operator of `com.microsoft`.
fn append_operator(folder: &Folder, operator: &str) {
    let domain = field(7, b"com.microsoft");
    let node = [field(2, b"more"), field(4, operator.as_bytes()), domain].concat();
    let opset = [field(1, b"com.microsoft"), vec![2 << 3, 1]].concat();
    append(folder, &field(1, &node), &field(8, &opset));
}

/// Appends a product of a stored bfloat16 number with itself.
fn append_float8(folder: &Folder) {
    let node = [field(1, b"w"), field(1, b"w"), field(2, b"more"), field(4, b"MatMul")].concat();
    let stored = [vec![1 << 3, 1, 1 << 3, 1, 2 << 3, 17], field(8, b"w"), field(9, &[0x38])].concat();
    append(folder, &[field(1, &node), field(5, &stored)].concat(), &[]);
}

fn directories() -> Vec<Row> {
    vec![
        Row::new("no such directory")
            .change("'MODEL'", "'models/nowhere'")
            .says(&["models/nowhere", "path in [model]"]),
        Row::new("a file for a directory").change("'MODEL'", "'pipeline.toml'").says(&["pipeline.toml", "directory"]),
        Row::new("an empty directory")
            .change("'MODEL'", "'empty'")
            .files(|f| std::fs::create_dir(f.path("empty")).expect("a folder"))
            .says(&["empty", "model.onnx"]),
        Row::new("a PyTorch checkpoint")
            .files(|f| {
                f.remove("model/unet/model.onnx");
                f.remove("model/text_encoder/model.onnx");
                f.remove("model/vae_decoder");
                f.remove("model/vae_encoder");
                f.write("model/unet/diffusion_pytorch_model.safetensors", [0; 64]);
                f.write("model/vae/diffusion_pytorch_model.safetensors", [0; 64]);
            })
            .says(&["model", "unet/model.onnx", "PyTorch", "export"]),
        Row::new("a single-file checkpoint")
            .change("'MODEL'", "'model.safetensors'")
            .files(|f| f.write("model.safetensors", [0; 64]))
            .says(&["model.safetensors", "directory", "export"]),
        Row::new("no UNet").files(|f| f.remove("model/unet/model.onnx")).says(&["model", "unet", "[model.unet] graph"]),
        Row::new("no text encoder").files(|f| f.remove("model/text_encoder")).says(&["model", "text_encoder"]),
        Row::new("no decoder").files(|f| f.remove("model/vae_decoder")).says(&["model", "vae_decoder"]),
        Row::new("a truncated graph").files(|f| f.cut("model/unet/model.onnx", 150_000)).says(&[
            "model/unet/model.onnx",
            "truncated",
            "150000",
        ]),
        Row::new("an empty graph")
            .files(|f| f.write("model/unet/model.onnx", ""))
            .says(&["model/unet/model.onnx", "empty"]),
        Row::new("a web page for a graph")
            .files(|f| {
                f.write("model/unet/model.onnx", "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>")
            })
            .says(&["model/unet/model.onnx", "web page", "download"]),
        Row::new("a pointer for a graph").files(|f| f.write("model/vae_decoder/model.onnx", POINTER)).says(&[
            "model/vae_decoder/model.onnx",
            "Git LFS",
            "git lfs pull",
        ]),
        Row::new("an image for a graph")
            .files(|f| {
                f.image("model.png", 16, 16);
                f.write("model/unet/model.onnx", f.read("model.png"));
            })
            .says(&["model/unet/model.onnx", "ONNX"]),
        Row::new("a graph that the pipeline names and that is not there")
            .add("[model.unet]\ngraph = 'unet-fp16.onnx'\n")
            .says(&["unet-fp16.onnx"]),
        Row::new("a role for an input that the graph lacks").add("[model.unet.inputs]\ncontext = 'context'\n").says(&[
            "model.unet.inputs.context",
            "no such input",
            "encoder_hidden_states",
            "float32",
            "inspect",
        ]),
        Row::new("a role for an input of another form").add("[model.unet.inputs]\ntimestep = 'context'\n").says(&[
            "model.unet.inputs.timestep",
            "float32",
            "form of the context",
        ]),
        Row::new("a role that nobody knows").add("[model.unet.inputs]\nsample = 'latents'\n").says(&[
            "model.unet.inputs.sample",
            "latents",
            "timestep_cond",
        ]),
        Row::new("a graph of another role")
            .files(|f| f.write("model/unet/model.onnx", f.read("model/vae_decoder/model.onnx")))
            .says(&["model/unet/model.onnx", "latent_sample"]),
        Row::new("no external data")
            .model("sd1-legacy")
            .files(|f| f.remove("model/unet/weights.pb"))
            .says(&["model/unet/", "weights.pb"]),
        Row::new("external data that is too short")
            .model("sd1-legacy")
            .files(|f| f.cut("model/unet/weights.pb", 100_000))
            .says(&["model/unet/weights.pb", "100", "255"]),
        Row::new("a pointer for external data")
            .model("sd1-legacy")
            .files(|f| f.write("model/unet/weights.pb", POINTER))
            .says(&["model/unet/weights.pb", "Git LFS"]),
        Row::new("external data outside the directory")
            .model("sd1-legacy")
            .files(|f| {
                let all = String::from_utf8_lossy(&f.read("model/unet/model.onnx")).matches("weights.pb").count();
                for _ in 0..all {
                    f.replace("model/unet/model.onnx", "weights.pb", "../../a.pb");
                }
                f.write("a.pb", f.read("model/unet/weights.pb"));
            })
            .says(&["model/unet/model.onnx", "../../a.pb", "outside"]),
        Row::new("no tokenizer").files(|f| f.remove("model/tokenizer")).says(&["model", "tokenizer", "vocab.json"]),
        Row::new("half a tokenizer")
            .files(|f| f.remove("model/tokenizer/merges.txt"))
            .says(&["model/tokenizer", "merges.txt"]),
        Row::new("a broken vocabulary")
            .files(|f| f.cut("model/tokenizer/vocab.json", 1000))
            .says(&["model/tokenizer/vocab.json"]),
        Row::new("merges cut at the end of a line")
            .files(|f| f.cut("model/tokenizer/merges.txt", cut_line(&f.read("model/tokenizer/merges.txt"))))
            .says(&["model/tokenizer/merges.txt", "is incomplete", "no merge produces", "120 merges"]),
        Row::new("merges of which only the header is left")
            .files(|f| f.write("model/tokenizer/merges.txt", "#version: 0.2\n"))
            .says(&["model/tokenizer/merges.txt", "is incomplete", "expected 120 merges", "found 0"]),
        Row::new("a vocabulary of pieces cut at the end of a line")
            .model("../systems/text-bert")
            .files(|f| f.cut("model/tokenizer/vocab.txt", cut_line(&f.read("model/tokenizer/vocab.txt"))))
            .says(&["model/tokenizer", "is incomplete", "370 rows"]),
        Row::new("a VAE decoder that gives half the size")
            .files(|f| {
                // The scales of its last enlargement.
                let (one, two) = (1f32.to_le_bytes(), 2f32.to_le_bytes());
                let [twofold, none] = [[one, one, two, two].concat(), [one; 4].concat()];
                patch(f, "model/vae_decoder/model.onnx", &twofold, &none);
            })
            .says(&["model/vae_decoder/model.onnx", "output sample", "32×32", "expected 64×64"]),
        Row::new("a VAE encoder that gives a larger size")
            .image_to_image()
            .files(|f| {
                f.image("in.png", 64, 64);
                // The strides of its last convolution that halves the image.
                patch(f, "model/vae_encoder/model.onnx", b"strides\x40\x02\x40\x02", b"strides\x40\x01\x40\x01");
            })
            .says(&["model/vae_encoder/model.onnx", "for sample of 64×64", "expected 8×8"]),
        Row::new("merges of another vocabulary")
            .files(|f| f.write("model/tokenizer/merges.txt", "#version: 0.2\nzebra xylophone</w>\n"))
            .says(&["model/tokenizer/merges.txt", "zebra", "vocab.json"]),
        Row::new("ids beyond the embedding")
            .files(|f| f.replace("model/tokenizer/vocab.json", "\"circle</w>\":", "\"circle</w>\":9"))
            .says(&["text_encoder", "9593", "634", "tokenizer"]),
        Row::new("no scheduler configuration")
            .files(|f| f.remove("model/scheduler"))
            .says(&["scheduler_config.json", "[scheduler."]),
        Row::new("a broken scheduler configuration")
            .files(|f| f.cut("model/scheduler/scheduler_config.json", 40))
            .says(&["model/scheduler/scheduler_config.json"]),
        Row::new("a scheduler that nobody knows")
            .files(|f| f.replace("model/scheduler/scheduler_config.json", "PNDMScheduler", "DreamScheduler"))
            .says(&["model/scheduler/scheduler_config.json", "DreamScheduler", "pndm"]),
        Row::new("betas that nobody knows")
            .files(|f| f.replace("model/scheduler/scheduler_config.json", "scaled_linear", "scaled_linnear"))
            .says(&["beta_schedule", "scaled_linnear", "scaled_linear"]),
        Row::new("a prediction that nobody knows")
            .model("sd2v")
            .files(|f| f.replace("model/scheduler/scheduler_config.json", "v_prediction", "w_prediction"))
            .says(&["prediction_type", "w_prediction", "v_prediction"]),
        Row::new("no encoder to start from an image")
            .image_to_image()
            .files(|f| f.remove("model/vae_encoder"))
            .says(&["image-to-image", "vae_encoder"]),
        Row::new("a prompt for a model that takes none").model("pixel").says(&[
            "text-to-image",
            "no input of this graph takes its tokens",
            "[task.unconditional]",
        ]),
        Row::new("a format newer than the runtime's").files(|f| patch_byte(f, "model/unet/model.onnx", 1, 99)).says(&[
            "model/unet/model.onnx",
            "IR version 99",
            "ONNX Runtime 1.",
            "max supported IR version: 1",
        ]),
        Row::new("operators newer than the runtime's")
            .files(|f| patch_byte(f, "model/vae_decoder/model.onnx", -1, 99))
            .says(&["model/vae_decoder/model.onnx", "opset ai.onnx 99", "ONNX Runtime 1.", "till opset 2"]),
        Row::new("operators fused for CUDA").files(|f| append_operator(f, "GroupNorm")).says(&[
            "model/unet/model.onnx: unet is to run on the CPU",
            "1 × com.microsoft:GroupNorm",
            "only cuda, rocm, directml can run it",
            "[device] provider",
        ]),
        Row::new("operators that nobody defines").files(|f| append_operator(f, "FooBar")).says(&[
            "model/unet/model.onnx: has operators that ONNX Runtime 1.",
            "does not define",
            "com.microsoft:FooBar",
        ]),
        Row::new("weights in a type that the CPU has no products for").files(append_float8).says(&[
            "model/unet/model.onnx: unet is to run on the CPU",
            "cannot multiply by its weights: MatMul by onnx type 17",
            "float32 or float16",
        ]),
        Row::new("a tokenizer longer than its text encoder")
            .files(|f| f.replace("model/tokenizer/tokenizer_config.json", "_length\": 16", "_length\": 17"))
            .says(&["text_encoder has 16 positions", "the tokenizer is set to 17", "tokenizer_config.json"]),
        Row::new("a UNet that answers with NaN")
            .add("[model.unet]\ngraph = 'FIXTURES/variants/unet-nan.onnx'\n")
            .fails()
            .unseen_by_check()
            .says(&["output out_sample of the unet at step 1 of 3", "256 non-finite values of 256"]),
        Row::new("inspecting nothing").command(&["inspect", "nowhere"]).says(&["nowhere"]),
        Row::new("a pipeline for nothing").command(&["init", "nowhere"]).says(&["nowhere"]),
    ]
}
