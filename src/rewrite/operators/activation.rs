//! Activations in any form: a function of one tensor is recognized by its values.

use std::collections::HashMap;

use half::{bf16, f16};

use super::site::Site;
use crate::bundle::proto::NodeProto;
use crate::kernels::Activation;
use crate::rewrite::indexed_graph::{int, is, output, text};

/// The nodes of an activation, and its output.
pub struct Found<'s> {
    /// The activation.
    pub activation: Activation,
    /// The indices of its nodes.
    pub nodes: Vec<usize>,
    /// Its output.
    pub output: &'s str,
}

/// The arguments at which functions are compared.
const SAMPLES: [f64; 9] = [-4.0, -2.5, -1.25, -0.5, -0.1, 0.2, 0.75, 1.5, 3.0];

/// Finds the activation of a tensor that nothing else reads.
pub fn find<'s>(site: Site<'s>, x: &'s str) -> Option<Found<'s>> {
    /// The longest has eight nodes.
    const MOST: usize = 12;
    let mut values: HashMap<&str, [f64; SAMPLES.len()]> = HashMap::from([(x, SAMPLES)]);
    let mut nodes: Vec<usize> = Vec::new();
    let mut open: Vec<&str> = vec![x];
    // Nodes in their order, so that all that one reads was seen before.
    while let Some(at) = next(site, &open, &nodes) {
        let node = &site.source.nodes[at];
        let made = output(node)?;
        values.insert(made, evaluate(site, node, &values)?);
        nodes.push(at);
        open.push(made);
        open.retain(|name| !site.source.readers(name).iter().all(|reader| nodes.contains(reader)) || *name == made);
        if let [last] = open.as_slice() {
            let activation = recognize(&values[last]);
            if let Some(activation) = activation {
                return Some(Found { activation, nodes, output: last });
            }
        }
        if nodes.len() > MOST {
            return None;
        }
    }
    None
}

/// Returns the first node that reads one of the tensors and was not taken.
fn next(site: Site<'_>, open: &[&str], taken: &[usize]) -> Option<usize> {
    let readers = open.iter().flat_map(|name| site.source.readers(name));
    readers.copied().filter(|reader| !taken.contains(reader)).min()
}

/// Computes a node's values; `None` if it is not a function of known values and single numbers.
fn evaluate<'s>(
    site: Site<'s>,
    node: &'s NodeProto,
    values: &HashMap<&str, [f64; SAMPLES.len()]>,
) -> Option<[f64; SAMPLES.len()]> {
    let of =
        |name: &String| values.get(name.as_str()).copied().or_else(|| Some([site.facts.scalar(name)?; SAMPLES.len()]));
    let inputs: Vec<[f64; SAMPLES.len()]> = node.input.iter().map(of).collect::<Option<_>>()?;
    let is_swish = |node: &NodeProto| {
        is(node, "Swish") && node.attribute.iter().all(|attribute| attribute.name != "alpha" || attribute.f == 1.0)
    };
    let one = |function: fn(f64) -> f64| Some(inputs.first()?.map(function));
    let two = |function: fn(f64, f64) -> f64| {
        let (a, b) = (inputs.first()?, inputs.get(1)?);
        Some(std::array::from_fn(|at| function(a[at], b[at])))
    };
    match node.op_type.as_str() {
        _ if is_swish(node) => one(|x| x / (1.0 + (-x).exp())),
        "Gelu" if text(node, "approximate").is_none_or(|name| name == "none") => one(|x| gelu(x, |constant| constant)),
        "Gelu" => one(|x| gelu_tanh(x, |constant| constant)),
        _ if int(node, "axis").is_some() => None,
        "Add" => two(|a, b| a + b),
        "Sub" => two(|a, b| a - b),
        "Mul" => two(|a, b| a * b),
        "Div" => two(|a, b| a / b),
        "Pow" => two(f64::powf),
        "Erf" => one(erf),
        "Tanh" => one(f64::tanh),
        "Exp" => one(f64::exp),
        "Neg" => one(|x| -x),
        "Sqrt" => one(f64::sqrt),
        "Reciprocal" => one(|x| 1.0 / x),
        "Sigmoid" => one(|x| 1.0 / (1.0 + (-x).exp())),
        "Identity" => one(|x| x),
        _ => None,
    }
}

/// A function of one number, whose constants are rounded by the other one.
type Function = fn(f64, fn(f64) -> f64) -> f64;

/// Finds the activation with these values. Exporters in half precision and in bfloat16 round its constants; the operator does
/// not, nor does the original model.
fn recognize(values: &[f64; SAMPLES.len()]) -> Option<Activation> {
    const CANDIDATES: [(Activation, Function); 4] = [
        (Activation::Silu, |x, _| x / (1.0 + (-x).exp())),
        (Activation::Gelu, gelu),
        (Activation::GeluTanh, gelu_tanh),
        (Activation::QuickGelu, |x, rounded| x / (1.0 + (-rounded(1.702) * x).exp())),
    ];
    const ROUNDED: [fn(f64) -> f64; 3] = [|x| x, |x| f16::from_f64(x).to_f64(), |x| bf16::from_f64(x).to_f64()];
    let is_like = |function: Function| {
        let is_alike = |rounded: &fn(f64) -> f64| {
            SAMPLES.iter().zip(values).all(|(x, y)| (function(*x, *rounded) - y).abs() < 2e-6)
        };
        ROUNDED.iter().any(is_alike)
    };
    CANDIDATES.into_iter().find(|(_, function)| is_like(*function)).map(|(activation, _)| activation)
}

fn gelu(x: f64, rounded: fn(f64) -> f64) -> f64 {
    0.5 * x * (1.0 + erf(x / rounded(std::f64::consts::SQRT_2)))
}

fn gelu_tanh(x: f64, rounded: fn(f64) -> f64) -> f64 {
    let inner = rounded((2.0 / std::f64::consts::PI).sqrt()) * (x + rounded(0.044715) * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

/// The error function, by its series.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}
