//! Puts the operators of [`kernels`](crate::kernels) into a graph.
//!
//! It works on a graph that ONNX Runtime has folded, whose shapes are all known. Nodes are recognized by what they compute;
//! those that one operator replaces are a [`FusedNodes`]. Images are then kept with their channels last, and what
//! products read is written in the operands' type by whatever makes it (`emit`). All else stays as it is.

mod activation;
mod emit;
mod forms;
mod fused;
mod heads;
mod layout;
mod norm;
mod product;
mod rms;
mod rotary;
mod site;
mod weights;

use std::collections::BTreeMap;
use std::path::Path;

use emit::Emitter;
use fused::{Fused, FusedNodes};
pub(super) use product::FEWEST_ROWS;
use site::Site;
use weights::WeightWriter;

use super::axis_names::axis_name;
use super::facts::TensorFacts;
use super::indexed_graph::IndexedGraph;
use super::pass::OperatorChoice;
use crate::bundle::GraphFile;
use crate::bundle::proto::ValueInfoProto;
use crate::error::{Error, Result};
use crate::kernels::OwnOperator;

/// A graph with operators of our own.
#[derive(Debug, Clone, PartialEq)]
pub struct WithOperators {
    /// The .onnx file, whose weights are all in the new file of weights or within it.
    pub bytes: Vec<u8>,
    /// Multiplications that are in our operators, and all.
    pub coverage: Coverage,
    /// The places at which each operator is found.
    pub places: BTreeMap<OwnOperator, usize>,
}

/// The multiplications of a graph, infinitely many where the shapes of some are not known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Coverage {
    /// Those in operators of our own.
    pub own: f64,
    /// Those of them in the type that is asked for, without attention with a mask.
    pub as_asked: f64,
    /// All.
    pub all: f64,
}

impl Coverage {
    /// True if operators of our own have at least half of them, and not all of those stay in a higher precision than
    /// the one that is asked for.
    pub fn is_most(self) -> bool {
        self.all.is_finite() && 2.0 * self.own >= self.all && self.as_asked > 0.0
    }
}

/// Puts the operators into a graph, and writes all of its weights to the file `weights`; `None`, without that file, if there
/// is no place for an operator.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read or written; [`Error::Model`] if the graph
/// changed since it was opened.
pub fn with_operators(graph: &GraphFile, choice: OperatorChoice, weights: &Path) -> Result<Option<WithOperators>> {
    let source = IndexedGraph::open(graph)?;
    if !source.is_sorted {
        return Ok(None);
    }
    let free = free_tokens(&source);
    let facts = TensorFacts::infer_with_axes(&source, &free);
    let site = Site { source: &source, facts: &facts };
    let groups = groups(site);
    if !groups.iter().any(|group| matches!(group.fused, Fused::Product(_))) {
        return Ok(None);
    }
    let coverage = coverage(site, &groups, choice);
    let mut places = BTreeMap::new();
    for group in &groups {
        *places.entry(group.fused.operator()).or_default() += 1;
    }
    let mut writer = WeightWriter::create(weights)?;
    let (bytes, lengths) = Emitter::new(site, groups, choice, &mut writer).run()?;
    writer.finish()?;
    if !free.is_empty() && lengths.iter().any(|&length| length > 0 && length.is_multiple_of(TOKENS)) {
        std::fs::remove_file(weights).map_err(|e| Error::io(weights, "removing", e))?;
        return Ok(None);
    }
    Ok(Some(WithOperators { bytes, coverage, places }))
}

/// The length that stands for a free number of tokens: one that no other axis has.
const TOKENS: usize = 1009;

/// The inputs' axes of tokens that are free, since long prompts are read in any number of chunks. Operators take their
/// lengths from the tensors, so that a graph that does not hold a number of tokens is the same for any.
fn free_tokens(source: &IndexedGraph<'_>) -> Vec<(String, usize)> {
    let axis = |info: &ValueInfoProto| {
        let [_, tokens, _] = info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?.dim.as_slice() else {
            return None;
        };
        let name = if tokens.dim_param.is_empty() { axis_name(&info.name, 1) } else { tokens.dim_param.clone() };
        (tokens.dim_value <= 0).then_some((name, TOKENS))
    };
    source.inputs.iter().filter_map(axis).collect()
}

/// Finds all groups. A node belongs to the first that claims it.
fn groups<'s>(site: Site<'s>) -> Vec<FusedNodes<'s>> {
    let mut taken = vec![false; site.source.nodes.len()];
    let mut groups = Vec::new();
    for find in [heads::find, norm::find, product::find] {
        for (at, node) in site.source.nodes.iter().enumerate() {
            if taken[at] {
                continue;
            }
            if let Some(group) = find(site, at, node, &taken)
                && group.nodes.iter().all(|&node| !taken[node])
            {
                group.nodes.iter().for_each(|&node| taken[node] = true);
                groups.push(group);
            }
        }
    }
    groups
}

/// Counts the multiplications of products and attention.
fn coverage(site: Site<'_>, groups: &[FusedNodes<'_>], choice: OperatorChoice) -> Coverage {
    let count = |at: usize| {
        let node = &site.source.nodes[at];
        let of = |at: usize| node.input.get(at).and_then(|name| site.lengths(name));
        let made = || node.output.first().and_then(|name| site.lengths(name)).map(|own| Site::count(&own) as f64);
        let known = match node.op_type.as_str() {
            "Conv" => of(1).zip(made()).map(|(weights, made)| Site::count(&weights[1..]) as f64 * made),
            "MatMul" => {
                of(0).and_then(|left| left.last().copied()).zip(made()).map(|(depth, made)| depth as f64 * made)
            }
            "Gemm" => of(1).zip(of(0)).map(|(weights, left)| Site::count(&weights) as f64 * left[0] as f64),
            "MultiHeadAttention" => of(0)
                .zip(of(1).and_then(|keys| keys.get(1).copied()))
                .map(|(queries, keys)| 2.0 * Site::count(&queries) as f64 * keys as f64),
            _ => Some(0.0),
        };
        known.unwrap_or(f64::INFINITY)
    };
    let is_as_asked = |group: &FusedNodes<'_>| match &group.fused {
        Fused::Product(product) => product.is_as_asked(choice),
        _ if choice.linear_in_int8 => false,
        // Attention to the few tokens of a prompt alone makes no denoiser one in bf16.
        Fused::Attention(attention) => attention.mask.is_none(),
        _ => true,
    };
    let (mut own, mut as_asked) = (0.0, 0.0);
    for group in groups {
        let of_group: f64 = group.nodes.iter().map(|&at| count(at)).sum();
        own += of_group;
        as_asked += if is_as_asked(group) { of_group } else { 0.0 };
    }
    Coverage { own, as_asked, all: (0..site.source.nodes.len()).map(count).sum() }
}
