//! Tiny graphs that test whether the loaded ONNX Runtime supports a feature, before a large graph is opened.

use std::collections::BTreeMap;

use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::library::{Runtime, error_message};
use super::provider::{self, ProviderChoice};
use crate::error::Result;
use crate::tensor::DType;

/// The version of ONNX's own operators in graphs that test something else.
const OPSET: i64 = 13;
/// The file format version in such graphs.
const IR: i64 = 8;

impl Runtime {
    /// Checks that sessions can be opened on a provider, by opening a graph of one node on it.
    ///
    /// # Errors
    /// [`Error::Provider`](crate::Error::Provider) with the reason why it cannot be used here.
    pub fn try_provider(&self, choice: &ProviderChoice) -> Result<()> {
        let builder = self.plain_builder().map_err(|e| provider::unusable(choice, &error_message(&e)))?;
        let mut builder = provider::select(builder, self, std::slice::from_ref(choice))?;
        let opened = builder.commit_from_memory(&model(IR, &BTreeMap::new(), &Node::Identity));
        opened.map(drop).map_err(|e| provider::unusable(choice, &error_message(&e)))
    }

    /// Returns the reason why a graph with this file format version and these operator set versions by domain cannot be
    /// opened: ONNX Runtime's message, which names the version it supports. `None` if it can.
    pub fn refuses_format(&self, ir_version: i64, opsets: &BTreeMap<String, i64>) -> Option<String> {
        self.open(&model(ir_version, opsets, &Node::Identity)).err().map(|e| reason(&error_message(&e)))
    }

    /// Returns true if ONNX Runtime defines this operator in these versions of the operator sets, whether or not a
    /// provider can run it.
    pub fn defines_operator(&self, opsets: &BTreeMap<String, i64>, domain: &str, operator: &str) -> bool {
        // The node has no inputs, which is the next problem that ONNX Runtime reports.
        let undefined = ["is not a registered function/op", "No Op registered for"];
        let opened = self.open(&model(IR, opsets, &Node::Bare(domain, operator)));
        opened.err().is_none_or(|e| !undefined.iter().any(|words| e.message().contains(words)))
    }

    /// Returns the reason why the CPU cannot run a standard ONNX operator that multiplies two tensors of this type:
    /// ONNX Runtime's message. `None` if it can.
    pub fn refuses_product(&self, opsets: &BTreeMap<String, i64>, operator: &str, dtype: DType) -> Option<String> {
        let opened = self.open(&model(IR, opsets, &Node::Product(operator, dtype)));
        opened.err().map(|e| error_message(&e).lines().next().unwrap_or_default().trim().to_owned())
    }

    fn open(&self, model: &[u8]) -> ort::Result<()> {
        provider::on_cpu(self.plain_builder()?, self)?.commit_from_memory(model).map(drop)
    }

    fn plain_builder(&self) -> ort::Result<SessionBuilder> {
        let builder = ort::session::Session::builder(self.environment())?;
        Ok(builder.with_optimization_level(GraphOptimizationLevel::Disable)?.with_intra_threads(1)?)
    }
}

/// Returns ONNX Runtime's message without its source location, which precedes the last sentences.
fn reason(message: &str) -> String {
    let start = ["Unsupported model IR version", "ONNX Runtime only *guarantees*"].iter().find_map(|s| message.find(s));
    let message = message.get(start.unwrap_or(0)..).unwrap_or(message).trim();
    // The only sentence that names both versions.
    match message.find("Current official support") {
        Some(at) => message.get(at..).unwrap_or(message).trim_end_matches('.').to_owned(),
        None => message.trim_end_matches('.').to_owned(),
    }
}

/// The only node of a graph.
enum Node<'a> {
    Identity,
    /// An operator of a domain, without inputs.
    Bare(&'a str, &'a str),
    /// A standard ONNX operator with two inputs of a type.
    Product(&'a str, DType),
}

/// Encodes a `ModelProto` whose graph has one node.
fn model(ir_version: i64, opsets: &BTreeMap<String, i64>, node: &Node<'_>) -> Vec<u8> {
    let (domain, operator, inputs, dtype): (_, _, &[&str], _) = match *node {
        Node::Identity => ("", "Identity", &["x"], DType::F32),
        Node::Bare(domain, operator) => (domain, operator, &[], DType::F32),
        Node::Product(operator, dtype) => ("", operator, &["x", "w"], dtype),
    };
    let mut opsets = opsets.clone();
    opsets.entry(String::new()).or_insert(OPSET);
    opsets.entry(domain.to_owned()).or_insert(1);
    let read: Vec<u8> = inputs.iter().flat_map(|input| text(1, input)).collect();
    let node = [read, text(2, "y"), text(4, operator), text(7, domain)].concat();
    let axes = if operator.starts_with("Conv") { 4 } else { 2 };
    let shape = field(1, &number(1, 1)).repeat(axes);
    let tensor = [number(1, dtype.to_onnx().into()), field(2, &shape)].concat();
    let value = |name: &str| [text(1, name), field(2, &field(1, &tensor))].concat();
    // A graph has to have an input, even if nothing reads it.
    let named = if inputs.is_empty() { &["x"] } else { inputs };
    let inputs: Vec<u8> = named.iter().flat_map(|input| field(11, &value(input))).collect();
    let graph = [field(1, &node), text(2, "trial"), inputs, field(12, &value("y"))].concat();
    let opset = |(domain, version): (&String, &i64)| field(8, &[text(1, domain), number(2, *version)].concat());
    let opsets: Vec<u8> = opsets.iter().flat_map(opset).collect();
    [number(1, ir_version), field(7, &graph), opsets].concat()
}

/// Encodes a length-delimited protobuf field.
fn field(tag: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    super::weights::varint(&mut out, tag << 3 | 2);
    super::weights::varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

fn text(tag: u64, text: &str) -> Vec<u8> {
    field(tag, text.as_bytes())
}

fn number(tag: u64, value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    super::weights::varint(&mut out, tag << 3);
    super::weights::varint(&mut out, value.cast_unsigned());
    out
}
