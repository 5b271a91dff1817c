//! The lengths of graphs' dynamic axes in a request.

use std::collections::BTreeMap;

use super::execution_plan::{ExecutionPlan, Sizes};
use super::opening::Opening;
use super::text::TextPart;
use crate::bundle::{InputAxis, Role};
use crate::rewrite::axis_name;
use crate::tensor::{Dim, TensorInfo};
use crate::tiles::Tiles;

/// The axes of known length of a graph's inputs.
#[derive(Default)]
struct Axes {
    /// By name; `None` for a name that stands for two lengths, or for one that is not known.
    named: BTreeMap<String, Option<usize>>,
    /// Each input's, with its place and name.
    all: Vec<(String, usize, String, usize)>,
}

impl Axes {
    /// Adds the axes of a tensor. Where one of no known length shares a name, the name says nothing of the others either.
    fn add(&mut self, info: &TensorInfo, lengths: &[Option<usize>]) {
        for (at, (dim, length)) in info.shape.iter().zip(lengths).enumerate() {
            let Dim::Free(name) = dim else { continue };
            self.all.extend(length.map(|length| (info.name.clone(), at, name.clone(), length)));
            let known = self.named.entry(name.clone()).or_insert(length.filter(|_| !name.is_empty()));
            if *known != *length {
                *known = None;
            }
        }
    }

    fn into_lengths(self) -> Vec<(String, usize)> {
        let Self { named, all } = self;
        let alone = all.into_iter().filter(|(.., name, _)| named.get(name).is_none_or(Option::is_none));
        let alone = alone.map(|(input, at, _, length)| (axis_name(&input, at), length)).collect::<Vec<_>>();
        named.into_iter().filter_map(|(name, length)| Some((name, length?))).chain(alone).collect()
    }
}

impl ExecutionPlan {
    /// The lengths of a graph's free axes in a request of these sizes, by name, or by [`axis_name`] where a name stands for
    /// several lengths; those that differ from run to run are left out.
    pub fn axes(&self, opening: &Opening<'_>) -> Vec<(String, usize)> {
        let kind = opening.kind;
        let mut axes = Axes::default();
        let (model, sizes) = (&*self.model, self.sizes);
        let [_, height, width] = model.sample_shape(sizes.width, sizes.height);
        let within = |tiles: Option<Tiles>| tiles.map_or((height, width), |tiles| tiles.tile_size(height, width));
        let pixels = |rows| [rows, None, Some(sizes.height), Some(sizes.width)];
        if kind == model.denoiser.kind {
            self.denoiser_axes(sizes, within(sizes.tiles), &mut axes);
        }
        let text = model.text.iter().flat_map(|text| &text.encoders).find(|text| text.part.kind == kind);
        if let Some(TextPart { part, tokenizer, instruction, .. }) = text {
            // A negative prompt goes without the instruction.
            let length = Some(tokenizer.max_length()).filter(|_| instruction.is_none());
            let shape = [part.signature.batch.or(Some(1)), length];
            axes.add(&part.signature.input_ids, &shape);
            part.signature.attention_mask.iter().for_each(|mask| axes.add(mask, &shape));
        }
        if let Some(control) = model.controls.iter().find(|control| control.part.graph.path == opening.graph.path) {
            let signature = &control.part.signature;
            let rows = signature.batch.or(Some(sizes.rows).filter(|_| !sizes.fewer_at_times));
            axes.add(&signature.sample, &[rows, None, Some(height), Some(width)]);
            axes.add(&signature.control, &pixels(rows));
            for (role, info) in &signature.inputs {
                let length = |axis: &InputAxis| match axis {
                    InputAxis::Rows => rows,
                    InputAxis::Tokens => model.tokens(),
                    _ => None,
                };
                axes.add(info, &role.row().axes_of(info, false).iter().map(length).collect::<Vec<_>>());
            }
        }
        if let Some(part) = model.encoder.as_ref().filter(|part| part.kind == kind) {
            axes.add(&part.signature.sample, &pixels(part.signature.batch.or(Some(1))));
        }
        if let Some(part) = model.decoder.iter().chain(model.preview_decoder()).find(|part| part.kind == kind) {
            let (height, width) = within(self.decoding_tiles());
            axes.add(&part.signature.latent, &[part.signature.batch.or(Some(1)), None, Some(height), Some(width)]);
        }
        axes.into_lengths()
    }

    fn denoiser_axes(&self, sizes: Sizes, (height, width): (usize, usize), axes: &mut Axes) {
        let (model, signature) = (&*self.model, &self.model.model.denoiser);
        let rows = match self.runs_by_row() {
            true => Some(1),
            false => Some(sizes.rows).filter(|_| !sizes.fewer_at_times),
        };
        let rows = signature.batch.or(rows);
        let image_tokens = model.model.packed_images * (height / 2) * (width / 2);
        let length = |axis: &InputAxis| match axis {
            InputAxis::Rows => rows,
            InputAxis::Height => Some(height),
            InputAxis::Width => Some(width),
            InputAxis::Tokens => model.tokens(),
            InputAxis::ImageTokens => Some(image_tokens),
            _ => None,
        };
        for (role, info) in signature.all_inputs().filter(|(role, _)| *role != Role::Timestep) {
            let lengths = role.row().axes_of(info, signature.is_packed()).iter().map(length);
            axes.add(info, &lengths.collect::<Vec<_>>());
        }
        for info in signature.residuals.down.iter().chain(&signature.residuals.mid) {
            axes.add(info, &[rows, None, None, None]);
        }
        let own = signature.timestep.shape.first() != signature.sample.shape.first();
        axes.add(&signature.timestep, &[if own { Some(1) } else { rows }]);
    }
}
