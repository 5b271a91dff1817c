//! Writes one graph with quantized weights in an external file.

mod rebuilt_graph;
mod tensors;

use std::collections::HashMap;

use prost::Message;

use super::outcome::{QuantizeProgress, QuantizedGraph};
use super::output::{Destination, GraphOutput, check, number, observed, rebuilt};
use super::selection::{Selection, count};
use super::weight_format::WeightFormat;
use crate::bundle::Component;
use crate::bundle::proto::{
    AttributeProto, Dimension, NodeProto, ShapeProto, TensorProto, TensorType, TypeProto, ValueInfoProto,
};
use crate::error::Result;
use crate::rewrite::edits::{field, int, node};
use crate::rewrite::indexed_graph::IndexedGraph;
use crate::tensor::{DType, Field};

/// Writes a component's graph into a model directory, at its relative path.
pub fn write(
    to: &Destination<'_>,
    component: &Component,
    weights: WeightFormat,
    observer: &mut dyn FnMut(QuantizeProgress),
) -> Result<QuantizedGraph> {
    check(&component.graph)?;
    let source = IndexedGraph::open(&component.graph)?;
    let selection = Selection::choose(&source, weights);
    let mut tell = observed(component, observer);
    let mut output = GraphOutput::create(to, component, &source, &mut tell)?;
    output.outcome.unknown = selection.unknown;
    let mut writer = Writer { output, selection, widened: Dequantization::default() };
    let bytes = writer.model()?;
    writer.output.finish(&bytes)
}

/// The dequantization nodes to add to the graph.
#[derive(Default)]
struct Dequantization {
    nodes: Vec<NodeProto>,
    inputs: Vec<ValueInfoProto>,
    /// The name of the table in half precision, by the table's name.
    tables: HashMap<String, String>,
    /// The names of a matrix's 8-bit values and of its columns' scales, by the matrix's name.
    columns: HashMap<String, [String; 2]>,
    /// The names of a factor in 8 bits, of its scale and of its zero point, by the factor's name.
    factors: HashMap<String, [String; 3]>,
}

struct Writer<'w> {
    output: GraphOutput<'w>,
    selection: Selection,
    widened: Dequantization,
}

impl Writer<'_> {
    /// Returns the bytes of the whole file.
    fn model(&mut self) -> Result<Vec<u8>> {
        let source = self.output.source;
        let place = source.place;
        // Tensors come first, since nodes depend on how they are stored.
        let mut tensors: Vec<(&TensorProto, Field)> = source.stored().collect();
        tensors.sort_by_key(|(_, place)| place.start);
        let mut stored = HashMap::new();
        for (tensor, place) in tensors {
            let written = self.encode_tensor(tensor, place)?;
            stored.insert(place.start, written);
            self.output.advance(count(tensor).unwrap_or(0))?;
        }
        let mut is_first = true;
        let mut at = 0;
        let mut graph = rebuilt(source, place.body..place.end, |number, part| match number {
            number::GRAPH_NODE => {
                let mut whole = Vec::new();
                if std::mem::take(&mut is_first) {
                    // Before all other nodes: see `rewrite::hoist_dequantization`.
                    let first = self.widened.nodes.iter();
                    first.for_each(|node| field(&mut whole, number as u32, &node.encode_to_vec()));
                }
                self.node(at, part, &mut whole)?;
                at += 1;
                Ok(Some(whole))
            }
            number::GRAPH_INITIALIZER => Ok(stored.remove(&part.start)),
            _ => Ok(None),
        })?;
        for info in &self.widened.inputs {
            field(&mut graph, number::GRAPH_INPUT as u32, &info.encode_to_vec());
        }
        Ok(self.output.model(&graph))
    }

    /// Appends a node of the graph, or its replacement.
    fn node(&mut self, at: usize, place: Field, whole: &mut Vec<u8>) -> Result<()> {
        let body = match self.replacement_of(at) {
            Some(nodes) => {
                nodes.iter().for_each(|node| field(whole, number::GRAPH_NODE as u32, &node.encode_to_vec()));
                return Ok(());
            }
            None => self.output.moved_node(place)?,
        };
        field(whole, number::GRAPH_NODE as u32, &body);
        Ok(())
    }

    /// Returns an unused name derived from a tensor's name.
    fn free_name(&self, of: &str, what: &str) -> String {
        let mut name = format!("{of}/{what}");
        while self.output.source.has_tensor(&name) {
            name.push('_');
        }
        name
    }
}

/// Creates a node that converts half precision to float32.
fn cast(from: &str, to: &str) -> NodeProto {
    let attribute: AttributeProto = int("to", i64::from(DType::F32.to_onnx()));
    node("Cast", &[from], to, vec![attribute])
}

fn value_info(name: &str, dtype: DType, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&dim_value| Dimension { dim_value, ..Dimension::default() }).collect();
    let tensor_type = TensorType { elem_type: dtype.to_onnx(), shape: Some(ShapeProto { dim }) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
