//! Gated feed-forward layers, `((x A + a) · gelu(x G + g)) O + o` (Shazeer 2020, arXiv 2002.05202, equation 6), with
//! less memory traffic.
//!
//! Exporters write one product of twice the width and split its result. Here each half is a separate product, so
//! nothing is copied. If there are many tokens, the layer processes some hundreds of them at a time, so that the
//! intermediate results stay in the CPU's caches.

use std::collections::HashMap;

use super::edits::{Edits, int, node};
use super::facts::TensorFacts;
use super::indexed_graph::{IndexedGraph, input, int as int_of, is, output};
use crate::bundle::proto::NodeProto;

/// The number of tokens that a layer processes at a time.
const TOKENS: usize = 512;
/// The maximum number of parts of a layer. ONNX Runtime's optimizers take quadratic time in the number of nodes. Beyond
/// this limit the parts get larger; a part that no longer fits the CPU's caches is as fast as the undivided layer.
const MOST_PARTS: usize = 32;
/// The widest layer to divide: the weights of wider ones are packed again for each part, which takes longer than it
/// saves.
const WIDEST: usize = 640;
/// From this operator set version on, the lengths of a `Split` are an input.
const OPERATORS: i64 = 13;

/// Rewrites every such layer, and returns their number.
pub fn rewrite(source: &IndexedGraph<'_>, facts: &TensorFacts, edits: &mut Edits) -> usize {
    if source.graph().opsets.get("").is_none_or(|&version| version < OPERATORS) {
        return 0;
    }
    let mut sites = Vec::new();
    for (at, product) in source.nodes.iter().enumerate() {
        if let Some(layer) = Layer::find(source, facts, at, product)
            && !edits.is_replaced(layer.at)
        {
            let nodes = layer.nodes(source, edits);
            edits.replace(layer.at, nodes);
            sites.push((layer.at, layer.whole));
        }
    }
    edits.retain_useful(source, sites)
}

/// A product with stored weights, and its bias.
#[derive(Clone, Copy)]
struct Linear<'s> {
    weights: &'s str,
    bias: Option<&'s str>,
}

/// One layer.
struct Layer<'s> {
    /// The index of the node that computes the layer's output.
    at: usize,
    output: &'s str,
    /// `[batch, tokens, width]`
    x: &'s str,
    /// The first product, both halves.
    first: Linear<'s>,
    second: Linear<'s>,
    /// The output of the first product, both halves.
    whole: &'s str,
    /// Its halves.
    halves: [&'s str; 2],
    /// The nodes between the halves and the second product, in order, and the output of the last.
    between: Vec<&'s NodeProto>,
    gated: &'s str,
    /// The width of a half.
    half: usize,
    /// The number of tokens of each part, if there are several.
    parts: Vec<usize>,
}

impl<'s> Layer<'s> {
    /// Finds the layer whose second product this node is.
    fn find(source: &'s IndexedGraph<'_>, facts: &TensorFacts, at: usize, product: &'s NodeProto) -> Option<Self> {
        let gated = input(product, 0).filter(|_| is(product, "MatMul"))?;
        let weights = input(product, 1).filter(|name| is_matrix(source, facts, name))?;
        source.only_reader(gated)?;
        let (between, halves) = between(source, facts, gated)?;
        if facts.shape(gated)? != facts.shape(halves[0])? {
            return None;
        }
        let [(whole, 0), (other, 1)] = [half(source, facts, halves[0])?, half(source, facts, halves[1])?] else {
            return None;
        };
        if whole != other {
            return None;
        }
        let (x, first) = linear(source, facts, whole)?;
        let shape = facts.shape(x).filter(|shape| shape.len() == 3)?;
        let length = |at: usize| usize::try_from(shape.get(at)?.number()?).ok();
        let widths = facts.shape(first.weights)?;
        let twice = usize::try_from(widths.get(1)?.number()?).ok().filter(|width| width.is_multiple_of(2))?;
        let is_as_wide = |bias: &str| facts.shape(bias).is_some_and(|shape| shape == &widths[1..]);
        if first.bias.is_some_and(|bias| !is_as_wide(bias)) {
            return None;
        }
        let parts = match (length(1), length(2)) {
            (Some(tokens), Some(width)) if tokens >= 2 * TOKENS && width <= WIDEST => {
                let count = (tokens / TOKENS).min(MOST_PARTS);
                (0..count).map(|part| tokens / count + usize::from(part < tokens % count)).collect()
            }
            _ => Vec::new(),
        };
        let made = output(product)?;
        let sum = source.only_reader(made).and_then(|(at, sum)| Some((at, sum, added(source, facts, sum, made)?)));
        let (at, output, bias) = match sum {
            Some((at, sum, bias)) => (at, output(sum)?, Some(bias)),
            None => (at, made, None),
        };
        let second = Linear { weights, bias };
        Some(Self { at, output, x, first, second, whole, halves, between, gated, half: twice / 2, parts })
    }

    fn nodes(&self, source: &IndexedGraph<'_>, edits: &mut Edits) -> Vec<NodeProto> {
        let mut nodes = Vec::new();
        let split = |edits: &mut Edits, nodes: &mut Vec<NodeProto>, name: &str, lengths: &[usize], axis: i64| {
            let list: Vec<i64> = lengths.iter().map(|&length| length as i64).collect();
            let list = edits.list(source, &list);
            let parts: Vec<String> = lengths.iter().map(|_| edits.name(source, "feed_forward")).collect();
            let first = parts.first().map_or("", String::as_str);
            let made = node("Split", &[name, &list], first, vec![int("axis", axis)]);
            nodes.push(NodeProto { output: parts.clone(), ..made });
            parts
        };
        let halves = [self.half; 2];
        let weights = split(edits, &mut nodes, self.first.weights, &halves, 1);
        let biases = self.first.bias.map(|bias| split(edits, &mut nodes, bias, &halves, 0));
        let parts = match self.parts.as_slice() {
            [] => vec![self.x.to_owned()],
            lengths => split(edits, &mut nodes, self.x, lengths, 1),
        };
        let is_whole = parts.len() == 1;
        let mut made = Vec::new();
        for part in &parts {
            let mut names: HashMap<&str, String> = HashMap::new();
            for (at, (half, weights)) in self.halves.into_iter().zip(&weights).enumerate() {
                let bias = biases.as_ref().and_then(|biases| biases.get(at)).map(String::as_str);
                let product = edits.name(source, "feed_forward");
                names.insert(half, self.linear(part, Linear { weights, bias }, product, source, edits, &mut nodes));
            }
            for between in &self.between {
                let own = |name: &String| names.get(name.as_str()).unwrap_or(name).clone();
                let input = between.input.iter().map(own).collect();
                let Some(out) = output(between) else { continue };
                let name = edits.name(source, "feed_forward");
                let of_name = format!("{name}/{}", between.op_type);
                nodes.push(NodeProto { input, output: vec![name.clone()], name: of_name, ..(*between).clone() });
                names.insert(out, name);
            }
            let Some(gated) = names.remove(self.gated) else { continue };
            let out = if is_whole { self.output.to_owned() } else { edits.name(source, "feed_forward") };
            made.push(self.linear(&gated, self.second, out, source, edits, &mut nodes));
        }
        if !is_whole {
            let parts: Vec<&str> = made.iter().map(String::as_str).collect();
            nodes.push(node("Concat", &parts, self.output, vec![int("axis", 1)]));
        }
        nodes
    }

    /// Appends a product and a sum that compute `out`.
    fn linear(
        &self,
        x: &str,
        linear: Linear<'_>,
        out: String,
        source: &IndexedGraph<'_>,
        edits: &mut Edits,
        nodes: &mut Vec<NodeProto>,
    ) -> String {
        let Some(bias) = linear.bias else {
            nodes.push(node("MatMul", &[x, linear.weights], &out, Vec::new()));
            return out;
        };
        let product = edits.name(source, "feed_forward");
        nodes.push(node("MatMul", &[x, linear.weights], &product, Vec::new()));
        nodes.push(node("Add", &[&product, bias], &out, Vec::new()));
        out
    }
}

/// Returns the nodes between two tensors and an elementwise combination of both, in order, and the two tensors in the
/// order of their first use.
fn between<'s>(
    source: &'s IndexedGraph<'_>,
    facts: &TensorFacts,
    made: &'s str,
) -> Option<(Vec<&'s NodeProto>, [&'s str; 2])> {
    const BY_VALUE: [&str; 5] = ["Add", "Mul", "Div", "Erf", "Gelu"];
    /// A decomposed gate has six.
    const MOST: usize = 16;
    let (mut found, mut ends) = (Vec::new(), Vec::new());
    let mut open = vec![made];
    while let Some(name) = open.pop() {
        let maker = source.maker_index(name).and_then(|at| Some((at, source.nodes.get(at)?)));
        match maker.filter(|(_, node)| BY_VALUE.iter().any(|operator| is(node, operator)) && output(node).is_some()) {
            Some((at, node)) if !found.contains(&at) => {
                found.push(at);
                open.extend(node.input.iter().map(String::as_str).filter(|name| facts.scalar(name).is_none()));
            }
            Some(_) => {}
            None if !ends.contains(&name) => ends.push(name),
            None => {}
        }
        if found.len() > MOST || ends.len() > 2 {
            return None;
        }
    }
    found.sort_unstable();
    let nodes: Vec<&NodeProto> = found.iter().filter_map(|&at| source.nodes.get(at)).collect();
    let mut ends = <[&str; 2]>::try_from(ends).ok()?;
    if half(source, facts, ends[0])?.1 == 1 {
        ends.reverse();
    }
    (!nodes.is_empty()).then_some((nodes, ends))
}

/// Returns the tensor of which a tensor is one half along the last axis, and the index of that half.
pub(super) fn half<'s>(source: &'s IndexedGraph<'_>, facts: &TensorFacts, name: &str) -> Option<(&'s str, usize)> {
    let maker = source.maker(name)?;
    let whole = input(maker, 0)?;
    let shape = facts.shape(whole)?;
    let length = shape.last()?.number()?;
    let is_last = |axis: i64| axis == -1 || axis == shape.len() as i64 - 1;
    if facts.shape(name)?.last()?.number()?.checked_mul(2)? != length {
        return None;
    }
    if is(maker, "Split") && maker.output.len() == 2 && is_last(int_of(maker, "axis").unwrap_or(0)) {
        return Some((whole, maker.output.iter().position(|out| out == name)?));
    }
    if !is(maker, "Slice") {
        return None;
    }
    let [start, axis] = [1, 3].map(|at| input(maker, at).and_then(|name| facts.scalar(name)));
    let by_one = input(maker, 4).is_none_or(|step| facts.scalar(step) == Some(1.0));
    if !by_one || !is_last(axis? as i64) {
        return None;
    }
    match start? as i64 {
        0 => Some((whole, 0)),
        start if start == length / 2 || start == -(length / 2) => Some((whole, 1)),
        _ => None,
    }
}

/// Returns the input of the product that computes a tensor, with its weights and bias.
fn linear<'s>(source: &'s IndexedGraph<'_>, facts: &TensorFacts, made: &'s str) -> Option<(&'s str, Linear<'s>)> {
    let maker = source.maker(made)?;
    let (product, bias) = match is(maker, "Add") {
        false => (maker, None),
        true => {
            let is_product = |name: &&str| source.maker(name).is_some_and(|node| is(node, "MatMul"));
            let product = maker.input.iter().map(String::as_str).find(is_product)?;
            (source.maker(product)?, Some(added(source, facts, maker, product)?))
        }
    };
    let x = input(product, 0).filter(|_| is(product, "MatMul"))?;
    let weights = input(product, 1).filter(|name| is_matrix(source, facts, name))?;
    Some((x, Linear { weights, bias }))
}

/// Returns the stored vector that a node adds to `product`.
fn added<'s>(source: &IndexedGraph<'_>, facts: &TensorFacts, sum: &'s NodeProto, product: &str) -> Option<&'s str> {
    let bias = sum.input.iter().map(String::as_str).find(|name| *name != product).filter(|_| is(sum, "Add"))?;
    let is_vector = facts.shape(bias).is_some_and(|shape| shape.len() == 1);
    (is_vector && source.is_constant(bias)).then_some(bias)
}

/// Returns true if a tensor is stored, or computed from stored ones alone, and is a matrix.
fn is_matrix(source: &IndexedGraph<'_>, facts: &TensorFacts, name: &str) -> bool {
    facts.shape(name).is_some_and(|shape| shape.len() == 2) && source.is_constant(name)
}
