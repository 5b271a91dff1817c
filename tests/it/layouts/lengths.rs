//! Tokenizers that do not state how many tokens a text encoder reads: its configuration does, or its graph.

use super::Row;
use super::files::Files;
use super::graph::I64;
use super::rows::{SD1, made};

const OWN: &str = "\"model_max_length\": 16,";

/// Stable Diffusion's tiny model, whose text encoder has 16 positions, with another `model_max_length`.
fn with_length(length: &str, change: impl FnOnce(&mut Files)) -> Files {
    made(SD1, |files| {
        let name = "tokenizer/tokenizer_config.json";
        let config = String::from_utf8(files.get(name)).expect("a configuration is text");
        assert!(config.contains(OWN));
        files.put(name, config.replace(OWN, length));
        change(files);
    })
}

pub fn rows() -> Vec<Row> {
    let sentinel = "\"model_max_length\": 1000000000000000019884624838656,";
    let fixed = |files: &mut Files| {
        files.without("text_encoder/config.json");
        files.edit("text_encoder/model.onnx", |g| g.input("input_ids", I64, "batch, 16"));
    };
    vec![
        Row::new("no model_max_length", "pipelines/long-prompt", with_length("", |_| ()))
            .warned("reads 16 tokens, which cuts off 88"),
        Row::new("a model_max_length of 1e30", "pipelines/long-prompt", with_length(sentinel, |_| ()))
            .warned("reads 16 tokens, which cuts off 88"),
        Row::new("no model_max_length, a graph of fixed length", "pipelines/plain", with_length("", fixed))
            .inspected(&["fixed length of 16 tokens"]),
        Row::new("a model_max_length of null", "pipelines/plain", with_length("\"model_max_length\": null,", |_| ())),
    ]
}
