//! Finds what is done to each head of queries and keys before attention: RMS normalization, rotary embedding, and joining two
//! sequences.

use super::fused::{Fused, FusedHeadNorm, FusedHeadRows, FusedNodes, FusedRotary};
use super::rms::{self, RmsNorm};
use super::rotary::{self, HeadOrder};
use super::site::Site;
use crate::bundle::proto::NodeProto;
use crate::rewrite::edits::MICROSOFT;
use crate::rewrite::indexed_graph::{input, int, ints, is, output};

/// Finds the operator that makes queries or keys, from the node which joins heads for the attention.
pub fn find<'s>(site: Site<'s>, at: usize, node: &'s NodeProto, _taken: &[bool]) -> Option<FusedNodes<'s>> {
    let joined = output(node).filter(|_| is(node, "Reshape"))?;
    let is_attention = |node: &NodeProto| node.op_type == "MultiHeadAttention" && node.domain == MICROSOFT;
    let reads = |&reader: &usize| {
        let node = &site.source.nodes[reader];
        is_attention(node) && [0, 1].iter().any(|&place| input(node, place) == Some(joined))
    };
    site.source.readers(joined).iter().any(reads).then_some(())?;
    let lengths = site.lengths(joined)?;
    let heads = site.lengths(input(node, 0)?)?;
    let is_apart = heads.len() > 3 && lengths.len() == 3 && heads[..2] == lengths[..2];
    (is_apart && Site::count(&heads) == Site::count(&lengths)).then_some(())?;
    let mut trace = Trace { site, nodes: vec![at], name: input(node, 0)?, order: HeadOrder::RowsFirst };
    let (rotary, sequences) = (trace.rotary(), trace.sequences()?);
    let norms = || sequences.iter().map(|sequence| sequence.norm.as_ref());
    let epsilon = norms().next()?.map(|norm| norm.epsilon);
    let is_alike = norms().all(|norm| norm.map(|norm| norm.epsilon) == epsilon);
    if !is_alike || (epsilon.is_none() && rotary.is_none()) {
        return None;
    }
    let of_sequence = |sequence: &Sequence<'s>| {
        let rows = FusedHeadRows { rows: sequence.name, scale: sequence.norm.as_ref().and_then(|norm| norm.scale) };
        site.is_float(rows.rows).then_some(rows)
    };
    let sequences = sequences.iter().map(of_sequence).collect::<Option<Vec<_>>>()?;
    let mut nodes = trace.nodes;
    nodes.sort_unstable();
    nodes.dedup();
    is_closed(site, &nodes, at).then_some(())?;
    let norm = FusedHeadNorm { sequences, epsilon, rotary };
    Some(FusedNodes { fused: Fused::HeadNorm(norm), nodes, output: joined })
}

/// True if nothing but the nodes reads what they compute, except the last one's.
fn is_closed(site: Site<'_>, nodes: &[usize], last: usize) -> bool {
    let made = nodes.iter().filter(|&&at| at != last).flat_map(|&at| &site.source.nodes[at].output);
    made.filter(|name| !name.is_empty())
        .all(|name| site.source.is_inner(name) && site.source.readers(name).iter().all(|reader| nodes.contains(reader)))
}

/// One of the sequences.
struct Sequence<'s> {
    /// Its rows, `[batch, rows, heads, width]`.
    name: &'s str,
    norm: Option<RmsNorm<'s>>,
}

/// Goes back from queries or keys.
struct Trace<'s> {
    site: Site<'s>,
    nodes: Vec<usize>,
    name: &'s str,
    order: HeadOrder,
}

impl<'s> Trace<'s> {
    /// Takes a node that exchanges rows and heads.
    fn exchange(&mut self) {
        if let Some((at, node)) = self.maker().filter(|(_, node)| is(node, "Transpose"))
            && ints(node, "perm") == Some(&[0, 2, 1, 3])
            && let Some(name) = input(node, 0)
        {
            self.nodes.push(at);
            self.name = name;
            self.order = self.order.exchanged();
        }
    }

    fn maker(&self) -> Option<(usize, &'s NodeProto)> {
        let at = self.site.source.maker_index(self.name)?;
        Some((at, self.site.source.nodes.get(at)?))
    }

    fn rotary(&mut self) -> Option<FusedRotary<'s>> {
        self.exchange();
        let found = rotary::making(self.site, self.name, self.order)?;
        self.name = found.input;
        self.nodes.extend(found.nodes);
        let rotary::RotaryNodes { cosines, sines, pairs, is_by_pair, .. } = found;
        Some(FusedRotary { cosines, sines, pairs, is_by_pair })
    }

    fn norm(&mut self) -> Option<RmsNorm<'s>> {
        self.exchange();
        let norm = rms::making(self.site, self.name)?;
        self.name = norm.input;
        self.nodes.extend(&norm.nodes);
        self.exchange();
        Some(norm)
    }

    /// The sequences, each with its normalization.
    fn sequences(&mut self) -> Option<Vec<Sequence<'s>>> {
        let norm = self.norm();
        let joint = self.maker().filter(|(_, node)| norm.is_none() && is(node, "Concat"));
        let sequences = match joint {
            Some((at, node)) if int(node, "axis") == Some(self.order.rows() as i64) && node.input.len() == 2 => {
                self.nodes.push(at);
                let order = self.order;
                let mut sequences = Vec::new();
                for name in &node.input {
                    (self.name, self.order) = (name, order);
                    let norm = self.norm();
                    sequences.push((Sequence { name: self.name, norm }, self.order));
                }
                sequences
            }
            _ => vec![(Sequence { name: self.name, norm }, self.order)],
        };
        let has_rows_first = sequences.iter().all(|(_, order)| *order == HeadOrder::RowsFirst);
        has_rows_first.then(|| sequences.into_iter().map(|(sequence, _)| sequence).collect())
    }
}
