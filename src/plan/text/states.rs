//! Which states of a text encoder are attended to.

use crate::bundle::{Component, LayerNorm, TextEncoderSignature};
use crate::error::{Error, Result};
use crate::tensor::{Dim, TensorInfo};
use crate::text::EncoderOutputs;

/// The states before the last layer's, which Stable Diffusion XL and 3 attend to.
pub(super) fn penultimate<'c>(component: &Component, signature: &'c TextEncoderSignature) -> Result<&'c TensorInfo> {
    signature.penultimate().ok_or_else(|| {
        let outputs: Vec<&str> = component.graph.outputs.iter().map(|o| o.name.as_str()).collect();
        Error::model(
            &component.graph.path,
            format!(
                "the denoiser attends to the states before the last layer, and {} gives only {}",
                component.kind,
                outputs.join(", ")
            ),
            "export the text encoder with its hidden states (Optimum does; scripts/export.py too)",
        )
    })
}

/// What is taken where `skip` layers are left out: other states than of the `whole` encoder, and the norm over them,
/// which is not over the states before the last layer's (`is_penultimate`).
pub(super) fn skipped(
    component: &Component,
    signature: &TextEncoderSignature,
    skip: usize,
    is_penultimate: bool,
    whole: &EncoderOutputs,
    wanted_for: &str,
) -> Result<EncoderOutputs> {
    let at_fault = |problem: String, help: &str| Error::model(&component.graph.path, problem, help);
    let Some(layers) = signature.layers() else {
        return Err(at_fault(
            format!("{wanted_for} has clip_skip = {skip}, and {} does not give its hidden states", component.kind),
            "leave clip_skip out, or export the text encoder with its hidden states (scripts/export.py \
             --hidden-states)",
        ));
    };
    let most = layers.saturating_sub(usize::from(is_penultimate));
    let wanted = most.checked_sub(skip);
    let found = wanted.and_then(|wanted| signature.hidden_states.iter().find(|(layer, _)| *layer == wanted));
    let Some((_, states)) = found else {
        return Err(Error::input(
            "clip_skip",
            format!("{skip} layers are to be left out, and {} has {most} that can be", component.kind),
            "1 and 2 are usual",
        ));
    };
    if is_penultimate {
        return Ok(EncoderOutputs { tokens: Some(states.clone()), ..whole.clone() });
    }
    let norm = match &signature.last_hidden_state {
        Some(output) => LayerNorm::from_graph(&component.graph, &output.name)?,
        None => None,
    };
    // A norm of another width is none over these states.
    let width = states.shape.last().and_then(Dim::fixed);
    let norm = norm.filter(|norm| width.is_none_or(|width| width == norm.scale.len()));
    let norm = norm.ok_or_else(|| {
        at_fault(
            format!(
                "{wanted_for} has clip_skip = {skip}, and the norm behind the last layer of {} cannot be read",
                component.kind
            ),
            "leave clip_skip out, or export the text encoder anew in float32 or float16, without fusing its operators \
             (scripts/export.py --hidden-states)",
        )
    })?;
    Ok(EncoderOutputs { tokens: Some(states.clone()), norm: Some(norm), pooled: whole.pooled.clone() })
}
