//! Operators of our own in whole pipelines, with every instruction set that this processor has and in both precisions.

use std::path::PathBuf;

use ldm_ort::bundle::GraphFile;
use ldm_ort::graph_cache::CachedGraph;
use ldm_ort::kernels::InstructionSet;
use ldm_ort::session::{Optimization, Session, SessionOptions};
use ldm_ort::spec::{Overrides, Spec};
use ldm_ort::tensor::DType;

use super::draw::{GraphCache, command, text};
use super::npy;
use crate::common::{answer, copy_folder, ldm_ort, root, runtime};

const INSTRUCTION_SET: &str = "LDM_ORT_INSTRUCTION_SET";

/// A case of each architecture, and the largest difference in bf16 of its latents from diffusers', by the largest latent;
/// `None` if nearly all products of the denoiser have fewer channels than bf16 pays for.
const CASES: &[(&str, Option<f32>)] = &[
    ("pipelines/plain", Some(2e-3)),
    ("pipelines/sd2v", Some(4e-3)),
    ("pipelines/legacy", Some(2e-3)),
    ("families/control", Some(2e-3)),
    ("families/inpaint", Some(2e-3)),
    ("families/xl", Some(2e-3)),
    ("families/sd3", Some(2e-3)),
    ("families/flux-dev", Some(2e-3)),
    ("families/pixart-sigma", Some(5e-3)),
    ("families/sana", None),
];

/// Returns true if an optimized graph has operators of our own.
pub fn has_operators(graph: &CachedGraph) -> bool {
    let bytes = std::fs::read(graph.folder().join("model.onnx")).expect("a graph");
    bytes.windows(7).any(|window| window == b"ldm_ort")
}

/// Returns true if it is to have some: text encoders and conditioners are not rewritten, nor are graphs with weights of
/// fewer bits.
pub fn wants_operators(graph: &CachedGraph) -> bool {
    let is_heavy = ["unet", "transformer", "controlnet", "vae", "vqvae"].iter().any(|n| graph.component.starts_with(n));
    let types = GraphFile::open(&graph.source).expect("a graph").weight_types;
    let is_whole = |dtype: &DType| matches!(dtype, DType::F32 | DType::I64 | DType::I32 | DType::Bool);
    is_heavy && types.iter().all(|(dtype, _)| is_whole(dtype))
}

/// A case whose model directory stores its weights in float32.
struct Case {
    folder: PathBuf,
    /// Where the directory is.
    model: tempfile::TempDir,
    bf16: Option<f32>,
}

impl Case {
    /// Copies a case's model directory. The fixtures store many weights in half precision, of which there are no products in
    /// float32 with operators of our own; ONNX Runtime widens them when it folds a graph.
    fn widened(name: &str, bf16: Option<f32>) -> Self {
        let folder = root().join("tests/golden").join(name);
        let spec = Spec::load(&folder.join("pipeline.toml"), &Overrides::default()).expect("a pipeline");
        let paths = spec.paths();
        let (_, path) = paths.iter().find(|(key, _)| key == "model.path").expect("a model");
        let model = tempfile::tempdir().expect("a folder");
        copy_folder(path, model.path());
        let options = SessionOptions { optimization: Optimization::Basic, ..SessionOptions::default() };
        for component in ["unet", "transformer", "controlnet", "vae_encoder", "vae_decoder"] {
            let graph = model.path().join(component).join("model.onnx");
            if graph.exists() {
                let folded = graph.with_file_name("folded.onnx");
                Session::save_optimized(&runtime(), &graph, None, &options, &folded).expect("a folded graph");
                std::fs::rename(folded, &graph).expect("a graph");
            }
        }
        Self { folder, model, bf16 }
    }

    /// Draws it, and returns how far its latents are from diffusers'.
    fn apart(&self, set: InstructionSet, precision: &str, cache: &GraphCache) -> f32 {
        let folder = tempfile::tempdir().expect("a folder");
        let pipeline = self.folder.join("pipeline.toml");
        let arguments = [text(&pipeline), "--model", text(self.model.path()), "--save-latents", "latents.npy"];
        let mut command = command(folder.path(), arguments.into_iter().chain(["--precision", precision]), Some(cache));
        command.env(INSTRUCTION_SET, set.name());
        let answer = answer(command);
        assert_eq!(answer.code, Some(0), "{answer}");
        let told = if precision == "bf16" { format!("bf16 ({})", set.name()) } else { precision.to_owned() };
        assert!(answer.stdout.contains(&format!("\"precision\":\"{told}\"")), "{answer}");
        // In bf16, a graph that has no products worth it stays as it is, with a warning.
        assert!(precision == "bf16" || !answer.stderr.contains("opened as exported"), "{answer}");
        npy::read(&folder.path().join("latents.npy")).difference(&npy::read(&self.folder.join("latents.npy")))
    }
}

#[test]
fn every_instruction_set_draws_what_diffusers_draws() {
    let cases: Vec<_> = CASES.iter().map(|(name, bf16)| Case::widened(name, *bf16)).collect();
    let sets = || InstructionSet::ALL.into_iter().filter(|set| set.is_available());
    // Plain Rust is slow: it draws some.
    let of_set = |set| cases.iter().step_by(if set == InstructionSet::Portable { 3 } else { 1 });
    for (set, case) in sets().flat_map(|set| of_set(set).map(move |case| (set, case))) {
        let cache = GraphCache::new();
        let name = format!("{} {}", set.name(), case.folder.display());
        // The others multiply float32 as AVX-512 does.
        if set <= InstructionSet::Avx512 {
            let found = case.apart(set, "float32", &cache);
            println!("{name}: float32 {found:.1e}");
            assert!(found < 1e-5, "{name}: {found:.1e}");
            let graphs = cache.graphs();
            let denoiser = graphs.iter().find(|graph| ["unet", "transformer"].contains(&graph.component.as_str()));
            assert!(has_operators(denoiser.expect("a denoiser")), "{name}");
        }
        if let Some(bound) = case.bf16.filter(|_| set.has_bf16() || set == InstructionSet::Portable) {
            let found = case.apart(set, "bf16", &cache);
            println!("{name}: bf16 {found:.1e}");
            assert!(found > 1e-5 && found < bound, "{name} in bf16: {found:.1e}");
        }
    }
}

#[test]
fn an_instruction_set_that_is_none_of_this_cpu_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = ldm_ort(folder.path());
    command.args(["run".as_ref(), root().join("pipeline.toml").as_os_str()]);
    command.env_remove("LDM_ORT_OPTIMIZE").env(INSTRUCTION_SET, "avx1024");
    let told = answer(command);
    assert_eq!(told.code, Some(2));
    let expected = format!("{INSTRUCTION_SET}: expected an instruction set of this CPU (portable");
    assert!(told.stderr.contains(&expected) && told.stderr.contains("avx1024"), "{}", told.stderr);
}
