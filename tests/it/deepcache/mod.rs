//! UNets cut along their long skip connections, and pipelines that run the shallow layers alone at some steps.
//!
//! What such pipelines draw is held to diffusers in `tests/it/pipeline/caching.rs`; here it is that the parts of a graph
//! compute what the whole does, and that nothing depends on how a run is laid out.

mod parts;
mod runs;

use std::path::PathBuf;

use ldm_ort::bundle::GraphFile;
use ndarray::ArrayD;

fn root(path: &str) -> PathBuf {
    crate::common::root().join(path)
}

fn graph(path: &str) -> GraphFile {
    let path = root(path);
    GraphFile::open(&path).unwrap_or_else(|error| panic!("{error}"))
}

/// How far apart in parts of the largest.
fn apart(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    let largest = a.iter().fold(0f32, |largest, v| largest.max(v.abs()));
    a.iter().zip(b).fold(0f32, |apart, (a, b)| apart.max((a - b).abs())) / largest
}
