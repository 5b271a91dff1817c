//! Prompts that a model cannot read as the pipeline asks.

use crate::common::root;

use super::Row;
use super::folder::Folder;

/// Puts a text encoder with hidden states, of three layers, into the model.
fn with_hidden_states(folder: &Folder) {
    let graph = "tests/fixtures/models/variants/text-encoder-hidden.onnx";
    let bytes = std::fs::read(root().join(graph)).expect("the fixture is there");
    folder.write("model/text_encoder/model.onnx", bytes);
}

/// A safetensors file with one tensor of zeros.
fn safetensors(name: &str, dtype: &str, shape: &[usize], size: usize) -> Vec<u8> {
    let bytes = shape.iter().product::<usize>() * size;
    let tensor = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [0, bytes] });
    let header = serde_json::json!({ name: tensor }).to_string();
    [(header.len() as u64).to_le_bytes().to_vec(), header.into_bytes(), vec![0; bytes]].concat()
}

/// A word of the user's own.
const CAT: &str = "[[textual_inversion]]\npath = 'cat.safetensors'\n";

/// A mistake on Stable Diffusion 3's tiny model.
fn sd3(name: &'static str) -> Row {
    Row::new(name).model("../families/sd3")
}

/// Takes a file of another of the tiny models.
fn of_family(file: &str) -> Vec<u8> {
    let path = root().join("tests/fixtures/families").join(file);
    std::fs::read(path).expect("the fixture is there")
}

/// What Stable Diffusion 3's three text encoders need.
fn three_encoders() -> Vec<Row> {
    vec![
        sd3("T5 without its tokenizer").files(|f| f.remove("model/tokenizer_3")).says(&[
            "model/tokenizer_3",
            "tokenizer.json",
            "copy the tokenizer_3/ folder",
        ]),
        sd3("T5's tokenizer in SentencePiece's own form")
            .files(|f| {
                f.remove("model/tokenizer_3/tokenizer.json");
                f.write("model/tokenizer_3/spiece.model", [10, 14]);
            })
            .says(&["model/tokenizer_3", "spiece.model", "tokenizer.json", "save_pretrained"]),
        sd3("T5 named and not there").files(|f| f.remove("model/text_encoder_3")).says(&[
            "text_encoder_3/model.onnx",
            "model_index.json",
            "[null, null]",
        ]),
        sd3("a third text encoder of another width")
            .files(|f| f.write("model/text_encoder_3/model.onnx", of_family("xl/text_encoder/model.onnx")))
            .says(&["transformer/model.onnx", "encoder_hidden_states", "width 40", "give 32", "not of one model"]),
        sd3("a text encoder without its projection")
            .files(|f| f.write("model/text_encoder/model.onnx", of_family("xl/text_encoder/model.onnx")))
            .says(&["text_encoder/model.onnx", "projected text", "CLIPTextModelWithProjection"]),
        Row::new("a length for T5 in a model without it")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\nmax_sequence_length = 128")
            .says(&["max_sequence_length", "none of the model's text encoders is T5's"]),
        sd3("a size that is not one of whole patches")
            .change("width = 64", "width = 68")
            .says(&["run.width", "68 is not a multiple of 8"]),
        sd3("a schedule of another family").change("[output]", "[scheduler.ddim]\n[output]").says(&[
            "scheduler.ddim",
            "rectified flow",
            "choose flow-match-euler",
        ]),
        sd3("a schedule of another family that can be turned")
            .change("[output]", "[scheduler.unipc]\n[output]")
            .says(&["scheduler.unipc", "rectified flow", "use_flow_sigmas", "flow_prediction"]),
    ]
}

pub fn rows() -> Vec<Row> {
    let mut rows = three_encoders();
    rows.extend(of_clip());
    rows
}

fn of_clip() -> Vec<Row> {
    vec![
        Row::new("a prompt in a wrong encoding")
            .change("prompt = 'a red circle'", "prompt = 'a cafÃ©'\ntext_cleaning = 'ftfy'")
            .says(&["prompt", "cafÃ©", "wrong encoding", "text_cleaning = \"basic\""]),
        Row::new("a way to clean text that there is not")
            .change("prompt = 'a red circle'", "prompt = 'a'\ntext_cleaning = 'clip'")
            .says(&["text_cleaning", "fast", "basic", "ftfy"]),
        Row::new("a learnt word in a file that is not there").add(CAT).says(&["cat.safetensors", "no such file"]),
        Row::new("a learnt word in a pickle")
            .add("[[textual_inversion]]\npath = 'cat.pt'\n")
            .files(|f| f.write("cat.pt", b"PK\x03\x04archive/data.pkl"))
            .says(&["cat.pt", "pickle", "runs code", "safetensors"]),
        Row::new("a learnt word in an image")
            .add("[[textual_inversion]]\npath = 'cat.png'\n")
            .files(|f| f.image("cat.png", 8, 8))
            .says(&["cat.png", "safetensors"]),
        Row::new("a learnt word of another model")
            .add(CAT)
            .files(|f| f.write("cat.safetensors", safetensors("<cat>", "F32", &[1, 768], 4)))
            .says(&["cat.safetensors", "768 wide", "16", "another family"]),
        Row::new("a learnt word for Stable Diffusion XL")
            .add(CAT)
            .files(|f| f.write("cat.safetensors", safetensors("clip_g", "F16", &[1, 16], 2)))
            .says(&["cat.safetensors", "no embeddings for text encoder 1", "clip_l"]),
        Row::new("a learnt word that the tokenizer knows")
            .add("[[textual_inversion]]\npath = 'red.safetensors'\n")
            .files(|f| f.write("red.safetensors", safetensors("a</w>", "F32", &[1, 16], 4)))
            .says(&["tokenizer", "a</w>", "already", "token"]),
        Row::new("a learnt word in whole numbers")
            .add(CAT)
            .files(|f| f.write("cat.safetensors", safetensors("<cat>", "I32", &[1, 16], 4)))
            .says(&["cat.safetensors", "<cat>", "I32", "float32"]),
        Row::new("a learnt word with a shape that is none")
            .add(CAT)
            .files(|f| f.write("cat.safetensors", safetensors("<cat>", "F32", &[1, 4, 4], 4)))
            .says(&["cat.safetensors", "[1, 4, 4]", "[n, width]"]),
        Row::new("a layer left out of a text encoder that does not give its states")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\nclip_skip = 1")
            .says(&["text_encoder/model.onnx", "clip_skip = 1", "hidden states", "--hidden-states"]),
        Row::new("more layers left out than there are")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\nclip_skip = 4")
            .files(with_hidden_states)
            .says(&["clip_skip", "4 layers", "text_encoder has 3"]),
        Row::new("a way to read weights that is not known")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\nprompt_weighting = 'compel'")
            .says(&["pipeline.toml:6", "task.text-to-image.prompt_weighting", "compel", "a1111"]),
    ]
}
