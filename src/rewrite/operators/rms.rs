//! Normalization by the root mean square of the last axis, in the forms in which exporters write it.

use super::site::Site;
use crate::bundle::proto::NodeProto;
use crate::rewrite::indexed_graph::{attribute, input, int, ints, is, output};

/// The nodes of a normalization.
#[derive(Debug, Clone)]
pub struct RmsNorm<'s> {
    /// The tensor that is normalized.
    pub input: &'s str,
    /// Added to the mean of squares.
    pub epsilon: f32,
    /// The stored factors of the last axis.
    pub scale: Option<&'s str>,
    /// The indices of its nodes.
    pub nodes: Vec<usize>,
    /// The result.
    pub output: &'s str,
}

/// Finds the normalization that a node is the core of: an operator of its own, or a mean of squares.
pub fn find<'s>(site: Site<'s>, at: usize, node: &'s NodeProto) -> Option<RmsNorm<'s>> {
    let is_whole = is(node, "RMSNormalization") || is(node, "SimplifiedLayerNormalization");
    let norm = if is_whole { by_operator(site, at, node)? } else { by_mean(site, at, node)? };
    site.is_float(norm.input).then_some(norm)
}

/// Finds the normalization that makes a tensor.
pub fn making<'s>(site: Site<'s>, name: &str) -> Option<RmsNorm<'s>> {
    /// The mean is at most so many nodes before the result.
    const MOST: usize = 6;
    let mut open = vec![name];
    for _ in 0..MOST {
        let makers: Vec<usize> = open.iter().filter_map(|name| site.source.maker_index(name)).collect();
        let made = makers.iter().filter_map(|&at| find(site, at, &site.source.nodes[at]));
        if let Some(norm) = made.into_iter().find(|norm| norm.output == name) {
            return Some(norm);
        }
        open = makers.iter().flat_map(|&at| &site.source.nodes[at].input).map(String::as_str).collect();
    }
    None
}

fn by_operator<'s>(site: Site<'s>, at: usize, node: &'s NodeProto) -> Option<RmsNorm<'s>> {
    let x = input(node, 0)?;
    let lengths = site.lengths(x)?;
    let is_last = int(node, "axis").is_none_or(|axis| axis == -1 || axis == lengths.len() as i64 - 1);
    let scale = input(node, 1).filter(|name| site.is_stored(name, &lengths[lengths.len() - 1..]))?;
    let epsilon = attribute(node, "epsilon").map_or(1e-5, |attribute| attribute.f);
    let made = node.output.first().filter(|_| node.output.iter().skip(1).all(String::is_empty))?;
    is_last.then_some(RmsNorm { input: x, epsilon, scale: Some(scale), nodes: vec![at], output: made })
}

/// `x / sqrt(mean(x · x) + epsilon)`, or times the reciprocal, and then by stored factors.
fn by_mean<'s>(site: Site<'s>, at: usize, node: &'s NodeProto) -> Option<RmsNorm<'s>> {
    let squares = input(node, 0).filter(|_| is(node, "ReduceMean"))?;
    let square = site.source.maker(squares)?;
    let x = input(square, 0).filter(|x| is_square(site, square, x))?;
    let lengths = site.lengths(x)?;
    if !is_over_last(site, node, lengths.len()) {
        return None;
    }
    let mut walk = Walk { site, nodes: vec![site.source.maker_index(squares)?, at], made: output(node)? };
    site.only_reader(squares)?;
    let epsilon = site.facts.scalar(walk.other("Add")?)? as f32;
    let is_inverse = walk.is_root()?;
    let divides = |node: &NodeProto, made: &str| {
        let (a, b) = (input(node, 0), input(node, 1));
        match is_inverse {
            true => is(node, "Mul") && ((a, b) == (Some(x), Some(made)) || (a, b) == (Some(made), Some(x))),
            false => is(node, "Div") && (a, b) == (Some(x), Some(made)),
        }
    };
    let (last, node) = site.only_reader(walk.made).filter(|(_, node)| divides(node, walk.made))?;
    walk.nodes.push(last);
    walk.made = output(node)?;
    let width = *lengths.last()?;
    let is_scale =
        |name: &&str| site.stored(name).is_some_and(|own| Site::count(&own) == width && own.last() == Some(&width));
    let before = walk.clone();
    let scale = walk.other("Mul").filter(is_scale);
    let Walk { nodes, made, .. } = if scale.is_some() { walk } else { before };
    Some(RmsNorm { input: x, epsilon, scale, nodes, output: made })
}

fn is_square(site: Site<'_>, node: &NodeProto, x: &str) -> bool {
    let other = input(node, 1);
    is(node, "Mul") && other == Some(x)
        || is(node, "Pow") && other.and_then(|power| site.facts.scalar(power)) == Some(2.0)
}

/// True for a mean of the last axis that keeps it.
fn is_over_last(site: Site<'_>, node: &NodeProto, rank: usize) -> bool {
    let axis = match (ints(node, "axes"), input(node, 1)) {
        (Some([axis]), None) => Some(*axis as f64),
        (None, Some(axes)) => site.facts.scalar(axes),
        _ => None,
    };
    let is_last = axis.is_some_and(|axis| axis == -1.0 || axis == rank as f64 - 1.0);
    is_last && int(node, "keepdims").unwrap_or(1) == 1
}

/// Follows the only readers of a tensor.
#[derive(Clone)]
struct Walk<'s> {
    site: Site<'s>,
    nodes: Vec<usize>,
    made: &'s str,
}

impl<'s> Walk<'s> {
    fn take(&mut self, at: usize, node: &'s NodeProto) -> Option<()> {
        self.nodes.push(at);
        self.made = output(node)?;
        Some(())
    }

    /// The other operand of the reader, if that is this operator.
    fn other(&mut self, operator: &str) -> Option<&'s str> {
        let (at, other) = self.site.other_operand(self.made, operator)?;
        self.take(at, &self.site.source.nodes[at])?;
        Some(other)
    }

    /// Takes the nodes of a square root, and says if its reciprocal is what they compute.
    fn is_root(&mut self) -> Option<bool> {
        let site = self.site;
        let scalar = |name: Option<&str>| name.and_then(|name| site.facts.scalar(name));
        let (at, node) = site.only_reader(self.made)?;
        self.take(at, node)?;
        if is(node, "Pow") && scalar(input(node, 1)) == Some(-0.5) {
            return Some(true);
        }
        if !is(node, "Sqrt") {
            return None;
        }
        let (at, node) = site.only_reader(self.made)?;
        let is_inverse = is(node, "Reciprocal") || is(node, "Div") && scalar(input(node, 0)) == Some(1.0);
        if is_inverse {
            self.take(at, node)?;
        }
        Some(is_inverse)
    }
}
