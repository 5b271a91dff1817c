//! The lengths of graphs' dynamic axes in a request.

use std::collections::BTreeMap;

use super::execution_plan::{ExecutionPlan, Sizes};
use super::text::TextPart;
use crate::bundle::{ComponentKind, InputAxis, Role};
use crate::tensor::{Dim, TensorInfo};
use crate::tiles::Tiles;

/// Lengths by the names of axes; a name that stands for two lengths is left out.
#[derive(Default)]
struct Axes(BTreeMap<String, Option<usize>>);

impl Axes {
    fn add(&mut self, info: &TensorInfo, lengths: &[Option<usize>]) {
        for (dim, length) in info.shape.iter().zip(lengths) {
            if let Dim::Free(name) = dim
                && !name.is_empty()
            {
                let known = self.0.entry(name.clone()).or_insert(*length);
                if *known != *length {
                    *known = None;
                }
            }
        }
    }

    fn into_lengths(self) -> Vec<(String, usize)> {
        self.0.into_iter().filter_map(|(name, length)| Some((name, length?))).collect()
    }
}

impl ExecutionPlan {
    /// The lengths of a graph's free axes in a request of these sizes, by name; those that differ from run to run, and
    /// those of graphs whose inputs nobody counts on, are left out.
    pub fn axes(&self, kind: ComponentKind) -> Vec<(String, usize)> {
        self.known_axes(kind).into_lengths()
    }

    /// The same with the axes of ControlNets and of the VAE encoder.
    pub(crate) fn all_axes(&self, kind: ComponentKind) -> Vec<(String, usize)> {
        let mut axes = self.known_axes(kind);
        let (model, sizes) = (&*self.model, self.sizes);
        let [_, height, width] = model.sample_shape(sizes.width, sizes.height);
        let pixels = |rows| [rows, None, Some(sizes.height), Some(sizes.width)];
        if let Some(control) = model.controls.iter().find(|control| control.part.kind == kind) {
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
            axes.add(&part.signature.sample, &pixels(part.signature.batch));
        }
        axes.into_lengths()
    }

    fn known_axes(&self, kind: ComponentKind) -> Axes {
        let mut axes = Axes::default();
        let (model, sizes) = (&*self.model, self.sizes);
        let [_, height, width] = model.sample_shape(sizes.width, sizes.height);
        let within = |tiles: Option<Tiles>| tiles.map_or((height, width), |tiles| tiles.tile_size(height, width));
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
        if let Some(part) = model.decoder.iter().chain(model.preview_decoder()).find(|part| part.kind == kind) {
            let (height, width) = within(self.decoding_tiles());
            axes.add(&part.signature.latent, &[part.signature.batch.or(Some(1)), None, Some(height), Some(width)]);
        }
        axes
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
