//! The signature of a text encoder.

use super::switch::Switch;
use super::table::Role;
use super::tensor_forms::{describe, fixed_batch, is_float};
use super::unassigned::Unassigned;
use crate::bundle::component::{Component, ComponentKind};
use crate::error::{Error, Result};
use crate::tensor::{Dim, TensorInfo};

/// The inputs and outputs of a text encoder by their roles.
#[derive(Debug, Clone, PartialEq)]
pub struct TextEncoderSignature {
    /// The token ids, `[n, tokens]`, 32 or 64 bits wide.
    pub input_ids: TensorInfo,
    /// 1 for each token and 0 for each that is padding, `[n, tokens]`.
    pub attention_mask: Option<TensorInfo>,
    /// Boolean inputs left over from tracing, with their values.
    pub switches: Vec<Switch>,
    /// The states after the last layer, `[n, tokens, width]`; absent if the graph gives the text as one vector only.
    pub last_hidden_state: Option<TensorInfo>,
    /// The pooled embeddings, `[n, width]`: the projected ones if the graph gives two.
    pub pooled: Option<TensorInfo>,
    /// The states after each layer with the layer's number; 0 is the embedding.
    pub hidden_states: Vec<(usize, TensorInfo)>,
    /// The states that were chosen when the graph was exported, as an output `hidden_states` without a number: those
    /// before the last layer's.
    pub chosen_state: Option<TensorInfo>,
    /// Rows of the embedding table: ids at or above it cannot be looked up.
    pub embedding_rows: Option<usize>,
    /// The number of tokens the graph is fixed to.
    pub sequence_length: Option<usize>,
    /// The batch the graph is fixed to.
    pub batch: Option<usize>,
}

impl TextEncoderSignature {
    /// Finds the roles of a text encoder's inputs and outputs.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] with a table of names, types and shapes if no input takes token ids, no output gives states, or an
    /// input is left that nothing can fill.
    pub fn resolve(component: &Component) -> Result<Self> {
        let graph = &component.graph;
        let mut unassigned = Unassigned::new(component);
        let switches = unassigned.switches();
        let kinds = [ComponentKind::TextEncoder, ComponentKind::TextEncoder2, ComponentKind::TextEncoder3];
        let mut inputs = unassigned.take_roles(&kinds);
        let input_ids = unassigned.require(&mut inputs, Role::InputIds)?;
        let attention_mask = inputs.remove(&Role::AttentionMask);
        unassigned.finish()?;

        let of_rank = |rank: usize| graph.outputs.iter().filter(move |o| is_float(o, rank));
        let mut hidden_states: Vec<(usize, TensorInfo)> =
            of_rank(3).filter_map(|o| Some((layer_number(&o.name)?, o.clone()))).collect();
        hidden_states.sort_by_key(|&(layer, _)| layer);
        let plain = || of_rank(3).filter(|o| layer_number(&o.name).is_none());
        let last_hidden_state = ["last_hidden_state", "text_embeddings", "hidden_states"]
            .iter()
            .find_map(|name| plain().find(|o| o.name == *name))
            .or_else(|| plain().next().filter(|_| plain().count() == 1))
            .cloned();
        let pooled = ["text_embeds", "pooled_embeddings", "text_embeddings", "pooler_output"]
            .iter()
            .find_map(|name| of_rank(2).find(|o| o.name == *name))
            .or_else(|| of_rank(2).next().filter(|_| of_rank(2).count() == 1))
            .cloned();
        if last_hidden_state.is_none() && pooled.is_none() {
            return Err(Error::model(
                &graph.path,
                format!(
                    "{} gives neither states [n, tokens, width] nor a vector [n, width]; its outputs are{}",
                    component.kind,
                    describe(&graph.outputs)
                ),
                "export the text encoder with its last_hidden_state",
            ));
        }
        Ok(Self {
            embedding_rows: graph.table_rows.get(&input_ids.name).copied(),
            sequence_length: input_ids.shape.get(1).and_then(Dim::fixed),
            batch: fixed_batch(component, [&input_ids])?,
            input_ids,
            attention_mask,
            switches,
            chosen_state: plain().find(|o| o.name == "hidden_states").cloned(),
            last_hidden_state,
            pooled,
            hidden_states,
        })
    }

    /// The number of layers, if the graph gives their states.
    pub fn layers(&self) -> Option<usize> {
        self.hidden_states.last().map(|&(layer, _)| layer)
    }

    /// The states before the last layer's, which Stable Diffusion XL attends to.
    pub fn penultimate(&self) -> Option<&TensorInfo> {
        let Some(layers) = self.layers() else { return self.chosen_state.as_ref() };
        let wanted = layers.checked_sub(1)?;
        self.hidden_states.iter().find(|&&(layer, _)| layer == wanted).map(|(_, state)| state)
    }

    /// Each input and output with the description of its role.
    pub fn roles(&self) -> Vec<(&TensorInfo, String)> {
        let plain = [
            (Some(&self.input_ids), Role::InputIds.description()),
            (self.attention_mask.as_ref(), Role::AttentionMask.description()),
            (self.last_hidden_state.as_ref(), "last state"),
            (self.pooled.as_ref(), "pooled text"),
        ];
        let mut roles: Vec<_> = plain.into_iter().filter_map(|(t, role)| Some((t?, role.to_owned()))).collect();
        roles.extend(self.chosen_state.iter().map(|t| (t, "state chosen at export".to_owned())));
        roles.extend(self.hidden_states.iter().map(|(layer, t)| (t, format!("state after layer {layer}"))));
        roles.extend(self.switches.iter().map(|s| (&s.input, format!("switch, {}", s.value))));
        roles
    }
}

/// The number in a name such as `hidden_states.11`, `hidden_states_11` or `hidden_states/11`.
fn layer_number(name: &str) -> Option<usize> {
    name.strip_prefix("hidden_states")?.trim_start_matches(['.', '_', '/']).parse().ok()
}
