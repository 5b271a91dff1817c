//! Requires that the VAE's graphs give the sizes that the model's latents stand for, as far as their shapes tell.

use super::execution_plan::ExecutionPlan;
use super::part::Part;
use super::sources::ModelSources;
use crate::error::{Error, Result};
use crate::tensor::{Dim, TensorInfo};

impl ExecutionPlan {
    /// Requires that the VAE decoders give [`ModelPlan::spatial_factor`](super::model::ModelPlan::spatial_factor) pixels a side for one latent, and the VAE encoder
    /// one latent for as many pixels, in a request of these sizes.
    ///
    /// Sizes that only a run tells are held to the same when they are known.
    ///
    /// # Errors
    /// [`Error::Model`] naming the graph, its output, and both sizes; as [`crate::rewrite::output_shape`].
    pub(super) fn check_output_sizes(&self, sources: &ModelSources) -> Result<()> {
        let (model, sizes) = (&*self.model, self.sizes);
        let [_, height, width] = model.sample_shape(sizes.width, sizes.height);
        let pixels = |latent: [usize; 2]| latent.map(|side| side * model.spatial_factor);
        let tiles = self.decoding_tiles();
        let latent = tiles.map_or((height, width), |tiles| tiles.tile_size(height, width)).into();
        for part in model.decoder.iter().chain(model.preview_decoder()) {
            check(part, [&part.signature.latent, &part.signature.output], latent, pixels(latent), sources)?;
        }
        let latent = [height, width];
        match &model.encoder {
            Some(part) => {
                check(part, [&part.signature.sample, &part.signature.output], pixels(latent), latent, sources)
            }
            None => Ok(()),
        }
    }
}

/// Requires that a graph gives `wanted` height and width for images of `given`, where its shapes tell.
fn check<C>(
    part: &Part<C>,
    [input, output]: [&TensorInfo; 2],
    given: [usize; 2],
    wanted: [usize; 2],
    sources: &ModelSources,
) -> Result<()> {
    let Some(sides) = input.shape.last_chunk::<2>() else { return Ok(()) };
    let lengths = sides.iter().zip(given);
    // A graph of another fixed size is refused for that.
    if lengths.clone().any(|(dim, length)| dim.fixed().is_some_and(|fixed| fixed != length)) {
        return Ok(());
    }
    let axes = lengths.filter_map(|(dim, length)| match dim {
        Dim::Free(name) if !name.is_empty() => Some((name.clone(), length)),
        _ => None,
    });
    let axes: Vec<_> = axes.collect();
    let one_name_for_two = matches!(axes.as_slice(), [(a, x), (b, y)] if a == b && x != y);
    let shape = if one_name_for_two { None } else { sources.output_shape(&part.graph, &output.name, &axes)? };
    let Some(&[Some(height), Some(width)]) = shape.as_deref().and_then(|shape| shape.last_chunk::<2>()) else {
        return Ok(());
    };
    if [height, width] == wanted {
        return Ok(());
    }
    let ([given_height, given_width], [wanted_height, wanted_width]) = (given, wanted);
    Err(Error::model(
        &part.graph.path,
        format!(
            "output {} is {height}×{width} (height × width) for {} of {given_height}×{given_width}: expected \
             {wanted_height}×{wanted_width}",
            output.name, input.name
        ),
        "the graph belongs to another model, or the VAE's config.json does; copy both from the model again",
    ))
}
