//! How large the pictures are, and the tiles they are made in.

use super::{Wrong, conditions, flux};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::image;
use crate::spec::Spec;
use crate::task::Task;

/// Width and height of the pictures in pixels.
pub(super) fn size(
    spec: &Spec,
    bundle: &Bundle,
    task: &dyn Task,
    handed: Option<(usize, usize)>,
) -> Result<(usize, usize)> {
    let step = bundle.facts.size_multiple();
    let whole = |length: usize| (length - length % step).max(step);
    let led_by = spec.controls.first().map(|control| image::dimensions(&control.image)).transpose()?;
    let natural = task.natural_size(bundle.facts.spatial_factor.value, handed)?.or(led_by);
    let natural = match natural {
        None => conditions::natural_size(&spec.conditions)?,
        found => found,
    };
    let natural = natural.map(|(w, h)| (whole(w), whole(h)));
    let fixed = bundle.facts.fixed_size.as_ref();
    // A graph of one size is drawn in that, whatever was said of another.
    let default = fixed.map_or(bundle.facts.default_size.value, |fixed| fixed.value);
    let (default_width, default_height) = natural.unwrap_or(default);
    let width = spec.run.width.unwrap_or(default_width);
    let height = spec.run.height.unwrap_or(default_height);
    let mut wrong = Wrong::default();
    for (key, length) in [("run.width", width), ("run.height", height)] {
        if length == 0 || length % step != 0 {
            wrong.0.push(Error::input(
                key,
                format!("{length} is not a multiple of {step}, which this model's graphs need"),
                format!("choose {} or {}", whole(length), whole(length).saturating_add(step)),
            ));
        }
    }
    if !wrong.0.is_empty() {
        return Err(wrong.into_error());
    }
    let factor = bundle.facts.spatial_factor.value;
    if spec.run.tiles.is_some_and(|tiles| tiles.split(height / factor, width / factor)) {
        // The graphs are held to the size of the tiles.
        return Ok((width, height));
    }
    match fixed.filter(|fixed| fixed.value != (width, height)) {
        None => flux::check_size(task, bundle, (width, height)).map(|()| (width, height)),
        Some(fixed) => Err(Error::input(
            "run.width, run.height",
            format!("{width}×{height} is asked for, and the model's graphs are fixed ({})", fixed.source),
            format!("choose {}×{}, or export the model with free axes", fixed.value.0, fixed.value.1),
        )),
    }
}

/// Requires that tiles are of a size that the graphs take, and that nothing reaches across them.
pub(super) fn tiles(spec: &Spec, bundle: &Bundle) -> Result<()> {
    let Some(tiles) = spec.run.tiles else { return Ok(()) };
    let step = bundle.facts.latent_multiple.value;
    if tiles.size % step != 0 {
        return Err(Error::input(
            "run.tile",
            format!("{} is not a multiple of {step}, which this model's denoiser needs", tiles.size),
            format!("choose {}", tiles.size.next_multiple_of(step)),
        ));
    }
    if !spec.controls.is_empty() {
        return Err(Error::input(
            "run.tile",
            "is given beside [[control]], whose residuals belong to the whole picture",
            "leave one of them out",
        ));
    }
    Ok(())
}
