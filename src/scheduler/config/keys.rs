//! Keys that many classes share.

use super::{Key, Kind};

pub const NUM_TRAIN_TIMESTEPS: Key = Key::new("num_train_timesteps", Kind::Count(1000));
pub const TRAINED_BETAS: Key = Key::new("trained_betas", Kind::MaybeFloats);
pub const STEPS_OFFSET: Key = Key::new("steps_offset", Kind::Integer(0));
pub const RESCALE_BETAS_ZERO_SNR: Key = Key::switch("rescale_betas_zero_snr", false);
pub const THRESHOLDING: Key = Key::switch("thresholding", false);
pub const DYNAMIC_THRESHOLDING_RATIO: Key = Key::float("dynamic_thresholding_ratio", 0.995);
pub const SAMPLE_MAX_VALUE: Key = Key::float("sample_max_value", 1.0);
pub const USE_KARRAS_SIGMAS: Key = Key::switch("use_karras_sigmas", false);
pub const USE_EXPONENTIAL_SIGMAS: Key = Key::switch("use_exponential_sigmas", false);
pub const USE_BETA_SIGMAS: Key = Key::switch("use_beta_sigmas", false);
pub const FINAL_SIGMAS_TYPE: Key = Key::choice("final_sigmas_type", "zero", &["zero", "sigma_min"]);

pub const fn beta_start(default: f64) -> Key {
    Key::float("beta_start", default)
}

pub const fn beta_end(default: f64) -> Key {
    Key::float("beta_end", default)
}

pub const fn beta_schedule(default: &'static str) -> Key {
    Key::choice("beta_schedule", default, &["linear", "scaled_linear", "squaredcos_cap_v2"])
}

pub const fn prediction_type(valid: &'static [&'static str]) -> Key {
    Key::choice("prediction_type", "epsilon", valid)
}

/// [`timestep_spacing`] with one way more: every `num_train_timesteps / steps`-th timestep and one, as the latent
/// diffusion paper's own samplers have it, which is more steps than asked for where these do not divide.
pub const fn timestep_spacing_or_compvis(default: &'static str) -> Key {
    Key::choice("timestep_spacing", default, &["linspace", "leading", "trailing", "compvis"])
}

pub const fn timestep_spacing(default: &'static str) -> Key {
    Key::choice("timestep_spacing", default, &["linspace", "leading", "trailing"])
}

/// Keys that several classes have and a class's own, as one list of `N`.
pub const fn joined<const N: usize>(shared: &[Key], own: &[Key]) -> [Key; N] {
    assert!(shared.len() + own.len() == N, "N is the number of keys of both lists");
    let mut all = [shared[0]; N];
    let mut i = 1;
    while i < N {
        all[i] = if i < shared.len() { shared[i] } else { own[i - shared.len()] };
        i += 1;
    }
    all
}
