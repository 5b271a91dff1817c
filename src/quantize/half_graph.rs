//! Graphs that compute in half precision.
//!
//! Every float32 tensor inside of a graph becomes one of half precision, except where a node computes in float32: the
//! operators in `operators`, and the groups of nodes that `float32_nodes` finds. A `Cast` is before and after those. The
//! graph's inputs and outputs keep their types, with a `Cast` at each, so that whatever runs the graph is unchanged: samples
//! and schedules stay float32, as in diffusers' schedulers.

mod attributes;
mod float32_nodes;
mod operators;
mod precision_forms;
mod stored;
mod types;
mod writer;

use std::collections::BTreeMap;

use super::outcome::{Float32Nodes, QuantizeProgress, QuantizedGraph, SkippedTensor};
use super::output::{Destination, GraphOutput, check, observed};
use crate::bundle::Component;
use crate::error::{Error, Result};
use crate::rewrite::indexed_graph::IndexedGraph;
use float32_nodes::{Float32Selection, GraphView};
use precision_forms::PrecisionForms;
use stored::StoredFloats;
use types::TensorTypes;
use writer::HalfGraphWriter;

/// Writes a component's graph, with weights and arithmetic in half precision, into a model directory.
pub fn write(
    to: &Destination<'_>,
    component: &Component,
    observer: &mut dyn FnMut(QuantizeProgress),
) -> Result<QuantizedGraph> {
    check(&component.graph)?;
    let source = IndexedGraph::open(&component.graph)?;
    if component.graph.has_functions || !source.is_sorted {
        let problem =
            if component.graph.has_functions { "has functions of its own" } else { "has nodes in the wrong order" };
        return Err(Error::model(&component.graph.path, problem, "export the model again, with functions inlined"));
    }
    let mut tell = observed(component, observer);
    let mut output = GraphOutput::create(to, component, &source, &mut tell)?;
    let types = TensorTypes::infer(&source)?;
    let stored = stored::read(&mut output)?;
    let view = GraphView { source: &source, types: &types, stored: &stored };
    let selection = float32_nodes::choose(&view, component);
    report(&mut output.outcome, &view, &selection);
    let forms = PrecisionForms::new(&source, &types, &stored, &selection);
    HalfGraphWriter::new(output, &stored, &selection, forms).write()
}

/// Notes the nodes of each precision, and the weights that stay float32.
fn report(outcome: &mut QuantizedGraph, view: &GraphView<'_>, selection: &Float32Selection) {
    let mut reasons: BTreeMap<&'static str, usize> = BTreeMap::new();
    selection.reasons().for_each(|reason| *reasons.entry(reason).or_default() += 1);
    outcome.float32_nodes = reasons.into_iter().map(|(reason, nodes)| Float32Nodes { reason, nodes }).collect();
    let computes_half = |(at, node): &(usize, &crate::bundle::proto::NodeProto)| {
        let is_stored = node.output.iter().all(|name| view.stored.contains_key(name));
        !selection.contains(*at) && !is_stored && node.output.iter().any(|name| view.types.is_single(name))
    };
    outcome.half_nodes = view.source.nodes.iter().enumerate().filter(computes_half).count();
    let of_layers = |(name, floats): (&String, &StoredFloats<'_>)| {
        let reason = floats.refusal().filter(|_| floats.is_large() || floats.is_beyond())?.to_owned();
        Some(SkippedTensor { tensor: name.clone(), reason })
    };
    outcome.skipped = view.stored.iter().filter_map(of_layers).collect();
}
