//! The inputs with which a component is run to compare its provider with the CPU.

use super::execution_plan::ExecutionPlan;
use super::opening::Opening;
use crate::bundle::{ConditionerSignature, InputAxis, Role, Switch};
use crate::tensor::{Dim, TensorInfo};

/// An input of a graph and the values that it receives.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// The input's name.
    pub name: String,
    /// Its shape in a request of the plan's sizes.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: ProbeValues,
}

/// The values of an input.
#[derive(Debug, Clone, PartialEq)]
pub enum ProbeValues {
    /// Unit normal noise.
    Normal,
    /// Numbers from the first to the second, without the second.
    Uniform(f32, f32),
    /// Whole numbers from zero to below this one.
    Below(usize),
    /// These values in each row.
    Rows(Vec<f32>),
    /// The positions of the tokens of an image of this width in tokens: 0, row, column.
    Positions(usize),
}

/// The meaning of an input.
enum Meaning<'a> {
    Role(Role, &'static [InputAxis]),
    Residual,
    Switch(&'a Switch),
    Condition(Option<usize>),
}

/// The timestep of models with a thousand of them, and of those with times from 0 to 1.
const TIMESTEPS: [f32; 2] = [500.0, 0.5];

impl ExecutionPlan {
    /// Returns the values for the `inputs` of an open graph of this plan; `known` are shapes that the plan does not know.
    ///
    /// # Errors
    /// A sentence about an input with a length that nothing tells.
    pub(crate) fn probes(
        &self,
        opening: &Opening<'_>,
        inputs: &[TensorInfo],
        known: &[(String, Vec<usize>)],
    ) -> Result<Vec<Probe>, String> {
        let meanings = self.meanings(opening);
        let probe = |info: &TensorInfo| {
            let meaning = meanings.iter().find(|(name, _)| *name == info.name).map(|(_, meaning)| meaning);
            let axes: &[InputAxis] = match meaning {
                Some(Meaning::Role(_, axes)) => axes,
                _ => &[],
            };
            let length = |(at, dim): (usize, &Dim)| {
                let role =
                    meaning.and_then(|meaning| if let Meaning::Role(role, _) = meaning { Some(*role) } else { None });
                let length = dim.fixed().or_else(|| self.length_of(opening, role, *axes.get(at)?));
                length.ok_or_else(|| format!("the length of axis {at} of its input {} is not known ahead", info.name))
            };
            let shape = match known.iter().find(|(name, _)| *name == info.name) {
                Some((_, shape)) => shape.clone(),
                None => info.shape.iter().enumerate().map(length).collect::<Result<_, _>>()?,
            };
            Ok(Probe { name: info.name.clone(), shape, values: self.values_of(opening, meaning, info) })
        };
        inputs.iter().map(probe).collect()
    }

    fn meanings<'p>(&'p self, opening: &Opening<'_>) -> Vec<(&'p str, Meaning<'p>)> {
        let (model, kind) = (&*self.model, opening.kind);
        let mut meanings = Vec::new();
        let mut role = |role: Role, info: &'p TensorInfo, is_packed: bool| {
            meanings.push((info.name.as_str(), Meaning::Role(role, role.row().axes_of(info, is_packed))));
        };
        let mut switches: &[Switch] = &[];
        let mut others = Vec::new();
        if kind == model.denoiser.kind {
            let signature = &model.model.denoiser;
            signature.all_inputs().for_each(|(own, info)| role(own, info, signature.is_packed()));
            let residuals = signature.residuals.down.iter().chain(&signature.residuals.mid);
            others.extend(residuals.map(|info| (info.name.as_str(), Meaning::Residual)));
            switches = &signature.constants;
        }
        if let Some(control) = model.controls.iter().find(|control| control.part.kind == kind) {
            let signature = &control.part.signature;
            role(Role::Sample, &signature.sample, false);
            role(Role::Timestep, &signature.timestep, false);
            role(Role::Control, &signature.control, false);
            signature.scale.iter().for_each(|info| role(Role::ConditioningScale, info, false));
            signature.inputs.iter().for_each(|(own, info)| role(*own, info, false));
            switches = &signature.constants;
        }
        if let Some(text) = model.text.iter().flat_map(|text| &text.encoders).find(|text| text.part.kind == kind) {
            let signature = &text.part.signature;
            role(Role::InputIds, &signature.input_ids, false);
            signature.attention_mask.iter().for_each(|info| role(Role::AttentionMask, info, false));
            switches = &signature.switches;
        }
        if let Some(part) = model.encoder.as_ref().filter(|part| part.kind == kind) {
            role(Role::Image, &part.signature.sample, false);
            switches = &part.signature.switches;
        }
        if let Some(part) = model.decoder.iter().chain(model.preview_decoder()).find(|part| part.kind == kind) {
            role(Role::Latent, &part.signature.latent, false);
            switches = &part.signature.switches;
        }
        let conditions = model.conditions.iter().filter_map(|condition| condition.part.as_ref());
        let condition = conditions.chain(&model.class_embedder).find(|part| part.graph.path == opening.graph.path);
        if let Some(ConditionerSignature { input, rows, .. }) = condition.map(|part| &part.signature) {
            others.push((input.name.as_str(), Meaning::Condition(*rows)));
        }
        meanings.extend(others);
        meanings.extend(switches.iter().map(|switch| (switch.input.name.as_str(), Meaning::Switch(switch))));
        meanings
    }

    /// The length of an axis of this meaning in a request of the plan's sizes.
    fn length_of(&self, opening: &Opening<'_>, role: Option<Role>, axis: InputAxis) -> Option<usize> {
        let (model, sizes, kind) = (&*self.model, self.sizes, opening.kind);
        let signature = &model.model.denoiser;
        let decodes = model.decoder.iter().chain(model.preview_decoder()).any(|part| part.kind == kind);
        let denoises = kind == model.denoiser.kind;
        let tiles = if decodes { self.decoding_tiles() } else { sizes.tiles.filter(|_| denoises) };
        let [_, height, width] = model.sample_shape(sizes.width, sizes.height);
        let (height, width) = tiles.map_or((height, width), |tiles| tiles.tile_size(height, width));
        let text = model.text.iter().flat_map(|text| &text.encoders).find(|text| text.part.kind == kind);
        let is_of_rows = denoises && !self.runs_by_row() || model.controls.iter().any(|own| own.part.kind == kind);
        match axis {
            InputAxis::Rows if is_of_rows => Some(sizes.rows),
            InputAxis::Rows => Some(1),
            InputAxis::Channels => match role? {
                Role::Sample if denoises => signature.in_channels,
                Role::Image | Role::Control => Some(3),
                _ => Some(model.channels),
            },
            InputAxis::Height => Some(height),
            InputAxis::Width => Some(width),
            InputAxis::PixelHeight => Some(sizes.height),
            InputAxis::PixelWidth => Some(sizes.width),
            InputAxis::Tokens => Some(text.map_or(model.tokens(), |text| Some(text.tokenizer.max_length()))?),
            InputAxis::ImageTokens => Some(model.model.packed_images * (height / 2) * (width / 2)),
            InputAxis::Features => None,
            InputAxis::Values(length) => Some(length),
        }
    }

    fn values_of(&self, opening: &Opening<'_>, meaning: Option<&Meaning<'_>>, info: &TensorInfo) -> ProbeValues {
        let (signature, sizes) = (&self.model.model.denoiser, self.sizes);
        let embedding_rows = || {
            let mut text = self.model.text.iter().flat_map(|text| &text.encoders);
            text.find(|text| text.part.kind == opening.kind)?.part.signature.embedding_rows
        };
        // So few that every table has them.
        const FEW: usize = 1;
        let [height, width] = [sizes.height, sizes.width].map(|side| side as f32);
        match meaning {
            Some(Meaning::Switch(switch)) => ProbeValues::Rows(vec![f32::from(u8::from(switch.value))]),
            Some(Meaning::Condition(rows)) if info.dtype.is_integer() => ProbeValues::Below(rows.unwrap_or(FEW)),
            Some(Meaning::Condition(_)) => ProbeValues::Uniform(0.0, 1.0),
            Some(Meaning::Role(role, _)) => match role {
                Role::Timestep => ProbeValues::Rows(vec![TIMESTEPS[usize::from(signature.is_packed())]]),
                Role::ContextMask | Role::AttentionMask | Role::ConditioningScale => ProbeValues::Rows(vec![1.0]),
                Role::Resolution => ProbeValues::Rows(vec![height, width]),
                Role::AspectRatio => ProbeValues::Rows(vec![height / width]),
                Role::TimeIds => ProbeValues::Rows(vec![height, width, 0.0, 0.0, height, width]),
                Role::Guidance => ProbeValues::Rows(vec![3.5]),
                Role::ClassLabels => ProbeValues::Below(signature.class_rows.unwrap_or(FEW)),
                Role::InputIds => ProbeValues::Below(embedding_rows().unwrap_or(FEW)),
                Role::Control => ProbeValues::Uniform(0.0, 1.0),
                Role::Image => ProbeValues::Uniform(-1.0, 1.0),
                Role::TextPositions => ProbeValues::Rows(vec![0.0]),
                Role::ImagePositions => {
                    let [_, _, width] = self.model.sample_shape(sizes.width, sizes.height);
                    ProbeValues::Positions((width / 2).max(1))
                }
                _ => ProbeValues::Normal,
            },
            Some(Meaning::Residual) | None => ProbeValues::Normal,
        }
    }
}
