//! What can be told of a graph's tensors without running it: element types, shapes, and the numbers that shape
//! arithmetic computes.

mod fact;
mod generated;
mod shapes;
mod values;

use std::collections::HashMap;

use super::numbers::Values;
use super::source::{Source, input, int, is_own, output};
use super::symbol::{Length, Unknowns};
use crate::bundle::proto::{Dimension, Node, ValueInfo};
use crate::tensor::DType;
use fact::FEW;

pub use fact::{Fact, Value};

/// What is known of all tensors of a graph, by name.
pub struct Facts {
    known: HashMap<String, Fact>,
    unknowns: Unknowns,
    /// The lengths of axes that the file leaves free and that are known all the same.
    axes: HashMap<String, i64>,
}

impl Facts {
    /// Goes through the graph from its inputs to its outputs.
    pub fn of(source: &Source<'_>) -> Self {
        Self::at(source, &[])
    }

    /// The same with lengths for axes that the file leaves free, by name.
    pub fn at(source: &Source<'_>, axes: &[(String, usize)]) -> Self {
        let axes = axes.iter().filter_map(|(name, length)| Some((name.clone(), i64::try_from(*length).ok()?)));
        let mut facts = Self { known: HashMap::new(), unknowns: Unknowns::default(), axes: axes.collect() };
        let told: HashMap<&str, &ValueInfo> = source.value_info.iter().map(|v| (v.name.as_str(), v)).collect();
        for info in &source.inputs {
            let fact = facts.declared(info);
            facts.known.insert(info.name.clone(), fact);
        }
        for (tensor, _) in source.stored() {
            if facts.known.contains_key(&tensor.name) {
                continue;
            }
            let fact = Fact {
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

    /// What is known of a tensor.
    pub fn get(&self, name: &str) -> Option<&Fact> {
        self.known.get(name)
    }

    /// A tensor's shape.
    pub fn shape(&self, name: &str) -> Option<&[Length]> {
        self.get(name)?.shape.as_deref()
    }

    /// A length as a file declares it: a number, or the name of an axis; `None` where it is neither.
    pub fn dimension(&self, length: &Length) -> Option<Dimension> {
        match length.number() {
            Some(number) if number > 0 => Some(Dimension { dim_value: number, ..Dimension::default() }),
            _ => Some(Dimension { dim_param: self.unknowns.name(length)?.to_owned(), ..Dimension::default() }),
        }
    }

    /// The bytes of a tensor whose size is known.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        let fact = self.get(name)?;
        let count = u64::try_from(Length::product(fact.shape.as_deref()?)?.number()?).ok()?;
        count.checked_mul(fact.dtype?.bytes()?)
    }

    /// A tensor's element type.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.get(name)?.dtype
    }

    /// The one number that a tensor holds, of whichever shape.
    pub fn scalar(&self, name: &str) -> Option<f64> {
        self.get(name)?.value.as_ref()?.number()
    }

    /// What a file says of a tensor.
    fn declared(&mut self, info: &ValueInfo) -> Fact {
        let Some(tensor) = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else { return Fact::default() };
        let shape = tensor.shape.as_ref().map(|shape| {
            let length = |d: &Dimension| match (d.dim_value, d.dim_param.as_str()) {
                (n, _) if n > 0 => Length::from(n),
                (_, "") => self.unknowns.fresh(),
                (_, name) => match self.axes.get(name) {
                    Some(&length) => Length::from(length),
                    None => self.unknowns.named(name),
                },
            };
            shape.dim.iter().map(length).collect()
        });
        Fact { dtype: Some(DType::from_onnx(tensor.elem_type)), shape, value: None }
    }

    /// What a `ConstantOfShape` makes.
    fn filled(&self, source: &Source<'_>, node: &Node) -> Fact {
        let shape = input(node, 0).and_then(|name| self.get(name)?.value.as_ref()?.whole());
        let fill = if node.attribute.is_empty() {
            Some((DType::F32, Value::Real(vec![0.0])))
        } else {
            output(node).and_then(|name| source.constant(name)).map(|numbers| (numbers.dtype, numbers.values.into()))
        };
        let count = shape.and_then(|shape| usize::try_from(Length::product(shape)?.number()?).ok());
        let value = fill.as_ref().and_then(|(_, fill)| match (count.filter(|&n| n <= FEW)?, fill) {
            (count, Value::Whole(one)) => Some(Value::Whole(vec![one.first()?.clone(); count])),
            (count, Value::Real(one)) => Some(Value::Real(vec![*one.first()?; count])),
        });
        Fact { dtype: fill.map(|(dtype, _)| dtype), shape: shape.map(<[Length]>::to_vec), value }
    }

    /// What is known of a node's outputs.
    fn made_by(&mut self, node: &Node) -> Vec<Fact> {
        if !is_own(node) {
            return Vec::new();
        }
        let inputs: Vec<Fact> = (0..node.input.len())
            .map(|at| input(node, at).and_then(|name| self.get(name)).cloned().unwrap_or_default())
            .collect();
        let dtype = dtype(node, &inputs);
        if node.op_type == "DynamicQuantizeLinear" {
            /// Number of uint8 in ONNX's `TensorProto.DataType`.
            const UINT8: DType = DType::Other(2);
            let whole = inputs.first().and_then(|fact| fact.shape.clone());
            let of = |dtype, shape| Fact { dtype: Some(dtype), shape, value: None };
            return vec![of(UINT8, whole), of(DType::F32, Some(Vec::new())), of(UINT8, Some(Vec::new()))];
        }
        if node.op_type == "Split" {
            let parts = shapes::split(node, &inputs).unwrap_or_default();
            return parts.into_iter().map(|shape| Fact { dtype, shape: Some(shape), value: None }).collect();
        }
        let shape = shapes::shape(node, &inputs, &mut self.unknowns);
        let value = values::value(node, &inputs, &mut self.unknowns).filter(|value| value.len() <= FEW);
        vec![Fact { dtype, shape, value }]
    }
}

/// The element type of a node's first output.
fn dtype(node: &Node, inputs: &[Fact]) -> Option<DType> {
    let of = |at: usize| inputs.get(at).and_then(|fact| fact.dtype);
    match node.op_type.as_str() {
        "Cast" => Some(DType::from_onnx(i32::try_from(int(node, "to")?).ok()?)),
        // Numbers stored in few bits become what their scale is.
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
        "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => Some(DType::I64),
        "MatMulInteger" => Some(DType::I32),
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Not" | "IsNaN"
        | "IsInf" => Some(DType::Bool),
        // Whose output's type is told by an attribute, by a body, or in another way.
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

/// The numbers stored under a name, where they are few.
fn value(source: &Source<'_>, name: &str) -> Option<Value> {
    source.numbers(name, FEW).map(|numbers| numbers.values.into())
}

/// What a `Constant` makes.
fn constant(source: &Source<'_>, node: &Node) -> Option<Fact> {
    let numbers = source.constant(output(node)?)?;
    Some(Fact {
        dtype: Some(numbers.dtype),
        shape: Some(numbers.dims.iter().map(|&n| Length::from(n)).collect()),
        value: (numbers.len() <= FEW).then(|| numbers.values.into()),
    })
}

impl From<Values> for Value {
    fn from(values: Values) -> Self {
        match values {
            Values::Whole(values) => Self::Whole(values.into_iter().map(Length::from).collect()),
            Values::Real(values) => Self::Real(values),
        }
    }
}
