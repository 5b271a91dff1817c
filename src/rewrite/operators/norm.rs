//! Finds normalizations and attention.

use super::activation;
use super::fused::{Fused, FusedAttention, FusedGroupNorm, FusedNodes, FusedRowNorm};
use super::rms::{self, RmsNorm};
use super::site::Site;
use crate::bundle::proto::NodeProto;
use crate::kernels::Activation;
use crate::rewrite::edits::MICROSOFT;
use crate::rewrite::indexed_graph::{attribute, input, int, is, output};

/// Finds the normalization or attention that a node is the core of.
pub fn find<'s>(site: Site<'s>, at: usize, node: &'s NodeProto, taken: &[bool]) -> Option<FusedNodes<'s>> {
    match node.op_type.as_str() {
        "InstanceNormalization" if is(node, "InstanceNormalization") => by_instance(site, at, node),
        "GroupNormalization" if is(node, "GroupNormalization") => by_group(site, at, node),
        "LayerNormalization" => by_row(site, node).map(|(norm, made)| modulated(site, norm, vec![at], made, taken)),
        "Mul" if is(node, "Mul") => again(site, at, node, taken),
        "MultiHeadAttention" if node.domain == MICROSOFT => attention(site, at, node),
        _ => rms::find(site, at, node)
            .map(|norm| modulated(site, by_root(&norm), norm.nodes.clone(), norm.output, taken)),
    }
}

/// The form of exporters before operator set 21: images reshaped to `[batch, groups, …]`, normalized, reshaped back, and
/// then scaled and shifted by channel.
fn by_instance<'s>(site: Site<'s>, at: usize, node: &'s NodeProto) -> Option<FusedNodes<'s>> {
    let folded = input(node, 0)?;
    let (before, fold) = (site.source.maker_index(folded)?, site.source.maker(folded)?);
    let image = input(fold, 0).filter(|_| is(fold, "Reshape"))?;
    let lengths = site.lengths(image).filter(|lengths| lengths.len() == 4)?;
    let groups = site.lengths(folded).filter(|folded| folded[0] == lengths[0])?[1];
    let is_plain = site.is_all(input(node, 1)?, 1.0) && site.is_all(input(node, 2)?, 0.0);
    let (unfold_at, unfold) = site.only_reader(output(node)?).filter(|(_, node)| is(node, "Reshape"))?;
    site.only_reader(folded)?;
    let mut made = output(unfold)?;
    if !is_plain || site.lengths(made)? != lengths || !site.is_float(image) || groups == 0 {
        return None;
    }
    let mut nodes = vec![before, at, unfold_at];
    let mut by_channel = |operator: &str| {
        let (at, node) = site.only_reader(made).filter(|(_, node)| is(node, operator))?;
        let (a, b) = (input(node, 0)?, input(node, 1)?);
        let other = if a == made { b } else { a };
        let stored = site.stored(other)?;
        (Site::count(&stored) == lengths[1] && stored.contains(&lengths[1]) && stored.ends_with(&[1, 1]))
            .then_some(())?;
        nodes.push(at);
        made = output(node)?;
        Some(other)
    };
    let (scale, shift) = (by_channel("Mul")?, by_channel("Add")?);
    let norm =
        FusedGroupNorm { input: image, groups, epsilon: epsilon(node), scale, shift, activation: Activation::Identity };
    Some(activated(site, norm, nodes, made))
}

fn by_group<'s>(site: Site<'s>, at: usize, node: &'s NodeProto) -> Option<FusedNodes<'s>> {
    let (image, scale, shift) = (input(node, 0)?, input(node, 1)?, input(node, 2)?);
    let lengths = site.lengths(image).filter(|lengths| lengths.len() == 4)?;
    // Before operator set 21, scale and shift were by group.
    let is_by_channel = |name: &str| site.is_stored(name, &[lengths[1]]);
    let groups =
        int(node, "num_groups").and_then(|groups| usize::try_from(groups).ok()).filter(|groups| *groups > 0)?;
    if !is_by_channel(scale) || !is_by_channel(shift) || !site.is_float(image) {
        return None;
    }
    let norm =
        FusedGroupNorm { input: image, groups, epsilon: epsilon(node), scale, shift, activation: Activation::Identity };
    Some(activated(site, norm, vec![at], output(node)?))
}

fn activated<'s>(
    site: Site<'s>,
    mut norm: FusedGroupNorm<'s>,
    mut nodes: Vec<usize>,
    mut made: &'s str,
) -> FusedNodes<'s> {
    if let Some(found) = activation::find(site, made) {
        norm.activation = found.activation;
        nodes.extend(found.nodes);
        made = found.output;
    }
    nodes.sort_unstable();
    FusedNodes { fused: Fused::GroupNorm(norm), nodes, output: made }
}

/// Normalization of rows by an operator of its own, and its result.
fn by_row<'s>(site: Site<'s>, node: &'s NodeProto) -> Option<(FusedRowNorm<'s>, &'s str)> {
    let rows = input(node, 0).filter(|_| is(node, "LayerNormalization"))?;
    let lengths = site.lengths(rows)?;
    let width = *lengths.last()?;
    let is_last = int(node, "axis").is_none_or(|axis| axis == -1 || axis == lengths.len() as i64 - 1);
    let (scale, shift) = (input(node, 1), input(node, 2));
    let fits = |name: Option<&str>| name.is_none_or(|name| site.is_stored(name, &[width]));
    if !is_last || !fits(scale) || !fits(shift) || !site.is_float(rows) {
        return None;
    }
    let norm = FusedRowNorm {
        input: rows,
        epsilon: epsilon(node),
        centers: true,
        scale: scale.filter(|name| !site.is_all(name, 1.0)),
        modulation: None,
        shift: shift.filter(|name| !site.is_all(name, 0.0)),
    };
    let made = node.output.first().filter(|_| node.output.iter().skip(1).all(|name| name.is_empty()))?;
    Some((norm, made))
}

fn by_root<'s>(rms: &RmsNorm<'s>) -> FusedRowNorm<'s> {
    let RmsNorm { input, epsilon, scale, .. } = *rms;
    FusedRowNorm { input, epsilon, centers: false, scale, modulation: None, shift: None }
}

/// The first node of adaptive normalization that follows one that other nodes read as well. It is computed anew for each: that
/// takes less than the modulation by itself, which reads and writes as much.
fn again<'s>(site: Site<'s>, at: usize, node: &'s NodeProto, taken: &[bool]) -> Option<FusedNodes<'s>> {
    let of = |place: usize| {
        let name = input(node, place).filter(|name| site.source.readers(name).len() > 1)?;
        let own = by_row(site, site.source.maker(name)?).filter(|(_, made)| *made == name);
        let norm = own.map(|(norm, _)| norm).or_else(|| rms::making(site, name).map(|rms| by_root(&rms)))?;
        let (factors, made) = row_beside(site, &norm, name, at)?;
        let modulated = FusedRowNorm { modulation: Some(factors), ..norm };
        norm.shift.is_none().then(|| with_offsets(site, modulated, vec![at], made, taken))
    };
    (0..2).find_map(of)
}

/// Takes the factors and offsets of adaptive normalization, which follow it.
fn modulated<'s>(
    site: Site<'s>,
    mut norm: FusedRowNorm<'s>,
    mut nodes: Vec<usize>,
    mut made: &'s str,
    taken: &[bool],
) -> FusedNodes<'s> {
    if norm.shift.is_none() {
        norm.modulation = follow(site, "Mul", &norm, &mut nodes, &mut made, taken);
    }
    with_offsets(site, norm, nodes, made, taken)
}

fn with_offsets<'s>(
    site: Site<'s>,
    mut norm: FusedRowNorm<'s>,
    mut nodes: Vec<usize>,
    mut made: &'s str,
    taken: &[bool],
) -> FusedNodes<'s> {
    if norm.shift.is_none() {
        norm.shift = follow(site, "Add", &norm, &mut nodes, &mut made, taken);
    }
    nodes.sort_unstable();
    FusedNodes { fused: Fused::RowNorm(norm), nodes, output: made }
}

/// Takes the only reader of `made`, if it is this operator with a row, and returns the row.
fn follow<'s>(
    site: Site<'s>,
    operator: &str,
    norm: &FusedRowNorm<'s>,
    nodes: &mut Vec<usize>,
    made: &mut &'s str,
    taken: &[bool],
) -> Option<&'s str> {
    let (at, _) = site.other_operand(made, operator).filter(|(at, _)| !taken[*at])?;
    let (row, after) = row_beside(site, norm, made, at)?;
    nodes.push(at);
    *made = after;
    Some(row)
}

/// The row that a node adds to a normalized tensor or multiplies it by, for all images or for each, and the result.
fn row_beside<'s>(site: Site<'s>, norm: &FusedRowNorm<'s>, made: &str, at: usize) -> Option<(&'s str, &'s str)> {
    let node = site.source.nodes.get(at)?;
    let lengths = site.lengths(norm.input)?;
    let batch = if lengths.len() > 2 { lengths[0] } else { 1 };
    let other = if input(node, 0)? == made { input(node, 1)? } else { input(node, 0)? };
    let is_row = other != made && site.is_row_by_image(other, batch, lengths.len(), *lengths.last()?);
    is_row.then_some((other, output(node)?))
}

fn attention<'s>(site: Site<'s>, at: usize, node: &'s NodeProto) -> Option<FusedNodes<'s>> {
    let mut others = node.input.iter().enumerate().skip(3);
    let is_plain = others.all(|(place, name)| name.is_empty() || place == MASK)
        && node
            .attribute
            .iter()
            .all(|a| matches!(a.name.as_str(), "num_heads" | "scale") || a.name == "unidirectional" && a.i == 0);
    let operands = [input(node, 0)?, input(node, 1)?, input(node, 2)?];
    let lengths = operands.map(|name| site.lengths(name));
    let [Some(queries), Some(keys), Some(values)] = lengths else { return None };
    let heads = usize::try_from(int(node, "num_heads")?).ok().filter(|heads| *heads > 0)?;
    let (&[batch, _, width], &[key_batch, _, key_width]) = (queries.as_slice(), keys.as_slice()) else { return None };
    let fits = batch == key_batch && width == key_width && keys == values && width.is_multiple_of(heads);
    if !is_plain || !fits || !operands.iter().all(|name| site.is_float(name)) {
        return None;
    }
    let own = attribute(node, "scale").map_or(0.0, |attribute| attribute.f);
    let scale = if own == 0.0 { 1.0 / ((width / heads) as f32).sqrt() } else { own };
    let (mask, mut nodes) = match input(node, MASK) {
        Some(wide) => {
            let (repeat, mask) = key_mask(site, wide, [batch, heads, *keys.get(1)?])?;
            (Some(mask), repeat.into_iter().collect())
        }
        None => (None, Vec::new()),
    };
    nodes.push(at);
    let fused = Fused::Attention(FusedAttention { operands, mask, heads, scale });
    Some(FusedNodes { fused, nodes, output: output(node)? })
}

/// The input that is added to the scores.
const MASK: usize = 5;

/// The mask of each key that a node repeats for each query, with that node if nothing else reads it.
fn key_mask<'s>(site: Site<'s>, wide: &str, lengths: [usize; 3]) -> Option<(Option<usize>, &'s str)> {
    let at = site.source.maker_index(wide)?;
    let mask = input(site.source.nodes.get(at).filter(|node| is(node, "Expand"))?, 0)?;
    let [batch, heads, keys] = lengths;
    let fits = matches!(*site.lengths(mask)?, [b, h, 1, k]
        if [1, batch].contains(&b) && [1, heads].contains(&h) && k == keys);
    (fits && site.is_float(mask)).then(|| (site.only_reader(wide).map(|_| at), mask))
}

fn epsilon(node: &NodeProto) -> f32 {
    attribute(node, "epsilon").map_or(1e-5, |attribute| attribute.f)
}
