//! Operators of our own in whole pipelines, with every instruction set that this processor has and in both precisions.

use ldm_ort::kernels::{INSTRUCTION_SET, InstructionSet};

use super::draw::{GraphCache, command, text};
use super::npy;
use crate::common::{answer, ldm_ort, root};

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
    ("families/pixart-sigma", Some(2e-3)),
    ("families/sana", None),
];

/// Draws a case, and returns how far its latents are from diffusers'.
fn apart(name: &str, set: InstructionSet, precision: &str, cache: &GraphCache) -> f32 {
    let folder = tempfile::tempdir().expect("a folder");
    let case = root().join("tests/golden").join(name);
    let pipeline = case.join("pipeline.toml");
    let arguments = [text(&pipeline), "--save-latents", "latents.npy", "--precision", precision];
    let mut command = command(folder.path(), arguments, Some(cache));
    command.env(INSTRUCTION_SET, set.name());
    let answer = answer(command);
    assert_eq!(answer.code, Some(0), "{answer}");
    let told = if precision == "bf16" { format!("bf16 ({})", set.name()) } else { precision.to_owned() };
    assert!(answer.stdout.contains(&format!("\"precision\":\"{told}\"")), "{answer}");
    // In bf16, a graph that has no products worth it stays as it is, with a warning.
    assert!(precision == "bf16" || !answer.stderr.contains("opened as exported"), "{answer}");
    npy::read(&folder.path().join("latents.npy")).difference(&npy::read(&case.join("latents.npy")))
}

#[test]
fn every_instruction_set_draws_what_diffusers_draws() {
    for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
        let cache = GraphCache::new();
        for (name, bf16) in CASES {
            // The others multiply float32 as AVX-512 does.
            if set <= InstructionSet::Avx512 {
                let found = apart(name, set, "float32", &cache);
                println!("{} {name}: float32 {found:.1e}", set.name());
                assert!(found < 1e-5, "{name} on {}: {found:.1e}", set.name());
            }
            if let Some(bound) = bf16.filter(|_| set.has_bf16() || set == InstructionSet::Portable) {
                let found = apart(name, set, "bf16", &cache);
                println!("{} {name}: bf16 {found:.1e}", set.name());
                assert!(found > 1e-5 && found < bound, "{name} on {} in bf16: {found:.1e}", set.name());
            }
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
