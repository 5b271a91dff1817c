//! Layouts of Flux.

use super::Row;
use super::files::Files;
use super::graph::{F32, Graph, I64};
use super::rows::made;

const DEV: &str = "families/flux-dev";

fn transformer(change: impl FnOnce(&mut Graph) -> &mut Graph) -> Files {
    made(DEV, |files| {
        files.edit("transformer/model.onnx", change);
    })
}

pub fn rows() -> Vec<Row> {
    let optimum = transformer(|g| {
        g.input("img_ids", I64, "packed_height_width, 3")
            .input("txt_ids", I64, "sequence_length, 3")
            .input("timestep", F32, "step")
    });
    // Position ids had a row for each image before version 0.31 of diffusers.
    let older = transformer(|g| {
        g.batched("img_ids", "batch_size, packed_height_width, 3").batched("txt_ids", "batch_size, sequence_length, 3")
    });
    let fixed = transformer(|g| {
        g.input("hidden_states", F32, "1, sequence, 64")
            .input("encoder_hidden_states", F32, "1, tokens, 40")
            .input("pooled_projections", F32, "1, 16")
            .input("timestep", F32, "1")
            .input("guidance", F32, "1")
            .output("out_hidden_states", F32, "1, sequence, 64")
            .rename("out_hidden_states", "sample")
    });
    let whole_times = transformer(|g| g.input("timestep", I64, "batch"));
    let of_one_size = transformer(|g| {
        g.input("hidden_states", F32, "batch, 24, 64").output("out_hidden_states", F32, "batch, 24, 64")
    });
    vec![
        Row::new("Optimum, Flux", "families/flux-dev", optimum).inspected(&[
            "int64    [packed_height_width, 3]",
            "positions in the image",
            "guidance scale",
            "text-to-image, image-to-image, inpaint",
        ]),
        Row::new("Optimum, Flux, a row of position ids for each image", "families/flux-dev", older)
            .inspected(&["[batch_size, sequence_length, 3]", "positions in the text"]),
        Row::new("OnnxStack, Flux, fixed to one row", "families/flux-true-cfg", fixed)
            .inspected(&["fixed batch size 1", "[1, sequence, 64]"]),
        Row::new("Flux, int64 timestep that the graph casts", "families/flux-dev", whole_times).inspected(&["int64"]),
        Row::new("Flux for images of one size", "families/flux-true-cfg", of_one_size).inspected(&["[batch, 24, 64]"]),
    ]
}
