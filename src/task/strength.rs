//! The steps that a strength runs.

use crate::error::{Error, Result, count_of};

/// The reading of a strength that is no whole number of steps, which differs among diffusers' pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// Fewer steps are run: Stable Diffusion 1 to XL.
    #[default]
    Down,
    /// More steps are run: Stable Diffusion 3 and its kin.
    Up,
}

/// The number of the user's steps that a strength runs, as diffusers' `get_timesteps` computes it. Errors name `key`.
pub(super) fn steps_run(key: &str, strength: f64, steps: usize, rounding: Rounding) -> Result<usize> {
    let share = (steps as f64 * strength).min(steps as f64);
    let run = match rounding {
        Rounding::Down => share as usize,
        Rounding::Up => steps - (steps as f64 - share) as usize,
    };
    match run {
        0 => Err(Error::input(
            key,
            format!("{strength} of {} is less than one step", count_of(steps, "step")),
            format!("raise strength to at least {:.3}, or raise run.steps", 1.0 / steps as f64),
        )),
        run => Ok(run),
    }
}
