//! Writes a graph node by node.

use prost::Message;

use crate::bundle::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetProto, ShapeProto, TensorType, TypeProto,
    ValueInfoProto,
};
use crate::tensor::DType;

/// The version of ONNX's operators, and that of the file format which goes with it.
const OPSET: i64 = 13;
const IR: i64 = 8;

/// `AttributeProto.type`.
const INT: i32 = 2;
const FLOATS: i32 = 6;
const INTS: i32 = 7;

/// A graph of nodes with one output each, which are named by number.
#[derive(Default)]
pub(super) struct GraphWriter {
    graph: GraphProto,
}

impl GraphWriter {
    pub fn input(&mut self, name: &str, dtype: DType, shape: &[usize]) {
        self.graph.input.push(value_info(name, dtype, shape));
    }

    /// Makes `value` an output under a name of its own.
    pub fn output(&mut self, name: &str, value: &str, dtype: DType, shape: &[usize]) {
        self.push("Identity", &[value], &[name], Vec::new());
        self.graph.output.push(value_info(name, dtype, shape));
    }

    pub fn node(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.with(operator, inputs, Vec::new())
    }

    /// Converts from one type to another; a value that has it already stays as it is.
    pub fn cast(&mut self, value: &str, from: DType, to: DType) -> String {
        match from == to {
            true => value.to_owned(),
            false => self.with("Cast", &[value], vec![int("to", to.to_onnx().into())]),
        }
    }

    pub fn concat(&mut self, values: &[&str], axis: i64) -> String {
        match values {
            [only] => (*only).to_owned(),
            several => self.with("Concat", several, vec![int("axis", axis)]),
        }
    }

    pub fn split(&mut self, inputs: &[&str], parts: usize) -> Vec<String> {
        let number = self.graph.node.len();
        let names: Vec<String> = (0..parts).map(|part| format!("{number}_{part}")).collect();
        self.push("Split", inputs, &names.iter().map(String::as_str).collect::<Vec<_>>(), vec![int("axis", 0)]);
        names
    }

    pub fn mean(&mut self, value: &str, axes: &[i64]) -> String {
        self.with("ReduceMean", &[value], vec![ints("axes", axes)])
    }

    /// `from + factor (a − b)`.
    pub fn toward(&mut self, from: &str, a: &str, b: &str, factor: f32) -> String {
        let difference = self.node("Sub", &[a, b]);
        let factor = self.floats(&[factor]);
        let scaled = self.node("Mul", &[&difference, &factor]);
        self.node("Add", &[from, &scaled])
    }

    pub fn floats(&mut self, values: &[f32]) -> String {
        let attribute = AttributeProto {
            name: "value_floats".into(),
            floats: values.to_vec(),
            r#type: FLOATS,
            ..AttributeProto::default()
        };
        self.with("Constant", &[], vec![attribute])
    }

    pub fn integers(&mut self, values: &[i64]) -> String {
        self.with("Constant", &[], vec![ints("value_ints", values)])
    }

    /// One of these values, `[1]`, by its index.
    pub fn at(&mut self, values: &[f32], index: &str) -> String {
        let values = self.floats(values);
        self.node("Gather", &[&values, index])
    }

    /// The graph as an ONNX file.
    pub fn encode(self) -> Vec<u8> {
        let model = ModelProto {
            ir_version: IR,
            graph: Some(self.graph),
            opset_import: vec![OperatorSetProto { domain: String::new(), version: OPSET }],
            ..ModelProto::default()
        };
        model.encode_to_vec()
    }

    fn with(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let name = self.graph.node.len().to_string();
        self.push(operator, inputs, &[&name], attributes);
        name
    }

    fn push(&mut self, operator: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.graph.node.push(NodeProto {
            input: names(inputs),
            output: names(outputs),
            op_type: operator.to_owned(),
            attribute,
            ..NodeProto::default()
        });
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: INT, ..AttributeProto::default() }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: ints.to_vec(), r#type: INTS, ..AttributeProto::default() }
}

fn value_info(name: &str, dtype: DType, shape: &[usize]) -> ValueInfoProto {
    let dim = shape.iter().map(|&n| Dimension { dim_value: n as i64, dim_param: String::new() }).collect();
    let tensor_type = TensorType { elem_type: dtype.to_onnx(), shape: Some(ShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
