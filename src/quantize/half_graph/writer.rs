//! Writes a graph that computes in half precision.

use std::collections::BTreeMap;
use std::io::Write;

use prost::Message;

use super::attributes::{added_attribute, changed_attribute};
use super::float32_nodes::Float32Selection;
use super::precision_forms::{PrecisionForms, TensorPrecision};
use super::stored::StoredFloats;
use crate::bundle::proto::{NodeProto, ValueInfoProto};
use crate::error::Result;
use crate::quantize::half_precision::{HalfFit, with_half_limits, write_half};
use crate::quantize::outcome::QuantizedGraph;
use crate::quantize::output::{GraphOutput, external_tensor, framed, number, rebuilt};
use crate::rewrite::edits::{field, int, node};
use crate::rewrite::indexed_graph::is;
use crate::rewrite::numbers::TensorValues;
use crate::tensor::{DType, Field};

/// The names of the stored range of half precision, which limits are clipped to.
const RANGE: [&str; 2] = ["half_precision/smallest", "half_precision/largest"];

/// Writes one graph.
pub struct HalfGraphWriter<'w> {
    output: GraphOutput<'w>,
    stored: &'w BTreeMap<String, StoredFloats<'w>>,
    selection: &'w Float32Selection,
    forms: PrecisionForms<'w>,
    /// True if a node limits values to [`RANGE`].
    is_limiting: bool,
}

impl<'w> HalfGraphWriter<'w> {
    /// Combines the files with what is written into them.
    pub fn new(
        output: GraphOutput<'w>,
        stored: &'w BTreeMap<String, StoredFloats<'w>>,
        selection: &'w Float32Selection,
        forms: PrecisionForms<'w>,
    ) -> Self {
        Self { output, stored, selection, forms, is_limiting: false }
    }

    /// Writes the graph, and returns the result.
    pub fn write(mut self) -> Result<QuantizedGraph> {
        let bytes = self.model()?;
        self.output.finish(&bytes)
    }

    /// Returns the bytes of the whole file.
    fn model(&mut self) -> Result<Vec<u8>> {
        let source = self.output.source;
        let place = source.place;
        let mut at = 0;
        let mut graph = rebuilt(source, place.body..place.end, |number, part| match number {
            number::GRAPH_NODE => {
                at += 1;
                self.node(at - 1, part).map(Some)
            }
            number::GRAPH_INITIALIZER => {
                let name = source.stored().find(|(_, place)| place.start == part.start).map(|(tensor, _)| &tensor.name);
                match name.filter(|name| self.stored.contains_key(*name)) {
                    Some(_) => Ok(Some(Vec::new())),
                    None => self.output.unchanged_tensor(part).map(Some),
                }
            }
            // Older exports declare stored tensors as inputs, and so do graphs that widen them at every run.
            number::GRAPH_INPUT => {
                let at = source.input_places.iter().position(|place| place.start == part.start);
                let input = at.and_then(|at| source.inputs.get(at));
                let is_stored = input.is_some_and(|input| source.stored().any(|(tensor, _)| tensor.name == input.name));
                Ok(is_stored.then(Vec::new))
            }
            number::GRAPH_VALUE_INFO => Ok(self.declaration(part)),
            _ => Ok(None),
        })?;
        for (name, floats) in self.stored {
            let written = self.stored_tensor(name, floats)?;
            graph.extend(written);
        }
        if self.is_limiting {
            let largest = half::f16::MAX.to_f32();
            for (name, value) in RANGE.iter().zip([-largest, largest]) {
                graph.extend(inline_tensor(name, &[], DType::F32, value.to_le_bytes().to_vec()));
            }
        }
        Ok(self.output.model(&graph))
    }

    /// Returns a node with what it converts before it (the inputs of the graph, before the first one) and after it.
    fn node(&mut self, at: usize, place: Field) -> Result<Vec<u8>> {
        let source = self.output.source;
        let mut whole = Vec::new();
        if at == 0 {
            for input in source.inputs.iter().filter(|input| !self.stored.contains_key(&input.name)) {
                self.convert(&input.name, TensorPrecision::Half, &mut whole);
            }
        }
        let Some(node) = source.nodes.get(at) else { return Ok(whole) };
        if node.output.iter().all(|name| self.stored.contains_key(name)) {
            return Ok(whole);
        }
        let is_single = self.selection.contains(at);
        if !self.forms.is_left_out(node) {
            let body = self.converted(node, is_single, place)?;
            field(&mut whole, number::GRAPH_NODE as u32, &body);
        }
        let other = if is_single { TensorPrecision::Half } else { TensorPrecision::Single };
        node.output.iter().for_each(|name| self.convert(name, other, &mut whole));
        Ok(whole)
    }

    /// Returns a node in its precision.
    fn converted(&mut self, node: &NodeProto, is_single: bool, place: Field) -> Result<Vec<u8>> {
        let source = self.output.source;
        let mut body = rebuilt(source, place.body..place.end, |number, part| match number {
            number::NODE_INPUT | number::NODE_OUTPUT => Ok(Some(Vec::new())),
            number::NODE_ATTRIBUTE => self.attribute(node, is_single, part).map(Some),
            _ => Ok(None),
        })?;
        let names = NodeProto {
            input: self.forms.inputs(node, is_single),
            output: self.forms.outputs(node, is_single),
            ..NodeProto::default()
        };
        body.extend(names.encode_to_vec());
        let added = added_attribute(node, is_single);
        added.into_iter().for_each(|added| field(&mut body, number::NODE_ATTRIBUTE as u32, &added));
        Ok(body)
    }

    fn attribute(&mut self, node: &NodeProto, is_single: bool, place: Field) -> Result<Vec<u8>> {
        match changed_attribute(self.output.source, node, is_single, place) {
            Some(body) => Ok(framed(number::NODE_ATTRIBUTE, &body)),
            None => self.output.moved_attribute(place),
        }
    }

    /// Appends the conversion of a tensor to `form`, if something reads it.
    fn convert(&mut self, name: &str, form: TensorPrecision, to: &mut Vec<u8>) {
        if !self.forms.is_needed(name, form) {
            return;
        }
        let [mut single, half] =
            [TensorPrecision::Single, TensorPrecision::Half].map(|form| self.forms.name(name, form));
        let mut append = |node: NodeProto| field(to, number::GRAPH_NODE as u32, &node.encode_to_vec());
        match form {
            TensorPrecision::Half => {
                if self.selection.is_limited(name) {
                    let limited = format!("{half}/limited");
                    append(self::node("Clip", &[&single, RANGE[0], RANGE[1]], &limited, Vec::new()));
                    single = limited;
                    self.is_limiting = true;
                }
                append(cast(&single, &half, DType::F16));
            }
            TensorPrecision::Single => append(cast(&half, &single, DType::F32)),
        }
    }

    /// Returns the declaration of an inner tensor, if it changes.
    fn declaration(&self, place: Field) -> Option<Vec<u8>> {
        let bytes = self.output.source.bytes().get(place.body..place.end)?;
        let mut info = ValueInfoProto::decode(bytes).ok()?;
        let tensor = info.r#type.as_mut()?.tensor_type.as_mut()?;
        if !self.forms.is_declared_half(&info.name) {
            return None;
        }
        tensor.elem_type = DType::F16.to_onnx();
        Some(framed(number::GRAPH_VALUE_INFO, &info.encode_to_vec()))
    }

    /// Returns the forms of a stored tensor that nodes read.
    fn stored_tensor(&mut self, name: &str, floats: &StoredFloats<'_>) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        let limited = matches!(floats.fit, HalfFit::Limits(_)).then(|| with_half_limits(&floats.bytes));
        if self.forms.is_needed(name, TensorPrecision::Single) {
            // The bounds of a float32 node stay those of float32.
            let bounds = |node: &NodeProto| ["Clip", "Min", "Max"].iter().any(|operator| is(node, operator));
            let source = self.output.source;
            let mut readers = source.readers(name).iter().filter_map(|&at| source.nodes.get(at));
            let bytes = limited.as_deref().filter(|_| !readers.any(bounds)).unwrap_or(&floats.bytes);
            let to = self.forms.name(name, TensorPrecision::Single);
            let written = self.stored_bytes(to, floats, DType::F32, bytes.len(), |out| out.write_all(bytes))?;
            whole.extend(written);
        }
        if self.forms.is_needed(name, TensorPrecision::Half) {
            let bytes = limited.as_deref().unwrap_or(&floats.bytes);
            let to = self.forms.name(name, TensorPrecision::Half);
            let written = self.stored_bytes(to, floats, DType::F16, bytes.len() / 2, |out| write_half(bytes, out))?;
            whole.extend(written);
            if let HalfFit::Rounded(errors) | HalfFit::Limits(errors) = &floats.fit {
                self.output.errors.add(errors);
            }
            self.output.outcome.tensors += 1;
        }
        Ok(whole)
    }

    fn stored_bytes(
        &mut self,
        name: String,
        floats: &StoredFloats<'_>,
        dtype: DType,
        length: usize,
        write: impl Fn(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<Vec<u8>> {
        if floats.is_large() {
            let entries = self.output.append(length as u64, |file| write(file))?;
            return Ok(external_tensor(name, &floats.dims, dtype, entries));
        }
        let mut bytes = Vec::with_capacity(length);
        write(&mut bytes).map_err(|e| crate::error::Error::io(&self.output.source.graph().path, "converting", e))?;
        Ok(inline_tensor(&name, &floats.dims, dtype, bytes))
    }
}

fn cast(from: &str, to: &str, dtype: DType) -> NodeProto {
    node("Cast", &[from], to, vec![int("to", i64::from(dtype.to_onnx()))])
}

fn inline_tensor(name: &str, dims: &[i64], dtype: DType, raw_data: Vec<u8>) -> Vec<u8> {
    let (dims, name) = (dims.to_vec(), name.to_owned());
    let tensor = TensorValues { dims, data_type: dtype.to_onnx(), name, raw_data, ..TensorValues::default() };
    framed(number::GRAPH_INITIALIZER, &tensor.encode_to_vec())
}
