//! Configuration keys that many classes share.

use super::{SchedulerKey, SchedulerKeyKind};

pub const NUM_TRAIN_TIMESTEPS: SchedulerKey = SchedulerKey::new("num_train_timesteps", SchedulerKeyKind::Count(1000));
pub const TRAINED_BETAS: SchedulerKey = SchedulerKey::new("trained_betas", SchedulerKeyKind::MaybeFloats);
pub const STEPS_OFFSET: SchedulerKey = SchedulerKey::new("steps_offset", SchedulerKeyKind::Integer(0));
pub const RESCALE_BETAS_ZERO_SNR: SchedulerKey = SchedulerKey::switch("rescale_betas_zero_snr", false);
pub const THRESHOLDING: SchedulerKey = SchedulerKey::switch("thresholding", false);
pub const DYNAMIC_THRESHOLDING_RATIO: SchedulerKey = SchedulerKey::float("dynamic_thresholding_ratio", 0.995);
pub const SAMPLE_MAX_VALUE: SchedulerKey = SchedulerKey::float("sample_max_value", 1.0);
pub const USE_KARRAS_SIGMAS: SchedulerKey = SchedulerKey::switch("use_karras_sigmas", false);
pub const USE_EXPONENTIAL_SIGMAS: SchedulerKey = SchedulerKey::switch("use_exponential_sigmas", false);
pub const USE_BETA_SIGMAS: SchedulerKey = SchedulerKey::switch("use_beta_sigmas", false);
pub const FINAL_SIGMAS_TYPE: SchedulerKey = SchedulerKey::choice("final_sigmas_type", "zero", &["zero", "sigma_min"]);

pub const fn beta_start(default: f64) -> SchedulerKey {
    SchedulerKey::float("beta_start", default)
}

pub const fn beta_end(default: f64) -> SchedulerKey {
    SchedulerKey::float("beta_end", default)
}

pub const fn beta_schedule(default: &'static str) -> SchedulerKey {
    SchedulerKey::choice("beta_schedule", default, &["linear", "scaled_linear", "squaredcos_cap_v2"])
}

pub const fn prediction_type(valid: &'static [&'static str]) -> SchedulerKey {
    SchedulerKey::choice("prediction_type", "epsilon", valid)
}

/// [`timestep_spacing`] with one more choice, `compvis`: every `num_train_timesteps / steps`-th timestep plus one, as
/// in the samplers of the latent diffusion paper. That is more than the requested steps if the division has a
/// remainder.
pub const fn timestep_spacing_or_compvis(default: &'static str) -> SchedulerKey {
    SchedulerKey::choice("timestep_spacing", default, &["linspace", "leading", "trailing", "compvis"])
}

pub const fn timestep_spacing(default: &'static str) -> SchedulerKey {
    SchedulerKey::choice("timestep_spacing", default, &["linspace", "leading", "trailing"])
}

/// Joins shared keys and a class's own keys into one list of `N`.
pub const fn joined<const N: usize>(shared: &[SchedulerKey], own: &[SchedulerKey]) -> [SchedulerKey; N] {
    assert!(shared.len() + own.len() == N, "N is the number of keys of both lists");
    let mut all = [shared[0]; N];
    let mut i = 1;
    while i < N {
        all[i] = if i < shared.len() { shared[i] } else { own[i - shared.len()] };
        i += 1;
    }
    all
}
