//! The keys of the cache.

use sha2::{Digest, Sha256};

use crate::files;
use crate::rewrite::Pass;
use crate::session::{Runtime, SessionOptions};

/// The version of the entries' form. It changes when this version makes something else of a graph.
const FORM: &str = "14";

/// The name of the entry for a graph: a digest of everything that the optimized graph depends on.
pub(super) fn key(source: &str, runtime: &Runtime, passes: &[Pass], options: &SessionOptions) -> String {
    let mut hash = Sha256::new();
    let edits = options.edits.iter().map(|edit| format!("{edit:?}"));
    let config = options.config.iter().map(|(key, value)| format!("{key}={value}"));
    let parts = [FORM, source, runtime.version(), &processor()].map(str::to_owned);
    let axes = options.axes.iter().map(|(name, length)| format!("{name}={length}"));
    let passes = passes.iter().map(|pass| format!("{pass:?}"));
    for part in parts.into_iter().chain(edits).chain(config).chain(axes).chain(passes) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut name = files::hexadecimal(hash);
    name.truncate(32);
    name
}

/// The CPU's architecture and the instruction sets that decide the layout of weights.
pub(crate) fn processor() -> String {
    let mut parts = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    {
        let features = [
            ("avx", std::arch::is_x86_feature_detected!("avx")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx512bw", std::arch::is_x86_feature_detected!("avx512bw")),
            ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
            ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
            ("avxvnni", std::arch::is_x86_feature_detected!("avxvnni")),
        ];
        parts.extend(features.iter().filter(|(_, has)| *has).map(|(name, _)| *name));
    }
    #[cfg(target_arch = "aarch64")]
    {
        let features = [
            ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
            ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
            ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
            ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
        ];
        parts.extend(features.iter().filter(|(_, has)| *has).map(|(name, _)| *name));
    }
    parts.join(" ")
}
