//! What a text encoder takes and gives.

use super::{Switch, Unassigned, fixed_batch, is_float, table};
use crate::bundle::component::Component;
use crate::error::{Error, Result};
use crate::tensor::{Dim, TensorInfo};

/// The roles of a text encoder's inputs and outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct TextEncoderSignature {
    /// The token ids, `[n, tokens]`, 32 or 64 bits wide.
    pub input_ids: TensorInfo,
    /// 1 for each token and 0 for each filler, `[n, tokens]`.
    pub attention_mask: Option<TensorInfo>,
    /// Switches left over from tracing, each with what to feed.
    pub switches: Vec<Switch>,
    /// The states after the last layer, `[n, tokens, width]`; absent where the graph gives the text as one vector only.
    pub last_hidden_state: Option<TensorInfo>,
    /// The text as one vector, `[n, width]`: the projected one where the graph gives two.
    pub pooled: Option<TensorInfo>,
    /// The states after each layer with the layer's number; 0 is the embedding.
    pub hidden_states: Vec<(usize, TensorInfo)>,
    /// The states that were chosen when the graph was exported, as an output `hidden_states` without a number: those
    /// before the last layer's.
    pub chosen_state: Option<TensorInfo>,
    /// Rows of the embedding table: ids at or above it cannot be looked up.
    pub embedding_rows: Option<usize>,
    /// The number of tokens the graph is fixed to, where it is.
    pub sequence_length: Option<usize>,
    /// The batch the graph is fixed to, where it is.
    pub batch: Option<usize>,
}

impl TextEncoderSignature {
    /// Finds the roles of a text encoder's inputs and outputs.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] with a table of names, types and shapes, where no input takes token ids, no output gives
    /// states, or an input is left that nothing can fill.
    pub fn resolve(component: &Component) -> Result<Self> {
        let graph = &component.graph;
        let mut inputs = Unassigned::new(component);
        let switches = inputs.switches();
        let ids = |t: &TensorInfo| t.dtype.is_integer() && t.shape.len() == 2;
        let input_ids = inputs.named(&["input_ids", "tokens", "ids"], ids);
        let attention_mask = inputs.named(&["attention_mask", "encoder_attention_mask"], |t| t.shape.len() == 2);
        let Some(input_ids) = input_ids.or_else(|| inputs.only(ids)) else {
            return Err(inputs.lacks("token ids", "int32 or int64, [n, tokens]"));
        };
        inputs.finish()?;

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
                    table(&graph.outputs)
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

    /// The number of layers, where the graph gives their states.
    pub fn layers(&self) -> Option<usize> {
        self.hidden_states.last().map(|&(layer, _)| layer)
    }

    /// The states before the last layer's, which Stable Diffusion XL attends to.
    pub fn penultimate(&self) -> Option<&TensorInfo> {
        let Some(layers) = self.layers() else { return self.chosen_state.as_ref() };
        let wanted = layers.checked_sub(1)?;
        self.hidden_states.iter().find(|&&(layer, _)| layer == wanted).map(|(_, state)| state)
    }

    /// Each input and output with the word for its role.
    pub fn roles(&self) -> Vec<(&TensorInfo, String)> {
        let plain = [
            (Some(&self.input_ids), "token ids"),
            (self.attention_mask.as_ref(), "attention mask"),
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
