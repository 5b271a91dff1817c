//! The machine that graphs are optimized for, and work on it that is stopped.

use crate::error::{Error, Result};
use crate::session::Cancel;

/// What of this machine's processor decides how weights are laid out.
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

pub(super) fn stop_if(cancel: &Cancel) -> Result<()> {
    if cancel.is_cancelled() { Err(Error::Interrupted { at_step: None }) } else { Ok(()) }
}
