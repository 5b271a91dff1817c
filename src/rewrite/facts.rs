//! Facts about a graph's tensors that can be inferred without running it: element types, shapes, and the results of
//! shape arithmetic.

mod generated;
mod shapes;
mod tensor_fact;
mod values;
mod windows;

use std::collections::HashMap;

use super::axis_names::axis_name;
use super::edits::MICROSOFT;
use super::indexed_graph::{IndexedGraph, input, int, is_own, output};
use super::length::{Length, Unknowns};
use super::numbers::Values;
use crate::bundle::proto::{Dimension, NodeProto, ValueInfoProto};
use crate::tensor::DType;
use tensor_fact::FEW;
pub use tensor_fact::{KnownValue, TensorFact};

/// The known facts about all tensors of a graph, by name.
pub struct TensorFacts {
    known: HashMap<String, TensorFact>,
    unknowns: Unknowns,
    /// The known lengths of the file's dynamic axes.
    axes: HashMap<String, i64>,
}

impl TensorFacts {
    /// Infers the facts from the graph's inputs to its outputs.
    pub fn infer(source: &IndexedGraph<'_>) -> Self {
        Self::infer_with_axes(source, &[])
    }

    /// Infers the facts with the given lengths of the file's dynamic axes, by name.
    pub fn infer_with_axes(source: &IndexedGraph<'_>, axes: &[(String, usize)]) -> Self {
        let axes = axes.iter().filter_map(|(name, length)| Some((name.clone(), i64::try_from(*length).ok()?)));
        let mut facts = Self { known: HashMap::new(), unknowns: Unknowns::default(), axes: axes.collect() };
        let told: HashMap<&str, &ValueInfoProto> = source.value_info.iter().map(|v| (v.name.as_str(), v)).collect();
        for info in &source.inputs {
            let fact = facts.declared(info);
            facts.known.insert(info.name.clone(), fact);
        }
        for (tensor, _) in source.stored() {
            if facts.known.contains_key(&tensor.name) {
                continue;
            }
            let fact = TensorFact {
                dtype: Some(DType::from_onnx(tensor.data_type)),
                shape: Some(tensor.dims.iter().map(|&n| Length::from(n)).collect()),
                value: value(source, &tensor.name),
            };
            facts.known.insert(tensor.name.clone(), fact);
        }
        for node in &source.nodes {
            let made = match node.op_type.as_str() {
                "Constant" if is_own(node) => vec![constant(source, node).unwrap_or_default()],
                "ConstantOfShape" if is_own(node) => vec![facts.filled(source, node)],
                "NonZero" if is_own(node) => vec![facts.places(source, node)],
                _ => facts.made_by(node),
            };
            let mut made = made.into_iter();
            for name in &node.output {
                let mut fact = made.next().unwrap_or_default();
                if name.is_empty() {
                    continue;
                }
                if let Some(info) = told.get(name.as_str()).filter(|_| fact.shape.is_none() || fact.dtype.is_none()) {
                    let declared = facts.declared(info);
                    fact.shape = fact.shape.or(declared.shape);
                    fact.dtype = fact.dtype.or(declared.dtype);
                }
                facts.known.insert(name.clone(), fact);
            }
        }
        facts
    }

    /// Returns the known facts about a tensor.
    pub fn get(&self, name: &str) -> Option<&TensorFact> {
        self.known.get(name)
    }

    /// Returns a tensor's shape.
    pub fn shape(&self, name: &str) -> Option<&[Length]> {
        self.get(name)?.shape.as_deref()
    }

    /// Returns a length as a file declares it: a number, or the name of an axis; `None` if it is neither.
    pub fn dimension(&self, length: &Length) -> Option<Dimension> {
        match length.number() {
            Some(number) if number > 0 => Some(Dimension { dim_value: number, ..Dimension::default() }),
            _ => Some(Dimension { dim_param: self.unknowns.name(length)?.to_owned(), ..Dimension::default() }),
        }
    }

    /// Returns the size of a tensor in bytes, if known.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        let fact = self.get(name)?;
        let count = u64::try_from(Length::product(fact.shape.as_deref()?)?.number()?).ok()?;
        count.checked_mul(fact.dtype?.bytes()?)
    }

    /// Returns a tensor's element type.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.get(name)?.dtype
    }

    /// Returns the only number in a tensor of any shape.
    pub fn scalar(&self, name: &str) -> Option<f64> {
        self.get(name)?.value.as_ref()?.number()
    }

    /// Reads the declaration of a tensor.
    fn declared(&mut self, info: &ValueInfoProto) -> TensorFact {
        let Some(tensor) = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else {
            return TensorFact::default();
        };
        let shape = tensor.shape.as_ref().map(|shape| {
            let length = |(at, d): (usize, &Dimension)| {
                let own = || self.axes.get(&axis_name(&info.name, at)).or_else(|| self.axes.get(&d.dim_param));
                match (d.dim_value, own(), d.dim_param.as_str()) {
                    (n, ..) if n > 0 => Length::from(n),
                    (_, Some(&length), _) => Length::from(length),
                    (_, None, "") => self.unknowns.fresh(),
                    (_, None, name) => self.unknowns.named(name),
                }
            };
            shape.dim.iter().enumerate().map(length).collect()
        });
        TensorFact { dtype: Some(DType::from_onnx(tensor.elem_type)), shape, value: None }
    }

    /// Returns the facts about the output of a `ConstantOfShape`.
    fn filled(&self, source: &IndexedGraph<'_>, node: &NodeProto) -> TensorFact {
        let shape = input(node, 0).and_then(|name| self.get(name)?.value.as_ref()?.whole());
        let fill = if node.attribute.is_empty() {
            Some((DType::F32, KnownValue::Real(vec![0.0])))
        } else {
            output(node).and_then(|name| source.constant(name)).map(|numbers| (numbers.dtype, numbers.values.into()))
        };
        let count = shape.and_then(|shape| usize::try_from(Length::product(shape)?.number()?).ok());
        let value = fill.as_ref().and_then(|(_, fill)| match (count.filter(|&n| n <= FEW)?, fill) {
            (count, KnownValue::Whole(one)) => Some(KnownValue::Whole(vec![one.first()?.clone(); count])),
            (count, KnownValue::Real(one)) => Some(KnownValue::Real(vec![*one.first()?; count])),
        });
        TensorFact { dtype: fill.map(|(dtype, _)| dtype), shape: shape.map(<[Length]>::to_vec), value }
    }

    /// Returns the facts about the output of a `NonZero`: `[rank, number of values that are not zero]`.
    fn places(&mut self, source: &IndexedGraph<'_>, node: &NodeProto) -> TensorFact {
        /// Exporters make the pairs of rotary embeddings so, of as many numbers as a head has channels.
        const MOST: usize = 1 << 12;
        let count = |values: &Values| match values {
            Values::Whole(values) => values.iter().filter(|&&value| value != 0).count(),
            Values::Real(values) => values.iter().filter(|&&value| value != 0.0).count(),
        };
        let stored = input(node, 0).and_then(|name| source.numbers(name, MOST));
        let count = stored.and_then(|numbers| i64::try_from(count(&numbers.values)).ok());
        let count = count.map_or_else(|| self.unknowns.fresh(), Length::from);
        let rank = input(node, 0).and_then(|name| i64::try_from(self.shape(name)?.len()).ok());
        TensorFact { dtype: Some(DType::I64), shape: rank.map(|rank| vec![Length::from(rank), count]), value: None }
    }

    /// Returns the facts about a node's outputs.
    fn made_by(&mut self, node: &NodeProto) -> Vec<TensorFact> {
        let inputs: Vec<TensorFact> = (0..node.input.len())
            .map(|at| input(node, at).and_then(|name| self.get(name)).cloned().unwrap_or_default())
            .collect();
        if node.domain == MICROSOFT && node.op_type == "MultiHeadAttention" {
            return vec![attended(&inputs)];
        }
        if !is_own(node) {
            return Vec::new();
        }
        let dtype = dtype(node, &inputs);
        if node.op_type == "DynamicQuantizeLinear" {
            /// The value of uint8 in ONNX's `TensorProto.DataType`.
            const UINT8: DType = DType::Other(2);
            let whole = inputs.first().and_then(|fact| fact.shape.clone());
            let of = |dtype, shape| TensorFact { dtype: Some(dtype), shape, value: None };
            return vec![of(UINT8, whole), of(DType::F32, Some(Vec::new())), of(UINT8, Some(Vec::new()))];
        }
        if node.op_type == "Split" {
            let parts = shapes::split(node, &inputs).unwrap_or_default();
            return parts.into_iter().map(|shape| TensorFact { dtype, shape: Some(shape), value: None }).collect();
        }
        let shape = shapes::shape(node, &inputs, &mut self.unknowns);
        let value = values::value(node, &inputs, &mut self.unknowns).filter(|value| value.len() <= FEW);
        vec![TensorFact { dtype, shape, value }]
    }
}

/// Returns the facts about the output of ONNX Runtime's attention: rows of the queries, as wide as those of the values.
fn attended(inputs: &[TensorFact]) -> TensorFact {
    let rows = |at: usize| inputs.get(at)?.shape.as_deref().filter(|shape| shape.len() == 3);
    let shape = rows(0).zip(rows(2)).map(|(queries, values)| [&queries[..2], &values[2..]].concat());
    TensorFact { dtype: inputs.first().and_then(|fact| fact.dtype), shape, value: None }
}

/// Returns the element type of a node's first output.
fn dtype(node: &NodeProto, inputs: &[TensorFact]) -> Option<DType> {
    let of = |at: usize| inputs.get(at).and_then(|fact| fact.dtype);
    match node.op_type.as_str() {
        "Cast" => Some(DType::from_onnx(i32::try_from(int(node, "to")?).ok()?)),
        // Quantized weights get the type of their scale.
        "CastLike" | "Where" | "DequantizeLinear" => of(1),
        "OneHot" | "QuantizeLinear" => of(2),
        "RandomNormal" | "RandomUniform" => match int(node, "dtype") {
            Some(code) => Some(DType::from_onnx(i32::try_from(code).ok()?)),
            None => Some(DType::F32),
        },
        "RandomNormalLike" | "RandomUniformLike" | "EyeLike" | "Bernoulli" => match int(node, "dtype") {
            Some(code) => Some(DType::from_onnx(i32::try_from(code).ok()?)),
            None => of(0),
        },
        "Shape" | "Size" | "ArgMax" | "ArgMin" => Some(DType::I64),
        "MatMulInteger" => Some(DType::I32),
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Not" | "IsNaN"
        | "IsInf" => Some(DType::Bool),
        // The output's type is in an attribute, in a body, or elsewhere.
        "If"
        | "Loop"
        | "Scan"
        | "Multinomial"
        | "DynamicQuantizeLinear"
        | "ConvInteger"
        | "QLinearConv"
        | "QLinearMatMul" => None,
        _ => of(0),
    }
}

/// Returns the values stored under a name, if they are few.
fn value(source: &IndexedGraph<'_>, name: &str) -> Option<KnownValue> {
    source.numbers(name, FEW).map(|numbers| numbers.values.into())
}

/// Returns the facts about the output of a `Constant`.
fn constant(source: &IndexedGraph<'_>, node: &NodeProto) -> Option<TensorFact> {
    let numbers = source.constant(output(node)?)?;
    Some(TensorFact {
        dtype: Some(numbers.dtype),
        shape: Some(numbers.dims.iter().map(|&n| Length::from(n)).collect()),
        value: (numbers.len() <= FEW).then(|| numbers.values.into()),
    })
}
