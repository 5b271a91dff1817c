//! The element types of a graph's tensors.

use std::collections::HashMap;

use crate::bundle::proto::{NodeProto, ValueInfoProto};
use crate::error::{Error, Result};
use crate::rewrite::TensorFacts;
use crate::rewrite::indexed_graph::{IndexedGraph, is_own};
use crate::tensor::DType;

/// The element types of all tensors, by name.
pub struct TensorTypes(HashMap<String, DType>);

impl TensorTypes {
    /// Infers the types of a graph's tensors.
    ///
    /// # Errors
    /// [`Error::Model`] if a type cannot be inferred and is not declared.
    pub fn infer(source: &IndexedGraph<'_>) -> Result<Self> {
        let facts = TensorFacts::infer(source);
        let inner: HashMap<&str, DType> =
            source.value_info.iter().filter_map(|info| Some((info.name.as_str(), declared(info)?))).collect();
        let mut types = Self(HashMap::new());
        let stored = source.stored().map(|(tensor, _)| (tensor.name.clone(), DType::from_onnx(tensor.data_type)));
        types.0.extend(stored);
        types.0.extend(source.inputs.iter().filter_map(|info| Some((info.name.clone(), declared(info)?))));
        for node in &source.nodes {
            for (at, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let inferred = facts.dtype(name).or_else(|| types.of_output(node, at));
                let dtype = inferred.or_else(|| inner.get(name.as_str()).copied()).ok_or_else(|| {
                    let problem = format!("the element type of tensor {name}, made by {}, is not known", node.op_type);
                    Error::model(
                        &source.graph().path,
                        problem,
                        "export it with the types of inner tensors (value_info)",
                    )
                })?;
                types.0.insert(name.clone(), dtype);
            }
        }
        Ok(types)
    }

    /// Returns a tensor's type.
    pub fn get(&self, name: &str) -> Option<DType> {
        self.0.get(name).copied()
    }

    /// Returns true for a float32 tensor.
    pub fn is_single(&self, name: &str) -> bool {
        self.get(name) == Some(DType::F32)
    }

    /// Returns the type of an output that the facts about shapes leave out: those of branches and what is computed from them,
    /// and all but a node's first one.
    fn of_output(&self, node: &NodeProto, at: usize) -> Option<DType> {
        let bodies: Vec<_> = node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)).collect();
        match node.op_type.as_str() {
            "If" => declared(bodies.first()?.output.get(at)?),
            // The first output of a body is its condition.
            "Loop" => declared(bodies.first()?.output.get(at + 1)?),
            "Scan" => declared(bodies.first()?.output.get(at)?),
            "TopK" | "MaxPool" | "Unique" if at > 0 => Some(DType::I64),
            "Dropout" if at > 0 => Some(DType::Bool),
            "Multinomial" | "ConvInteger" => Some(DType::I32),
            "DynamicQuantizeLinear" | "QLinearConv" | "QLinearMatMul" => None,
            "Where" | "CastLike" | "DequantizeLinear" => self.get(node.input.get(1)?),
            "OneHot" | "QuantizeLinear" => self.get(node.input.get(2)?),
            _ if is_own(node) => self.get(node.input.first()?),
            _ => None,
        }
    }
}

fn declared(info: &ValueInfoProto) -> Option<DType> {
    let tensor = info.r#type.as_ref()?.tensor_type.as_ref()?;
    (tensor.elem_type != 0).then(|| DType::from_onnx(tensor.elem_type))
}
