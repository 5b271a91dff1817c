//! Rewritten graphs compute the same as the original ones.
//!
//! The graphs are those of `tests/fixtures`. `scripts/fixtures/make_rewrites.py` makes those in `tests/fixtures/rewrite`, each
//! in another form that exporters write.

mod openvino;
mod operators;
mod webgpu;

use crate::common::root;
use std::path::{Path, PathBuf};

use ldm_ort::bundle::GraphFile;
use ldm_ort::rewrite::{Pass, Rewritten, rewrite};
use ldm_ort::session::{Cancel, Runtime, Session, SessionOptions};
use ldm_ort::tensor::{DType, Dim, Tensor, TensorInfo, TensorView};
use ndarray::{ArrayD, IxDyn};

const PASSES: [Pass; 4] = [Pass::Attention, Pass::Subpixel, Pass::Winograd, Pass::FeedForward];

/// Requests of several sizes, including odd ones.
const SIZES: [Lengths; 4] = [
    Lengths { batch: 1, height: 8, width: 8, tokens: 7 },
    Lengths { batch: 2, height: 12, width: 20, tokens: 5 },
    Lengths { batch: 3, height: 13, width: 11, tokens: 2 },
    Lengths { batch: 1, height: 32, width: 32, tokens: 3 },
];

fn fixtures() -> PathBuf {
    root().join("tests/fixtures")
}

fn rewritten(path: &Path) -> Option<Rewritten> {
    rewritten_at(path, &[])
}

fn rewritten_at(path: &Path, axes: &[(String, usize)]) -> Option<Rewritten> {
    let graph = GraphFile::open(path).unwrap();
    rewrite(&graph, &PASSES, axes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The number of places that each pass finds in a graph.
fn sites(path: &Path) -> [usize; 4] {
    rewritten(path).map_or([0; 4], |rewritten| {
        let count = |pass| rewritten.report.iter().find(|(own, _)| *own == pass).unwrap().1;
        PASSES.map(count)
    })
}

/// The parameters of a request: the lengths of dynamic axes.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    batch: usize,
    height: usize,
    width: usize,
    tokens: usize,
}

impl Lengths {
    fn of(self, info: &TensorInfo) -> Vec<usize> {
        let is_image = info.shape.len() == 4;
        let free = |at: usize| match at {
            0 => self.batch,
            2 if is_image => self.height,
            3 if is_image => self.width,
            _ => self.tokens,
        };
        info.shape.iter().enumerate().map(|(at, dim)| dim.fixed().unwrap_or_else(|| free(at))).collect()
    }
}

/// Values for an input that look like noise, the same for the same shape.
fn values(info: &TensorInfo, lengths: Lengths) -> Tensor {
    let shape = IxDyn(&lengths.of(info));
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    };
    match info.dtype {
        DType::I64 | DType::I32 => Tensor::I64(ArrayD::from_shape_simple_fn(shape, || (next() * 20.0) as i64)),
        DType::Bool => Tensor::Bool(ArrayD::from_elem(shape, true)),
        _ => Tensor::F32(ArrayD::from_shape_simple_fn(shape, || (next() * 4.0 - 2.0) as f32)),
    }
}

fn run(session: &mut Session, lengths: Lengths) -> Result<Vec<ArrayD<f32>>, String> {
    let infos = session.inputs().to_vec();
    let tensors: Vec<Tensor> = infos.iter().map(|info| values(info, lengths)).collect();
    let inputs: Vec<(&str, TensorView<'_>)> =
        infos.iter().zip(&tensors).map(|(info, tensor)| (info.name.as_str(), tensor.view())).collect();
    let outputs: Vec<String> = session.outputs().iter().map(|output| output.name.clone()).collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    session.run(&inputs, &outputs, &Cancel::new()).map_err(|error| error.to_string())
}

/// Asserts that a graph and its rewritten form give the same results for requests of these sizes, and returns the
/// largest difference relative to the largest value.
fn compare(runtime: &Runtime, path: &Path, new: &Rewritten, sizes: &[Lengths]) -> f32 {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("model.onnx");
    std::fs::write(&file, &new.bytes).unwrap();
    let folder = path.parent().unwrap().to_string_lossy().into_owned();
    let config = vec![("session.model_external_initializers_file_folder_path".to_owned(), folder)];
    let open = |path: &Path, config| {
        let options = SessionOptions { threads: Some(1), config, ..SessionOptions::default() };
        Session::open(runtime, path, &options).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let (mut old, mut new) = (open(path, Vec::new()), open(&file, config));
    assert_eq!(old.inputs(), new.inputs(), "{}", path.display());
    // The known part of an output's shape equals ONNX Runtime's inference, with fewer or more operators.
    let told = |session: &Session| session.outputs().iter().map(|o| (o.name.clone(), o.dtype)).collect::<Vec<_>>();
    assert_eq!(told(&old), told(&new), "{}", path.display());
    let (mut worst, mut ran) = (0f32, 0);
    for &lengths in sizes {
        // Some graphs support only some sizes.
        let Ok(want) = run(&mut old, lengths) else { continue };
        let got = run(&mut new, lengths).unwrap_or_else(|error| panic!("{}: {lengths:?}: {error}", path.display()));
        for (want, got) in want.iter().zip(&got) {
            assert_eq!(want.shape(), got.shape(), "{}", path.display());
            let largest = want.iter().fold(0f32, |largest, v| largest.max(v.abs()));
            let apart = want.iter().zip(got).fold(0f32, |apart, (a, b)| apart.max((a - b).abs()));
            assert!(apart <= 1e-5 * largest, "{}: {lengths:?}: {apart} of {largest}", path.display());
            worst = worst.max(apart / largest.max(f32::MIN_POSITIVE));
        }
        ran += 1;
    }
    assert!(ran >= 1, "{} takes none of the sizes", path.display());
    worst
}

fn graphs(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            graphs(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "onnx") {
            found.push(path);
        }
    }
}

/// Compares all graphs of a fixture folder with their rewritten forms.
fn compare_all(folder: &str, at_least: usize) {
    let runtime =
        Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("an ONNX Runtime is found or fetched");
    let mut all = Vec::new();
    graphs(&fixtures().join(folder), &mut all);
    all.sort();
    let mut compared = 0;
    for path in all {
        let graph = GraphFile::open(&path).unwrap();
        // A graph that draws noise gives another result every time.
        if let Some(new) = rewritten(&path).filter(|_| !graph.draws_noise()) {
            let worst = compare(&runtime, &path, &new, &SIZES);
            println!("{:.1e} {:?} {}", worst, new.report, path.display());
            compared += 1;
        }
    }
    assert!(compared >= at_least, "only {compared} graphs of {folder} had places to rewrite");
}

#[test]
fn rewritten_graphs_give_what_they_gave() {
    compare_all("models", 10);
}

#[test]
fn rewritten_families_give_what_they_gave() {
    compare_all("families/xl", 3);
    compare_all("families/upscale", 3);
}

#[test]
fn rewritten_systems_give_what_they_gave() {
    compare_all("systems", 20);
}

#[test]
fn other_forms_give_what_they_gave() {
    compare_all("rewrite", 5);
}

/// If the number of tokens is known and large, feed-forward layers process them in parts.
#[test]
fn many_tokens_are_taken_in_parts() {
    let runtime =
        Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("an ONNX Runtime is found or fetched");
    for name in ["models/sd1/unet", "families/xl/unet"] {
        let path = fixtures().join(name).join("model.onnx");
        let graph = GraphFile::open(&path).unwrap();
        let lengths = Lengths { batch: 2, height: 66, width: 64, tokens: 3 };
        let new = rewritten_at(&path, &axes(&graph, lengths)).unwrap();
        let joined = |rewritten: &Rewritten| rewritten.bytes.windows(7).filter(|part| part == b"/Concat").count();
        let whole = rewritten(&path).unwrap();
        assert_eq!(whole.report, new.report, "{name}");
        assert!(joined(&new) > joined(&whole), "{name}: parts are joined again");
        compare(&runtime, &path, &new, &[lengths]);
    }
}

/// ONNX Runtime takes quadratic time in the number of nodes to open a graph, so their number is limited.
#[test]
fn very_many_tokens_make_no_more_nodes() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("model.onnx");
    for name in ["models/sd1/unet", "families/xl/unet"] {
        let path = fixtures().join(name).join("model.onnx");
        let graph = GraphFile::open(&path).unwrap();
        // Latents of images of 512, 4096 and 16384 pixels along each side, one token per latent.
        let [few, many, most] = [64, 512, 2048].map(|side| {
            let lengths = Lengths { batch: 1, height: side, width: side, tokens: 3 };
            std::fs::write(&file, rewritten_at(&path, &axes(&graph, lengths)).unwrap().bytes).unwrap();
            GraphFile::open(&file).unwrap().operators.values().sum::<usize>()
        });
        assert!(few < many, "{name}: {few} and {many} nodes");
        assert_eq!(many, most, "{name}");
        let layers = 4;
        assert!(many - few < 32 * 16 * layers, "{name}: {few} and {many} nodes");
    }
}

/// Returns the lengths of a graph's dynamic axes.
fn axes(graph: &GraphFile, lengths: Lengths) -> Vec<(String, usize)> {
    let of_input = |info: &TensorInfo| {
        let free = |(dim, length): (&Dim, usize)| match dim {
            Dim::Free(name) => Some((name.clone(), length)),
            Dim::Fixed(_) => None,
        };
        info.shape.iter().zip(lengths.of(info)).filter_map(free).collect::<Vec<_>>()
    };
    graph.inputs.iter().flat_map(of_input).collect()
}

/// Everything else stays byte for byte, including unknown fields.
#[test]
fn all_else_stays() {
    let path = fixtures().join("models/sd1/vae_decoder/model.onnx");
    let scratch = tempfile::tempdir().unwrap();
    let copy = scratch.path().join("model.onnx");
    // ModelProto.metadata_props, and an unknown field.
    let more = [b"\x72\x06\x0a\x01a\x12\x01b".as_slice(), b"\xfa\x03\x03xyz"].concat();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(&more);
    std::fs::write(&copy, &bytes).unwrap();
    let new = rewritten(&copy).unwrap().bytes;
    assert!(new.windows(more.len()).any(|part| part == more), "fields of the model are kept");
    let plain = rewritten(&path).unwrap().bytes;
    assert_eq!(new.len(), plain.len() + more.len());
    let old = GraphFile::open(&path).unwrap();
    std::fs::write(&copy, &new).unwrap();
    let new = GraphFile::open(&copy).unwrap();
    assert_eq!((&new.inputs, &new.outputs, &new.producer), (&old.inputs, &old.outputs, &old.producer));
    assert_eq!(new.opsets.get("com.microsoft"), Some(&1));
}

#[test]
fn every_place_of_known_graphs_is_found() {
    let known = [
        // Self- and cross-attention of four blocks, and one upsampling.
        ("models/sd1/unet", [8, 1, 0, 4]),
        ("models/sd1-legacy/unet", [8, 1, 0, 4]),
        ("models/sd2v/unet", [8, 1, 0, 4]),
        ("families/xl/unet", [8, 1, 0, 4]),
        ("families/control/unet", [8, 1, 0, 4]),
        ("families/control/controlnet", [4, 0, 0, 2]),
        // Only self-attention, with heads in the channels of a convolution.
        ("models/pixel/unet", [4, 1, 0, 0]),
        ("systems/uncond-vq/unet", [4, 1, 0, 0]),
        ("systems/uncond-kl/unet", [4, 1, 0, 0]),
        // CompVis' transformers, with positions and boxes along with the text.
        ("systems/layout/unet", [24, 1, 0, 12]),
        ("systems/text-bert/unet", [14, 1, 0, 7]),
        ("systems/text-bert/text_encoder", [2, 0, 0, 0]),
        // The one head of a VAE.
        ("models/sd1/vae_decoder", [1, 3, 0, 0]),
        ("systems/retrieval/vae_decoder", [3, 4, 0, 0]),
        ("systems/inpaint/vqvae_decoder", [0, 2, 0, 0]),
        // A causal mask: not rewritten.
        ("models/sd1/text_encoder", [0, 0, 0, 0]),
        // Heads in the batch, and the newer exporter.
        ("rewrite/baddbmm", [1, 0, 0, 0]),
        ("rewrite/dynamo", [2, 0, 0, 0]),
        ("rewrite/half-pixel", [0, 1, 0, 0]),
        ("rewrite/asymmetric", [0, 1, 0, 0]),
        ("rewrite/winograd", [0, 0, 1, 0]),
        // Weights dequantized at every run, which would also apply to their transform.
        ("rewrite/widened", [0, 0, 0, 0]),
        // Half precision, for which CPUs have no such operator.
        ("models/variants/unet-half", [0, 0, 0, 4]),
    ];
    for (name, want) in known {
        let folder = fixtures().join(name).join("model.onnx");
        let path = if folder.exists() { folder } else { fixtures().join(format!("{name}.onnx")) };
        assert_eq!(sites(&path), want, "{name}");
    }
}
