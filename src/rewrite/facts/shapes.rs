//! The output shapes of operators.

use std::collections::HashMap;

use super::tensor_fact::{KnownValue, TensorFact};
use super::values::sliced;
use super::{generated, windows};
use crate::bundle::proto::NodeProto;
use crate::rewrite::indexed_graph::{int, ints, text};
use crate::rewrite::length::{Length, Unknowns};

/// Operators whose output has the shape of their first input.
const SAME: &[&str] = &[
    "Abs",
    "BatchNormalization",
    "Bernoulli",
    "Cast",
    "DequantizeLinear",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "CumSum",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "EyeLike",
    "Floor",
    "Gelu",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MeanVarianceNormalization",
    "Mish",
    "Neg",
    "Not",
    "PRelu",
    "QuantizeLinear",
    "RMSNormalization",
    "RandomNormalLike",
    "RandomUniformLike",
    "Reciprocal",
    "Relu",
    "Round",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Trilu",
];

/// Operators whose output has the shape to which all their inputs broadcast.
const BROADCAST: &[&str] = &[
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
];

/// Returns the shape of a node's first output.
pub fn shape(node: &NodeProto, inputs: &[TensorFact], unknowns: &mut Unknowns) -> Option<Vec<Length>> {
    let of = |at: usize| inputs.get(at)?.shape.as_deref();
    let whole = |at: usize| inputs.get(at)?.value.as_ref()?.whole();
    match node.op_type.as_str() {
        operator if SAME.contains(&operator) => of(0).map(<[Length]>::to_vec),
        operator if BROADCAST.contains(&operator) => broadcast_all(inputs, unknowns),
        "Shape" => Some(vec![Length::from(i64::try_from(of(0)?.len()).ok()?)]),
        "Size" => Some(Vec::new()),
        "Reshape" => reshape(of(0)?, whole(1)?, int(node, "allowzero") == Some(1)),
        "Transpose" => transpose(of(0)?, ints(node, "perm")),
        "Unsqueeze" => unsqueeze(of(0)?, &axes(node, inputs, 1)?),
        "Squeeze" => squeeze(of(0)?, &axes(node, inputs, 1)?),
        "Concat" => concat(int(node, "axis")?, inputs),
        "Gather" => gather(of(0)?, of(1)?, int(node, "axis").unwrap_or(0)),
        "Slice" => slice(node, inputs, unknowns),
        "MatMul" | "MatMulInteger" => matmul(of(0)?, of(1)?, unknowns),
        "Gemm" => gemm(node, of(0)?, of(1)?),
        "Expand" => Some(expand(of(0)?, whole(1)?, unknowns)),
        "Einsum" => einsum(text(node, "equation")?, inputs, unknowns),
        "Pad" => pad(node, inputs, unknowns),
        "Conv" => windows::convolution(node, of(0)?, of(1)?, unknowns),
        "AveragePool" | "MaxPool" | "LpPool" => windows::pool(node, of(0)?, unknowns),
        "Resize" | "Upsample" => windows::resize(node, inputs, unknowns),
        "Flatten" => flatten(of(0)?, int(node, "axis").unwrap_or(1)),
        "ArgMax" | "ArgMin" => {
            reduce(of(0)?, &[int(node, "axis").unwrap_or(0)], int(node, "keepdims").unwrap_or(1) != 0)
        }
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL2" | "ReduceSumSquare" => {
            reduce(of(0)?, &axes(node, inputs, 1)?, int(node, "keepdims").unwrap_or(1) != 0)
        }
        _ => generated::shape(node, inputs, unknowns),
    }
}

/// Returns the shapes of the outputs of a `Split`.
pub fn split(node: &NodeProto, inputs: &[TensorFact]) -> Option<Vec<Vec<Length>>> {
    let shape = inputs.first()?.shape.as_deref()?;
    let at = axis(int(node, "axis").unwrap_or(0), shape.len())?;
    let own = shape.get(at)?;
    let parts: Vec<Length> = match (inputs.get(1).and_then(|f| f.value.as_ref()), ints(node, "split")) {
        (Some(sizes), _) => sizes.whole()?.to_vec(),
        (None, Some(sizes)) => sizes.iter().map(|&n| Length::from(n)).collect(),
        (None, None) if inputs.len() > 1 => return None,
        (None, None) => {
            let count = i64::try_from(node.output.len()).ok()?;
            vec![own.over(&Length::from(count))?; node.output.len()]
        }
    };
    let with = |length: Length| {
        let mut part = shape.to_vec();
        *part.get_mut(at)? = length;
        Some(part)
    };
    parts.into_iter().map(with).collect()
}

/// Returns the index of an axis, counted from the front.
fn axis(at: i64, rank: usize) -> Option<usize> {
    let at = if at < 0 { at.checked_add(i64::try_from(rank).ok()?)? } else { at };
    usize::try_from(at).ok().filter(|&at| at < rank)
}

/// Returns the axes in a node's input or attribute.
fn axes(node: &NodeProto, inputs: &[TensorFact], at: usize) -> Option<Vec<i64>> {
    match inputs.get(at) {
        Some(fact) => fact.value.as_ref()?.whole()?.iter().map(Length::number).collect(),
        None => ints(node, "axes").map(<[i64]>::to_vec),
    }
}

/// Returns the shape to which two shapes broadcast.
fn broadcast(left: &[Length], right: &[Length], unknowns: &mut Unknowns) -> Vec<Length> {
    let rank = left.len().max(right.len());
    let own = |shape: &[Length], at: usize| (at + shape.len()).checked_sub(rank).and_then(|at| shape.get(at).cloned());
    let mut join = |at: usize| match (own(left, at), own(right, at)) {
        (Some(a), Some(b)) => match (a.number(), b.number()) {
            _ if a == b => a,
            (Some(1), _) => b,
            (_, Some(1)) => a,
            (Some(_), _) => a,
            (_, Some(_)) => b,
            // Either may be 1 at run time.
            (None, None) => unknowns.fresh(),
        },
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => Length::from(1),
    };
    (0..rank).map(&mut join).collect()
}

/// Returns the shape to which all inputs broadcast.
fn broadcast_all(inputs: &[TensorFact], unknowns: &mut Unknowns) -> Option<Vec<Length>> {
    let mut shape = Vec::new();
    for fact in inputs {
        shape = broadcast(&shape, fact.shape.as_deref()?, unknowns);
    }
    Some(shape)
}

fn expand(shape: &[Length], to: &[Length], unknowns: &mut Unknowns) -> Vec<Length> {
    let mut expanded = broadcast(shape, to, unknowns);
    // Of two unknown lengths, the target is the result: any other than 1 would not be expanded.
    for ((length, own), to) in expanded.iter_mut().rev().zip(shape.iter().rev()).zip(to.iter().rev()) {
        if own.number().is_none() && to.number().is_none() {
            *length = to.clone();
        }
    }
    expanded
}

fn transpose(shape: &[Length], order: Option<&[i64]>) -> Option<Vec<Length>> {
    match order {
        None => Some(shape.iter().rev().cloned().collect()),
        Some(order) => order.iter().map(|&at| shape.get(usize::try_from(at).ok()?).cloned()).collect(),
    }
}

fn concat(at: i64, inputs: &[TensorFact]) -> Option<Vec<Length>> {
    let mut shape = inputs.first()?.shape.clone()?;
    let at = axis(at, shape.len())?;
    for fact in inputs.get(1..)? {
        let other = fact.shape.as_deref()?;
        for (index, (own, more)) in shape.iter_mut().zip(other).enumerate() {
            if index == at {
                *own = own.plus(more)?;
            } else if own.number().is_none() && more.number().is_some() {
                *own = more.clone();
            }
        }
    }
    Some(shape)
}

fn gather(data: &[Length], indices: &[Length], at: i64) -> Option<Vec<Length>> {
    let at = axis(at, data.len())?;
    Some([data.get(..at)?, indices, data.get(at + 1..)?].concat())
}

fn flatten(shape: &[Length], at: i64) -> Option<Vec<Length>> {
    let at = usize::try_from(at).ok().filter(|&at| at <= shape.len())?;
    Some(vec![Length::product(shape.get(..at)?)?, Length::product(shape.get(at..)?)?])
}

/// Returns the shape without some axes, or with length 1 along them if `keeps`.
fn reduce(shape: &[Length], axes: &[i64], keeps: bool) -> Option<Vec<Length>> {
    let axes: Vec<usize> = axes.iter().map(|&a| axis(a, shape.len())).collect::<Option<_>>()?;
    let kept = shape.iter().enumerate().filter(|(at, _)| keeps || !axes.contains(at));
    Some(kept.map(|(at, n)| if axes.contains(&at) { Length::from(1) } else { n.clone() }).collect())
}

fn squeeze(shape: &[Length], axes: &[i64]) -> Option<Vec<Length>> {
    reduce(shape, axes, false)
}

fn reshape(shape: &[Length], to: &[Length], zero_is_zero: bool) -> Option<Vec<Length>> {
    let mut reshaped = Vec::with_capacity(to.len());
    let mut rest = None;
    for (at, length) in to.iter().enumerate() {
        reshaped.push(match length.number() {
            Some(0) if !zero_is_zero => shape.get(at)?.clone(),
            Some(-1) => {
                rest = Some(at);
                Length::from(1)
            }
            _ => length.clone(),
        });
    }
    if let Some(at) = rest {
        *reshaped.get_mut(at)? = Length::product(shape)?.over(&Length::product(&reshaped)?)?;
    }
    Some(reshaped)
}

fn unsqueeze(shape: &[Length], axes: &[i64]) -> Option<Vec<Length>> {
    let rank = shape.len() + axes.len();
    let axes: Vec<usize> = axes.iter().map(|&a| axis(a, rank)).collect::<Option<_>>()?;
    let mut own = shape.iter();
    (0..rank).map(|at| if axes.contains(&at) { Some(Length::from(1)) } else { own.next().cloned() }).collect()
}

fn slice(node: &NodeProto, inputs: &[TensorFact], unknowns: &mut Unknowns) -> Option<Vec<Length>> {
    let mut shape = inputs.first()?.shape.clone()?;
    let list = |at: usize, name: &str| match inputs.get(at) {
        Some(fact) => fact.value.as_ref()?.whole().map(<[Length]>::to_vec),
        None => ints(node, name).map(|v| v.iter().map(|&n| Length::from(n)).collect()),
    };
    let (starts, ends) = (list(1, "starts")?, list(2, "ends")?);
    let all = || (0..i64::try_from(starts.len()).unwrap_or(0)).map(Length::from).collect();
    let axes = if inputs.len() > 3 { list(3, "axes")? } else { list(3, "axes").unwrap_or_else(all) };
    let steps = if inputs.len() > 4 { list(4, "steps")? } else { vec![Length::from(1); starts.len()] };
    let rank = shape.len();
    for (((start, end), at), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let own = shape.get_mut(axis(at.number()?, rank)?)?;
        *own = part(own, start, end, step).unwrap_or_else(|| unknowns.fresh());
    }
    Some(shape)
}

/// Returns the length of a slice, if its ends are known to be within the axis.
fn part(own: &Length, start: &Length, end: &Length, step: &Length) -> Option<Length> {
    if let Some(count) = own.number() {
        let places = sliced(count, start.number()?, end.number()?, step.number()?)?;
        return i64::try_from(places.len()).ok().map(Length::from);
    }
    // Of an unknown length, only a slice with an open end has a known length.
    let is_open = end.number().is_some_and(|n| n >= i64::from(i32::MAX)) || end == own;
    (is_open && start.number() == Some(0) && step.number() == Some(1)).then(|| own.clone())
}

/// Returns the shape of a padded tensor; if the padding is unknown, only its number of axes is.
fn pad(node: &NodeProto, inputs: &[TensorFact], unknowns: &mut Unknowns) -> Option<Vec<Length>> {
    let shape = inputs.first()?.shape.as_deref()?;
    let told: Option<Vec<Length>> = match inputs.get(1) {
        Some(fact) => fact.value.as_ref().and_then(KnownValue::whole).map(<[Length]>::to_vec),
        None => ints(node, "pads").map(|pads| pads.iter().map(|&n| Length::from(n)).collect()),
    };
    let pads = told.filter(|pads| pads.len() == 2 * shape.len() && inputs.len() < 4);
    let padded = |(at, length): (usize, &Length)| {
        let pads = pads.as_ref()?;
        length.plus(pads.get(at)?)?.plus(pads.get(at + shape.len())?)
    };
    Some(shape.iter().enumerate().map(|place| padded(place).unwrap_or_else(|| unknowns.fresh())).collect())
}

fn gemm(node: &NodeProto, left: &[Length], right: &[Length]) -> Option<Vec<Length>> {
    let side = |shape: &[Length], flag: &str, own: usize| {
        let turned = usize::from(int(node, flag).unwrap_or(0) != 0);
        shape.get(own ^ turned).cloned()
    };
    Some(vec![side(left, "transA", 0)?, side(right, "transB", 1)?])
}

fn matmul(left: &[Length], right: &[Length], unknowns: &mut Unknowns) -> Option<Vec<Length>> {
    let ([before @ .., rows, _], [behind @ .., _, columns]) = (left, right) else { return None };
    let mut shape = broadcast(before, behind, unknowns);
    shape.extend([rows.clone(), columns.clone()]);
    Some(shape)
}

/// Returns the output shape of an einsum equation without an ellipsis.
fn einsum(equation: &str, inputs: &[TensorFact], unknowns: &mut Unknowns) -> Option<Vec<Length>> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (terms, made) = equation.split_once("->").filter(|_| !equation.contains('.'))?;
    let mut lengths: HashMap<char, Length> = HashMap::new();
    for (term, fact) in terms.split(',').zip(inputs) {
        let shape = fact.shape.as_deref().filter(|shape| shape.len() == term.chars().count())?;
        for (letter, length) in term.chars().zip(shape) {
            let known = lengths.entry(letter).or_insert_with(|| length.clone());
            *known = broadcast(std::slice::from_ref(known), std::slice::from_ref(length), unknowns).pop()?;
        }
    }
    made.chars().map(|letter| lengths.get(&letter).cloned()).collect()
}
