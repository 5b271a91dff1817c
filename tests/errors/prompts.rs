//! Prompts that a model cannot read as the pipeline asks.

use std::path::Path;

use crate::Row;
use crate::folder::Folder;

/// Puts a text encoder with hidden states, of three layers, into the model.
fn with_hidden_states(folder: &Folder) {
    let graph = "tests/fixtures/models/variants/text-encoder-hidden.onnx";
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(graph)).expect("the fixture is there");
    folder.write("model/text_encoder/model.onnx", bytes);
}

pub fn rows() -> Vec<Row> {
    vec![
        Row::new("a layer left out of a text encoder that does not give its states")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\nclip_skip = 1")
            .says(&["text_encoder/model.onnx", "clip_skip = 1", "hidden states", "--hidden-states"]),
        Row::new("more layers left out than there are")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\nclip_skip = 4")
            .files(with_hidden_states)
            .says(&["clip_skip", "4 layers", "text_encoder has 3"]),
        Row::new("a way to read weights that is not known")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\nweights = 'compel'")
            .says(&["pipeline.toml:6", "task.text-to-image.weights", "compel", "a1111"]),
    ]
}
