//! The size of images, and of the tiles they are made in.

use super::problems::Problems;
use super::{conditions, packed};
use crate::bundle::{Bundle, Fact};
use crate::error::{Error, Result};
use crate::family::{DefaultSize, Defaults};
use crate::spec::Spec;
use crate::task::Task;

/// Width and height of the images in pixels, with the source of what the pipeline file leaves open.
pub(super) fn size(
    spec: &Spec,
    bundle: &Bundle,
    task: &dyn Task,
    handed: Option<(usize, usize)>,
    defaults: &Defaults,
) -> Result<Fact<(usize, usize)>> {
    let (step, limit) = (bundle.facts.size_multiple(), spec.run.input_limit());
    let whole = |length: usize| (length - length % step).max(step);
    let led_by = spec.controls.first().map(|control| control.image.dimensions(None, limit)).transpose()?.flatten();
    // A stage keeps the size of what it is handed.
    let is_kept =
        !matches!(defaults.size, DefaultSize::Model | DefaultSize::Binned | DefaultSize::Square512) || handed.is_some();
    let own = task.natural_size(bundle.facts.spatial_factor.value, handed, limit)?.filter(|_| is_kept);
    let labelled = conditions::natural_size(&spec.conditions, limit)?;
    let inputs = [(own, "the input image"), (led_by, "the control image"), (labelled, "the label map")];
    let natural = inputs.into_iter().find_map(|(size, source)| Some((size?, source)));
    let fixed = bundle.facts.fixed_size.as_ref();
    let default = match (natural, fixed) {
        (Some(((width, height), source)), _) => Fact::new((whole(width), whole(height)), source),
        // A graph of one size draws at that size, whatever the configuration says.
        (None, Some(fixed)) => fixed.clone(),
        (None, None) => bundle.default_size(task.name(), !spec.controls.is_empty()),
    };
    let (default_width, default_height) = default.value;
    let width = spec.run.width.unwrap_or(default_width);
    let height = spec.run.height.unwrap_or(default_height);
    let mut problems = Problems::default();
    for (key, length) in [("run.width", width), ("run.height", height)] {
        if length == 0 || length % step != 0 {
            problems.push(Error::input(
                key,
                format!("{length} is not a multiple of {step}, which this model's graphs need"),
                format!("choose {} or {}", whole(length), whole(length).saturating_add(step)),
            ));
        }
    }
    if !problems.is_empty() {
        return Err(problems.into_error());
    }
    let factor = bundle.facts.spatial_factor.value;
    if spec.run.tiles.is_some_and(|tiles| tiles.is_split(height / factor, width / factor)) {
        // The graphs are held to the size of the tiles.
        return Ok(Fact::new((width, height), default.source));
    }
    match fixed.filter(|fixed| fixed.value != (width, height)) {
        None => {
            packed::check_size(task, bundle, (width, height))?;
            Ok(Fact::new((width, height), default.source))
        }
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
            "is given beside [[control]], whose residuals belong to the whole image",
            "leave one of them out",
        ));
    }
    Ok(())
}
