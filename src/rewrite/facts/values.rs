//! The results of shape arithmetic.

use super::tensor_fact::{FEW, KnownValue, TensorFact};
use crate::bundle::proto::NodeProto;
use crate::rewrite::indexed_graph::{int, ints};
use crate::rewrite::length::{Length, Unknowns};
use crate::tensor::DType;

/// Returns the values that a node computes, if they can be inferred.
pub fn value(node: &NodeProto, inputs: &[TensorFact], unknowns: &mut Unknowns) -> Option<KnownValue> {
    let of = |at: usize| inputs.get(at)?.value.as_ref();
    let whole = |at: usize| of(at)?.whole();
    match node.op_type.as_str() {
        "Identity" | "Reshape" | "Unsqueeze" | "Squeeze" | "Flatten" => of(0).cloned(),
        "Shape" => {
            let shape = inputs.first()?.shape.as_deref()?;
            let bound = |name: &str, default: usize| match int(node, name) {
                None => Some(default),
                Some(n) if n < 0 => shape.len().checked_sub(usize::try_from(n.checked_neg()?).ok()?),
                Some(n) => Some(usize::try_from(n).ok()?.min(shape.len())),
            };
            shape.get(bound("start", 0)?..bound("end", shape.len())?).map(|part| KnownValue::Whole(part.to_vec()))
        }
        "Size" => Length::product(inputs.first()?.shape.as_deref()?).map(|n| KnownValue::Whole(vec![n])),
        "Cast" => cast(of(0)?, DType::from_onnx(i32::try_from(int(node, "to")?).ok()?)),
        "Gather" => {
            let indices: Vec<i64> = whole(1)?.iter().map(Length::number).collect::<Option<_>>()?;
            along(inputs.first()?, int(node, "axis").unwrap_or(0), |count| {
                indices.iter().map(|&n| usize::try_from(if n < 0 { n.checked_add(count)? } else { n }).ok()).collect()
            })
        }
        "Slice" => {
            let bound = |at: usize, name: &str, default: Option<i64>| match inputs.get(at) {
                Some(fact) => one(fact.value.as_ref()?.whole()?)?.number(),
                None => ints(node, name).map_or(default, one_of),
            };
            let (start, end) = (bound(1, "starts", None)?, bound(2, "ends", None)?);
            let (axis, step) = (bound(3, "axes", Some(0))?, bound(4, "steps", Some(1))?);
            along(inputs.first()?, axis, |count| sliced(count, start, end, step))
        }
        "Transpose" => transpose(node, inputs.first()?),
        "Concat" => {
            let mut joined = Vec::new();
            for fact in inputs {
                joined.extend_from_slice(fact.value.as_ref()?.whole()?);
            }
            (joined.len() <= FEW).then_some(KnownValue::Whole(joined))
        }
        "Equal" => binary("Equal", of(0)?, of(1)?, unknowns),
        "Where" => {
            let (yes, no, given) = (whole(1)?, whole(2)?, whole(0)?);
            let count = yes.len().max(no.len()).max(given.len());
            let fits = |values: &[Length]| values.len() == count || values.len() == 1;
            if ![yes, no, given].into_iter().all(fits) {
                return None;
            }
            let choices = yes.iter().cycle().zip(no.iter().cycle()).zip(given.iter().cycle()).take(count);
            let chosen =
                choices.map(|((yes, no), given)| given.number().map(|n| if n != 0 { yes } else { no }.clone()));
            chosen.collect::<Option<_>>().map(KnownValue::Whole)
        }
        "Add" | "Sub" | "Mul" | "Div" | "Pow" => binary(&node.op_type, of(0)?, of(1)?, unknowns),
        "Sqrt" | "Reciprocal" | "Neg" | "Floor" | "Ceil" => unary(&node.op_type, of(0)?),
        _ => None,
    }
}

fn cast(value: &KnownValue, to: DType) -> Option<KnownValue> {
    Some(match (value, to) {
        (KnownValue::Whole(_), DType::I64 | DType::I32 | DType::Bool) | (KnownValue::Real(_), DType::F32) => {
            value.clone()
        }
        (KnownValue::Whole(values), DType::F32) => {
            KnownValue::Real(values.iter().map(|n| n.number().map(|n| n as f32)).collect::<Option<_>>()?)
        }
        (KnownValue::Real(values), DType::I64 | DType::I32) => {
            KnownValue::Whole(values.iter().map(|&v| Length::from(v as i64)).collect())
        }
        _ => return None,
    })
}

/// Longer axes are not sliced index by index.
const SLICED: i64 = 1 << 20;

/// Returns the only element of a list.
fn one<T>(list: &[T]) -> Option<&T> {
    if let [one] = list { Some(one) } else { None }
}

fn one_of(list: &[i64]) -> Option<i64> {
    one(list).copied()
}

/// Returns the indices that a slice takes from an axis of length `count`, in order; `None` if they are too many to
/// list.
pub fn sliced(count: i64, start: i64, end: i64, step: i64) -> Option<Vec<usize>> {
    let from_front = |n: i64| if n < 0 { n.saturating_add(count) } else { n };
    let (start, end) = match step {
        1.. => (from_front(start).clamp(0, count), from_front(end).clamp(0, count)),
        _ => (from_front(start).clamp(-1, count - 1), from_front(end).clamp(-1, count - 1)),
    };
    if step == 0 || count > SLICED {
        return None;
    }
    let mut places = Vec::new();
    let mut at = start;
    while (step > 0 && at < end) || (step < 0 && at > end) {
        places.push(usize::try_from(at).ok()?);
        at = at.checked_add(step)?;
    }
    Some(places)
}

/// Returns the values at some indices along one axis of a tensor; `places` receives that axis's length.
fn along(fact: &TensorFact, axis: i64, places: impl FnOnce(i64) -> Option<Vec<usize>>) -> Option<KnownValue> {
    let shape = numbers(fact.shape.as_deref()?)?;
    let axis =
        usize::try_from(if axis < 0 { axis.checked_add(i64::try_from(shape.len()).ok()?)? } else { axis }).ok()?;
    let count = *shape.get(axis)?;
    let product = |lengths: &[usize]| lengths.iter().try_fold(1usize, |n, &length| n.checked_mul(length));
    let (inner, outer) = (product(shape.get(axis + 1..)?)?, product(shape.get(..axis)?)?);
    // Tracked values are few, whatever their shape.
    if product(&shape).is_none_or(|count| count > FEW) {
        return None;
    }
    let places = places(i64::try_from(count).ok()?)?;
    if places.iter().any(|&at| at >= count) {
        return None;
    }
    let index = (0..outer)
        .flat_map(|o| places.iter().flat_map(move |at| (0..inner).map(move |i| (o * count + at) * inner + i)));
    pick(fact.value.as_ref()?, index)
}

/// Returns a matrix's values in column-major order.
fn transpose(node: &NodeProto, fact: &TensorFact) -> Option<KnownValue> {
    let [rows, columns] = *numbers(fact.shape.as_deref()?)?.as_slice() else { return None };
    match ints(node, "perm") {
        None | Some([1, 0]) => {}
        Some(_) => return None,
    }
    pick(fact.value.as_ref()?, (0..columns).flat_map(|x| (0..rows).map(move |y| y * columns + x)))
}

fn pick(value: &KnownValue, index: impl Iterator<Item = usize>) -> Option<KnownValue> {
    Some(match value {
        KnownValue::Whole(values) => KnownValue::Whole(index.map(|at| values.get(at).cloned()).collect::<Option<_>>()?),
        KnownValue::Real(values) => KnownValue::Real(index.map(|at| values.get(at).copied()).collect::<Option<_>>()?),
    })
}

fn numbers(shape: &[Length]) -> Option<Vec<usize>> {
    shape.iter().map(|length| usize::try_from(length.number()?).ok()).collect()
}

fn binary(operator: &str, left: &KnownValue, right: &KnownValue, unknowns: &mut Unknowns) -> Option<KnownValue> {
    let count = match (left.len(), right.len()) {
        (a, b) if a == b || b == 1 => a,
        (1, b) => b,
        _ => return None,
    };
    match (left, right) {
        (KnownValue::Whole(a), KnownValue::Whole(b)) => {
            let mut numbers = Vec::with_capacity(count);
            for (a, b) in a.iter().cycle().zip(b.iter().cycle()).take(count) {
                numbers.push(match operator {
                    "Add" => a.plus(b)?,
                    "Sub" => a.minus(b)?,
                    "Mul" => a.times(b)?,
                    "Equal" => Length::from(i64::from(equals(a, b)?)),
                    // Lengths are not negative; the quotient of negative numbers is rounded differently.
                    "Div" if a.number().is_none_or(|n| n >= 0) && b.number().is_none_or(|n| n > 0) => {
                        unknowns.quotient(a, b)
                    }
                    _ => return None,
                });
            }
            Some(KnownValue::Whole(numbers))
        }
        (KnownValue::Real(a), KnownValue::Real(b)) => {
            if operator == "Equal" {
                return None;
            }
            let numbers = a.iter().cycle().zip(b.iter().cycle()).take(count).map(|(&a, &b)| match operator {
                "Add" => a + b,
                "Sub" => a - b,
                "Mul" => a * b,
                "Div" => a / b,
                _ => a.powf(b),
            });
            Some(KnownValue::Real(numbers.collect()))
        }
        _ => None,
    }
}

/// Returns true if two integers are equal, `None` if unknown. Lengths are never negative.
fn equals(left: &Length, right: &Length) -> Option<bool> {
    let is_below_zero = |length: &Length| length.number().is_some_and(|n| n < 0);
    match (left.number(), right.number()) {
        (Some(a), Some(b)) => Some(a == b),
        _ if left == right => Some(true),
        _ if is_below_zero(left) && right.is_sum() || is_below_zero(right) && left.is_sum() => Some(false),
        _ => None,
    }
}

fn unary(operator: &str, value: &KnownValue) -> Option<KnownValue> {
    let KnownValue::Real(values) = value else {
        let negated: Option<Vec<_>> = value.whole()?.iter().map(|n| n.times(&Length::from(-1))).collect();
        return negated.filter(|_| operator == "Neg").map(KnownValue::Whole);
    };
    let number = |v: f32| match operator {
        "Sqrt" => v.sqrt(),
        "Reciprocal" => v.recip(),
        "Neg" => -v,
        "Floor" => v.floor(),
        _ => v.ceil(),
    };
    Some(KnownValue::Real(values.iter().map(|&v| number(v)).collect()))
}
