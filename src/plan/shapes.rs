//! Graphs with fixed axes, held to the sizes of a run before anything is opened.

use std::path::Path;

use super::execution_plan::decoding_tiles;
use super::model::ModelPlan;
use super::problems::Problems;
use crate::bundle::{ComponentKind, Role, VaeDecoderSignature};
use crate::conditioner::{ConditionSource, Conditioning};
use crate::error::{Error, Result};
use crate::spec::DecodeTile;
use crate::tensor::{Dim, TensorInfo};
use crate::tiles::Tiles;

/// A tensor of a graph whose last two axes are a height and a width.
struct Planes<'a> {
    kind: ComponentKind,
    graph: &'a Path,
    /// `input` or `output`.
    role: &'static str,
    info: &'a TensorInfo,
}

impl Planes<'_> {
    /// Requires that axes which the graph fixes are as long as those of the run; `pixels` are the pixels of one of theirs.
    fn check(&self, [height, width]: [usize; 2], pixels: usize) -> Result<()> {
        let fixed = |axis: usize| self.info.shape.get(axis).and_then(Dim::fixed);
        let (own_height, own_width) = (fixed(2).unwrap_or(height), fixed(3).unwrap_or(width));
        if (own_height, own_width) == (height, width) {
            return Ok(());
        }
        Err(Error::model(
            self.graph,
            format!(
                "{} {} of {} is fixed at {own_width}×{own_height} (width × height), and this run has {width}×{height} there",
                self.role, self.info.name, self.kind
            ),
            format!(
                "set run.width = {} and run.height = {}, or export the graph with free axes",
                own_width * pixels,
                own_height * pixels
            ),
        ))
    }
}

impl ModelPlan {
    /// Requires that every graph takes the sizes of a run for images of `width` × `height` pixels, worked on in `tiles` if
    /// they are larger than one, and decoded in those of `decode_tile`.
    ///
    /// # Errors
    /// [`Error::Model`] naming each graph that is fixed at another size.
    pub(super) fn check_shapes(
        &self,
        (width, height): (usize, usize),
        tiles: Option<Tiles>,
        decode_tile: DecodeTile,
    ) -> Result<()> {
        let mut problems = Problems::default();
        let [_, rows, columns] = self.sample_shape(width, height);
        let (pixels, whole) = ([height, width], [rows, columns]);
        let piece_of = |tiles: Option<Tiles>| tiles.map_or((rows, columns), |tiles| tiles.tile_size(rows, columns));
        let (piece, decoded) = (piece_of(tiles), piece_of(decoding_tiles(decode_tile, tiles)));
        problems.unless(self.check_denoiser(piece));
        problems.unless(self.check_tokens());
        for control in &self.controls {
            let of = |info| Planes { kind: control.part.kind, graph: &control.part.graph.path, role: "input", info };
            problems.unless(of(&control.part.signature.sample).check(whole, self.spatial_factor));
            problems.unless(of(&control.part.signature.control).check(pixels, 1));
        }
        if let Some(part) = &self.encoder {
            let of = |role, info| Planes { kind: part.kind, graph: &part.graph.path, role, info };
            let taken = problems.unless(of("input", &part.signature.sample).check(pixels, 1));
            if taken.is_some() {
                problems.unless(of("output", &part.signature.output).check(whole, self.spatial_factor));
            }
        }
        let preview = self.preview_decoder().filter(|part| self.decoder.as_ref().is_none_or(|d| d.kind != part.kind));
        for part in self.decoder.iter().chain(preview) {
            let VaeDecoderSignature { latent, .. } = &part.signature;
            let planes = Planes { kind: part.kind, graph: &part.graph.path, role: "input", info: latent };
            problems.unless(planes.check([decoded.0, decoded.1], self.spatial_factor));
        }
        for condition in &self.conditions {
            let Some(part) = &condition.part else { continue };
            let of = |role, info| Planes { kind: part.kind, graph: &part.graph.path, role, info };
            problems.unless(match condition.condition.source {
                ConditionSource::LabelMap(_) => of("input", &part.signature.input).check(pixels, 1),
                ConditionSource::DepthMap(_) => of("input", &part.signature.input).check(whole, self.spatial_factor),
                _ => Ok(()),
            });
            if condition.condition.conditioning == Conditioning::Channels {
                problems.unless(of("output", &part.signature.output).check(whole, self.spatial_factor));
            }
        }
        problems.check()
    }

    fn check_denoiser(&self, (rows, columns): (usize, usize)) -> Result<()> {
        let signature = &self.model.denoiser;
        let graph = &self.denoiser.graph.path;
        let planes = Planes { kind: self.denoiser.kind, graph, role: "input", info: &signature.sample };
        if !signature.is_packed() {
            return planes.check([rows, columns], self.spatial_factor);
        }
        let tokens = self.model.packed_images * (rows / 2) * (columns / 2);
        match signature.sequence_length.filter(|&fixed| fixed != tokens) {
            None => Ok(()),
            Some(fixed) => Err(Error::model(
                graph,
                format!("input {} is fixed at {fixed} tokens, and this run has {tokens}", signature.sample.name),
                "choose the width and height that the graph was exported for, or export it with free axes",
            )),
        }
    }

    /// Requires that the text encoders give as many tokens as the denoiser is fixed at. Texts read in several chunks, and
    /// tokens of other conditions, are left out.
    fn check_tokens(&self) -> Result<()> {
        let Some(context) = self.model.denoiser.input(Role::Context) else { return Ok(()) };
        let fixed = context.shape.get(1).and_then(Dim::fixed);
        let tokens = self.tokens();
        match fixed.zip(tokens).filter(|(fixed, tokens)| fixed != tokens) {
            None => Ok(()),
            Some((fixed, tokens)) => Err(Error::model(
                &self.denoiser.graph.path,
                format!(
                    "input {} is fixed at {fixed} tokens, and the text encoders of this model give {tokens}",
                    context.name
                ),
                "set model_max_length in tokenizer_config.json to the graph's length, or export the graph with free axes",
            )),
        }
    }
}
