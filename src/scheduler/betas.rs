//! The forward process: the betas and their cumulative alphas at each training timestep.
//!
//! diffusers keeps these tables as torch float32 tensors, and their smallest values are differences of numbers near
//! one. Every rounding here is torch's; otherwise the last steps of a run would differ visibly.

use super::linspace::linspace_f32;
use super::settings::SchedulerSettings;
use crate::elementary::{cos, exp, ln};
use crate::error::Result;
use crate::rng::fused;

/// `torch.cumprod` of a float32 tensor, which accumulates in double precision.
fn cumulative_product(values: impl Iterator<Item = f32>) -> Vec<f32> {
    values
        .scan(1.0_f64, |product, value| {
            *product *= f64::from(value);
            Some(*product as f32)
        })
        .collect()
}

/// Returns the betas whose cumulative product of `1 - beta` follows `alpha_bar` over the unit interval (Nichol and
/// Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models", equation 17), no beta above 0.999.
fn betas_for_alpha_bar(n: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    (0..n)
        .map(|i| {
            let (t1, t2) = (i as f64 / n as f64, (i + 1) as f64 / n as f64);
            (1.0 - alpha_bar(t2) / alpha_bar(t1)).min(0.999) as f32
        })
        .collect()
}

fn cosine_alpha_bar(t: f64) -> f64 {
    cos((t + 0.008) / 1.008 * std::f64::consts::PI / 2.0).powi(2)
}

fn laplace_alpha_bar(t: f64) -> f64 {
    let centered = 0.5 - t;
    let lambda = -0.5 * 1.0_f64.copysign(centered) * ln(1.0 - 2.0 * centered.abs() + 1e-6);
    let snr = exp(lambda);
    (snr / (1.0 + snr)).sqrt()
}

/// Returns the betas of a configuration, one per training timestep.
fn betas(settings: &SchedulerSettings) -> Result<Vec<f32>> {
    if let Some(trained) = settings.maybe_floats("trained_betas")? {
        if trained.is_empty() {
            return Err(settings.error("trained_betas", "the list is empty", "set one beta per training timestep"));
        }
        return Ok(trained.into_iter().map(|beta| beta as f32).collect());
    }
    let n = settings.count("num_train_timesteps")?;
    let (start, end) = (settings.float("beta_start")?, settings.float("beta_end")?);
    Ok(match settings.choice("beta_schedule")? {
        "scaled_linear" => {
            let roots = linspace_f32(start.sqrt() as f32, end.sqrt() as f32, n);
            roots.into_iter().map(|root| root * root).collect()
        }
        "squaredcos_cap_v2" => betas_for_alpha_bar(n, cosine_alpha_bar),
        "exp" => betas_for_alpha_bar(n, |t| exp(t * -12.0)),
        "laplace" => betas_for_alpha_bar(n, laplace_alpha_bar),
        "sigmoid" => linspace_f32(-6.0, 6.0, n)
            .into_iter()
            .map(|x| 1.0 / (1.0 + exp_f32(-x)) * ((end - start) as f32) + start as f32)
            .collect(),
        _ => linspace_f32(start as f32, end as f32, n),
    })
}

/// Rescales the betas to zero terminal signal-to-noise ratio (Lin et al. 2023, "Common
/// Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1).
fn rescale_zero_terminal_snr(betas: Vec<f32>) -> Vec<f32> {
    let roots: Vec<f32> = cumulative_product(betas.iter().map(|beta| 1.0 - beta)).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return betas };
    let scale = first / (first - last);
    let bars: Vec<f32> = roots
        .into_iter()
        .map(|root| {
            let root = (root - last) * scale;
            root * root
        })
        .collect();
    let mut previous = 1.0;
    bars.into_iter()
        .enumerate()
        .map(|(i, bar)| {
            let alpha = if i == 0 { bar } else { bar / previous };
            previous = bar;
            1.0 - alpha
        })
        .collect()
}

/// Returns diffusers' `alphas_cumprod`: the cumulative products of `1 - beta`, falling, one per training timestep.
///
/// # Errors
/// An unknown beta schedule, or an empty list of betas.
pub(super) fn alphas_cumprod(settings: &SchedulerSettings) -> Result<Vec<f32>> {
    let mut betas = betas(settings)?;
    if settings.switch("rescale_betas_zero_snr")? {
        betas = rescale_zero_terminal_snr(betas);
    }
    Ok(cumulative_product(betas.into_iter().map(|beta| 1.0 - beta)))
}

/// Returns [`alphas_cumprod`] for solvers that divide by it: with `rescale_betas_zero_snr` the last entry is 2⁻²⁴, the
/// smallest half-precision number, instead of zero.
///
/// # Errors
/// As [`alphas_cumprod`].
pub(super) fn positive_alphas_cumprod(settings: &SchedulerSettings) -> Result<Vec<f32>> {
    let mut alphas = alphas_cumprod(settings)?;
    if settings.switch("rescale_betas_zero_snr")?
        && let Some(last) = alphas.last_mut()
    {
        *last = 2.0_f32.powi(-24);
    }
    Ok(alphas)
}

/// Returns the exponential, rounded to float32 as torch does.
pub(super) fn exp_f32(x: f32) -> f32 {
    exp(f64::from(x)) as f32
}

/// Returns the natural logarithm, rounded to float32 as torch does.
pub(super) fn ln_f32(x: f32) -> f32 {
    ln(f64::from(x)) as f32
}

/// Returns the natural logarithm, rounded to float32 as numpy does on CPUs with vector units: a ratio of two
/// polynomials, one unit in the last place off for one value in thirteen. Solvers that look up the timestep of a sigma
/// round it down, so that such a unit decides between two timesteps.
pub(super) fn numpy_ln_f32(x: f32) -> f32 {
    if !x.is_normal() || x < 0.0 {
        return ln_f32(x);
    }
    // The mantissa is in [1/sqrt(2), sqrt(2)).
    let bits = x.to_bits();
    let mut exponent = (bits >> 23) as i32 - 127;
    let mut mantissa = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000);
    if mantissa > std::f32::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let m = mantissa - 1.0;
    let polynomial = |coefficients: [f64; 6]| {
        coefficients.into_iter().rev().map(|c| c as f32).reduce(|sum, c| fused(sum, m, c)).unwrap_or(0.0)
    };
    let numerator = polynomial([
        0.0,
        0.999_999_999_999_999_9,
        2.112_677_543_073_053,
        1.480_000_633_576_506_6,
        0.380_883_774_138_840_8,
        0.025_899_791_179_079_227,
    ]);
    let denominator = polynomial([
        1.0,
        2.612_677_543_073_109,
        2.453_006_071_784_736_4,
        0.986_494_295_851_942,
        0.154_647_637_498_390_67,
        0.005_875_095_403_124_574,
    ]);
    fused(exponent as f32, std::f32::consts::LN_2, numerator / denominator)
}
