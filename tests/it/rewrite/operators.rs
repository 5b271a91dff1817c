//! Graphs with operators of our own compute what they computed, and most of the multiplications are in those.

use std::path::Path;

use ldm_ort::bundle::GraphFile;
use ldm_ort::graph_cache::GraphCache;
use ldm_ort::kernels::{Filtering, InstructionSet, OperandType, OwnOperator};
use ldm_ort::rewrite::{Coverage, OperatorChoice, Pass, WithOperators, footprint, with_operators};
use ldm_ort::session::{Optimization, Runtime, Session, SessionOptions};
use ndarray::ArrayD;

use super::{Lengths, axes, fixtures, graphs, run};
use crate::common::root;

/// The sides of the images are even, odd, and those of which the last rows of a block are few.
const SIZES: [Lengths; 2] =
    [Lengths { batch: 2, height: 12, width: 20, tokens: 9 }, Lengths { batch: 1, height: 13, width: 11, tokens: 2 }];

/// The relative L2 difference of all outputs.
fn difference(want: &[ArrayD<f32>], got: &[ArrayD<f32>]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let pairs = || want.iter().zip(got).flat_map(|(want, got)| want.iter().zip(got));
    let apart: f64 = pairs().map(|(a, b)| square(a - b)).sum();
    let whole: f64 = pairs().map(|(a, _)| square(*a)).sum();
    (apart / whole.max(1e-30)).sqrt()
}

/// Operators for float32 with all convolutions as they are.
const DIRECT: OperatorChoice =
    OperatorChoice { operands: OperandType::Float32, linear_in_int8: false, filtering: None, narrow_filtering: None };

/// Runs a graph as exported and with operators, and returns the difference; `None` if it does not take the size.
fn compare(runtime: &Runtime, path: &Path, lengths: Lengths, choice: OperatorChoice, threads: usize) -> Option<f64> {
    let graph = GraphFile::open(path).unwrap();
    let options = SessionOptions { threads: Some(threads), ..SessionOptions::default() };
    let want = run(&mut Session::open(runtime, path, &options).unwrap(), lengths).ok()?;
    // Such as that of a text encoder whose tokens are all masked.
    if want.iter().flatten().any(|x| x.is_nan()) {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let options = SessionOptions { axes: axes(&graph, lengths), ..options };
    let passes = [Pass::Attention, Pass::Operators(choice)];
    let cache = GraphCache::new(folder.path());
    let mut session = cache
        .open(runtime, &graph, &passes, &options, &mut |_| {})
        .unwrap_or_else(|error| panic!("{}: {lengths:?}: {error}", path.display()));
    let got = run(&mut session, lengths).unwrap_or_else(|error| panic!("{}: {lengths:?}: {error}", path.display()));
    for (want, got) in want.iter().zip(&got) {
        assert_eq!(want.shape(), got.shape(), "{}", path.display());
    }
    Some(difference(&want, &got))
}

/// A graph, folded and with operators of our own.
fn with(runtime: &Runtime, path: &Path, lengths: Lengths) -> Option<WithOperators> {
    Some(with_choice(runtime, path, lengths, DIRECT)?.0)
}

/// The same with a choice of operators, and the bytes of their weights.
fn with_choice(
    runtime: &Runtime,
    path: &Path,
    lengths: Lengths,
    choice: OperatorChoice,
) -> Option<(WithOperators, u64)> {
    let graph = GraphFile::open(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folded = folder.path().join("model.onnx");
    let axes = axes(&graph, lengths);
    let options = SessionOptions { axes: axes.clone(), optimization: Optimization::Basic, ..SessionOptions::default() };
    let bytes = ldm_ort::rewrite::rewrite(&graph, &[Pass::Attention], &axes).unwrap().map(|rewritten| rewritten.bytes);
    Session::save_optimized(runtime, path, bytes, &options, &folded).unwrap();
    // Attention with masks, and that whose lengths only come of folding.
    let again = ldm_ort::rewrite::rewrite(&GraphFile::open(&folded).unwrap(), &[Pass::MaskedAttention], &[]).unwrap();
    if let Some(again) = again {
        std::fs::write(&folded, again.bytes).unwrap();
    }
    let folded = GraphFile::open(&folded).unwrap();
    let packed = folder.path().join("packed");
    let with = with_operators(&folded, choice, &packed).unwrap()?;
    Some((with, std::fs::metadata(packed).unwrap().len()))
}

fn runtime() -> Runtime {
    Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("an ONNX Runtime is found or fetched")
}

/// Compares all graphs of a folder in float32, where every difference is one of rounding.
fn compare_all(folder: &str, sizes: &[Lengths], at_least: usize) {
    let runtime = runtime();
    let mut all = Vec::new();
    graphs(&fixtures().join(folder), &mut all);
    // Text encoders keep ONNX Runtime's operators.
    all.retain(|path| !path.to_string_lossy().contains("text"));
    all.sort();
    let mut compared = 0;
    for path in all {
        let is_drawn = GraphFile::open(&path).unwrap().draws_noise();
        for &lengths in sizes {
            let Some(apart) = (!is_drawn).then(|| compare(&runtime, &path, lengths, DIRECT, 1)).flatten() else {
                continue;
            };
            println!("{apart:.1e} {}", path.display());
            // A graph of half precision rounds in its own nodes, which become fewer.
            let bound = if path.ends_with("unet-half.onnx") { 2e-3 } else { 3e-6 };
            assert!(apart < bound, "{}: {lengths:?}: {apart:.1e}", path.display());
            compared += 1;
        }
    }
    assert!(compared >= at_least, "only {compared} of {folder}");
}

#[test]
fn graphs_with_operators_give_what_they_gave() {
    compare_all("models", &SIZES, 10);
}

#[test]
fn families_with_operators_give_what_they_gave() {
    compare_all("families", &SIZES[1..], 10);
}

#[test]
fn other_forms_with_operators_give_what_they_gave() {
    compare_all("rewrite", &SIZES, 5);
}

/// Blocks of transformers in which heads are normalized and turned, and rows modulated: in bf16 what only products and
/// attention read is moved in that type.
#[test]
fn joint_attention_in_bf16_is_near_float32() {
    let runtime = runtime();
    for name in ["joint-halves", "joint-pairs"] {
        let path = fixtures().join(format!("rewrite/{name}.onnx"));
        for threads in [1, 2] {
            let choice = OperatorChoice::new(OperandType::Bf16, None);
            let apart = compare(&runtime, &path, SIZES[0], choice, threads).unwrap();
            println!("{apart:.1e} {name}, {}", InstructionSet::best().name());
            assert!(apart < 5e-3, "{name}: {apart:.1e}");
        }
    }
}

/// Nothing of a transformer's normalizations and rotary embeddings stays on ONNX Runtime's operators.
#[test]
fn operators_normalize_and_turn() {
    let runtime = runtime();
    let lengths = Lengths { batch: 2, height: 16, width: 16, tokens: 9 };
    let one = Lengths { batch: 1, tokens: 16, ..lengths };
    // The queries and keys of each attention; the modulated normalizations, and those of captions.
    for (name, lengths, heads, rows) in [
        ("families/flux-dev/transformer/model.onnx", one, 4, 6),
        // One of these and of the last is read by nothing, since its two modulations compute it anew.
        ("families/sd3/transformer/model.onnx", lengths, 6, 10),
        ("families/sana/transformer/model.onnx", lengths, 0, 6),
        ("rewrite/joint-halves.onnx", lengths, 2, 2),
        ("rewrite/joint-pairs.onnx", lengths, 2, 4),
    ] {
        let WithOperators { places, bytes, .. } = with(&runtime, &fixtures().join(name), lengths).unwrap();
        println!("{name}: {places:?}");
        let of = |operator| places.get(&operator).copied().unwrap_or(0);
        assert_eq!((of(OwnOperator::HeadNorm), of(OwnOperator::RowNorm)), (heads, rows), "{name}");
        for left in ["ReduceMean", "LayerNormalization", "Neg", "Split"] {
            // `NodeProto.op_type`
            let field = [&[0x22, left.len() as u8], left.as_bytes()].concat();
            let is_left = bytes.windows(field.len()).any(|part| part == field);
            assert!(!is_left, "{name}: {left} is left");
        }
    }
}

/// The instructions that multiply bf16 give what the portable form gives, but for the order of sums; and what float32 gives
/// within the rounding of operands.
#[test]
fn bf16_graphs_are_near_float32() {
    let runtime = runtime();
    // The tiny models have no products that are wide enough.
    for name in ["unet", "vae_decoder"] {
        let path = root().join("models/shapes").join(name).join("model.onnx");
        for (threads, filtering) in [(1, None), (2, None), (2, Some(Filtering::Two))] {
            let choice = OperatorChoice::new(OperandType::Bf16, filtering);
            let apart = compare(&runtime, &path, SIZES[0], choice, threads).unwrap();
            println!("{apart:.1e} {name}, {filtering:?}, {}", InstructionSet::best().name());
            assert!(apart < 5e-3, "{name}: {apart:.1e}");
        }
    }
}

const WITH_CONVOLUTIONS: [&str; 3] = ["models/sd1/unet", "models/sd1/vae_decoder", "families/xl/unet"];

/// Minimal filtering rounds otherwise than the convolutions do, and hardly more.
#[test]
fn filtered_graphs_give_what_they_gave() {
    let runtime = runtime();
    let large = Lengths { batch: 2, height: 36, width: 33, tokens: 9 };
    for name in WITH_CONVOLUTIONS {
        let path = fixtures().join(name).join("model.onnx");
        for (lengths, filtering, bound) in [
            (SIZES[0], Filtering::Two, 3e-6),
            (SIZES[1], Filtering::Two, 3e-6),
            (large, Filtering::Two, 3e-6),
            (large, Filtering::Three, 3e-6),
            (large, Filtering::Four, 5e-6),
        ] {
            let choice = OperatorChoice::new(OperandType::Float32, Some(filtering));
            let Some(apart) = compare(&runtime, &path, lengths, choice, 2) else { continue };
            println!("{apart:.1e} {name}, {lengths:?}, {filtering:?}");
            assert!(apart < bound, "{name}, {lengths:?}, {filtering:?}: {apart:.1e}");
        }
    }
}

/// Most of the work of each kind of model is done by operators of our own. Full-size models have wider layers, of which less
/// is left than of these.
#[test]
fn operators_cover_the_models() {
    /// Linear attention and convolutions of single channels.
    const SANA: &str = "families/sana/transformer";
    /// Convolutions of rows, and those of four channels after a padding.
    const COMPVIS: &str = "systems/";
    // Their inputs' lengths depend on each other, or their sizes on their levels.
    let unlike = |name: &str| {
        name.starts_with("families/control/") && !name.contains("vae") || name.starts_with("families/sana/vae_encoder")
    };
    let is_counted =
        |name: &str| ["unet", "transformer", "vae", "vqvae"].iter().any(|kind| name.contains(&format!("/{kind}")));
    let runtime = runtime();
    let mut all = Vec::new();
    for folder in ["models", "families", "systems"] {
        graphs(&fixtures().join(folder), &mut all);
    }
    all.sort();
    let mut counted = 0;
    for path in all {
        let name = path.strip_prefix(fixtures()).unwrap().to_string_lossy().replace('\\', "/");
        if !is_counted(&name) || unlike(&name) || name.starts_with("models/variants") {
            continue;
        }
        let lengths = Lengths { batch: 2, height: 16, width: 16, tokens: 77 };
        let WithOperators { coverage: Coverage { own, all, .. }, places, .. } = with(&runtime, &path, lengths).unwrap();
        let share = own / all;
        println!("{share:.3} {name}: {places:?}");
        let least = if name.starts_with(SANA) {
            0.86
        } else if name.starts_with(COMPVIS) {
            0.91
        } else {
            0.95
        };
        assert!(share > least, "{name}: {share:.3}");
        counted += 1;
    }
    assert!(counted > 40, "only {counted}");
}

/// What a plan expects of the memory of weights is what they take, in every precision.
#[test]
fn packed_weights_are_as_large_as_their_footprint() {
    let runtime = runtime();
    let path = root().join("models/shapes/unet/model.onnx");
    let graph = GraphFile::open(&path).unwrap();
    let lengths = Lengths { batch: 2, height: 16, width: 16, tokens: 24 };
    let bf16 = OperatorChoice::new(OperandType::Bf16, Some(Filtering::Four));
    let mut sizes = Vec::new();
    for choice in [DIRECT, bf16, OperatorChoice { linear_in_int8: true, ..bf16 }] {
        let (_, bytes) = with_choice(&runtime, &path, lengths, choice).unwrap();
        let passes = [Pass::Attention, Pass::Operators(choice)];
        let told = footprint(&graph, &passes, &axes(&graph, lengths)).unwrap().unwrap().weights;
        println!("{choice:?}: {bytes}, told {told}");
        let ratio = told as f64 / bytes as f64;
        assert!((0.9..1.1).contains(&ratio), "{choice:?}: {ratio}");
        sizes.push(bytes);
    }
    assert!(sizes[2] < sizes[1] && sizes[1] < sizes[0], "{sizes:?}");
}
