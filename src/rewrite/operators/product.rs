//! Finds matrix products and convolutions with stored weights, and what follows them.

use super::activation;
use super::fused::{Fused, FusedNodes, FusedProduct};
use super::site::Site;
use crate::bundle::proto::NodeProto;
use crate::kernels::Activation;
use crate::rewrite::indexed_graph::{attribute, input, int, ints, is, output, text};
use crate::rewrite::subpixel;

/// With fewer rows, a product only reads its weights: ONNX Runtime's own, in float32, is as fast. Such are the products of
/// the time embedding.
pub const FEWEST_ROWS: usize = 8;

/// Finds the product that begins at a node. Nodes that are `taken` belong to other groups.
pub fn find<'s>(site: Site<'s>, at: usize, node: &'s NodeProto, taken: &[bool]) -> Option<FusedNodes<'s>> {
    let made = output(node)?;
    let (mut nodes, product) = match node.op_type.as_str() {
        "Conv" if is(node, "Conv") => convolution(site, node)?,
        "MatMul" if is(node, "MatMul") => (Vec::new(), matrix(site, node)?),
        "Gemm" if is(node, "Gemm") => (Vec::new(), gemm(site, node)?),
        _ => return None,
    };
    nodes.push(at);
    let lengths = site.lengths(made)?;
    let mut walk = Walk { site, taken, product, nodes, output: made, lengths };
    walk.unfold();
    walk.run();
    let Walk { product, mut nodes, output, .. } = walk;
    nodes.sort_unstable();
    Some(FusedNodes { fused: Fused::Product(product), nodes, output })
}

fn convolution<'s>(site: Site<'s>, node: &'s NodeProto) -> Option<(Vec<usize>, FusedProduct<'s>)> {
    let (image, weights) = (input(node, 0)?, input(node, 1)?);
    let holds = |name: &str, value: &[i64]| ints(node, name).is_none_or(|own| own == value);
    let &[columns, depth, height, width] = site.stored(weights)?.as_slice() else { return None };
    let pads = ints(node, "pads").unwrap_or(&[0, 0, 0, 0]);
    let stride = ints(node, "strides").unwrap_or(&[1, 1]);
    let (kernel, stride, offset) = match (height, width, pads, stride) {
        (1, 1, [0, 0, 0, 0], [1, 1]) => (1, 1, 0),
        (3, 3, [1, 1, 1, 1], [1, 1]) => (3, 1, 0),
        (3, 3, [1, 1, 1, 1], [2, 2]) => (3, 2, 0),
        // Odd sides would need one more pixel below and to the right.
        (3, 3, [0, 0, 1, 1], [2, 2]) if site.lengths(image)?[2..].iter().all(|side| side % 2 == 0) => (3, 2, 1),
        _ => return None,
    };
    let is_plain = holds("dilations", &[1, 1])
        && int(node, "group").unwrap_or(1) == 1
        && matches!(text(node, "auto_pad"), None | Some("" | "NOTSET"))
        && site.is_float(image);
    let bias = input(node, 2);
    if !is_plain || !bias.is_none_or(|bias| site.is_stored(bias, &[columns])) {
        return None;
    }
    let mut found = FusedProduct {
        input: image,
        is_image: true,
        weights,
        is_by_depth: false,
        columns,
        depth,
        kernel,
        stride,
        offset,
        upsamples: false,
        bias,
        added: None,
        activation: Activation::Identity,
        is_gated: false,
        gate: None,
        residual: None,
        fold: None,
    };
    let mut nodes = Vec::new();
    if subpixel::is_site(site.source, site.facts, node)
        && let Some((at, resize)) = site.source.maker_index(image).and_then(|at| Some((at, site.source.maker(image)?)))
        && site.only_reader(image).is_some()
    {
        found.input = input(resize, 0)?;
        found.upsamples = true;
        nodes.push(at);
    }
    Some((nodes, found))
}

fn matrix<'s>(site: Site<'s>, node: &'s NodeProto) -> Option<FusedProduct<'s>> {
    let (left, weights) = (input(node, 0)?, input(node, 1)?);
    let &[depth, columns] = site.stored(weights)?.as_slice() else { return None };
    linear(site, left, weights, true, [columns, depth])
}

fn gemm<'s>(site: Site<'s>, node: &'s NodeProto) -> Option<FusedProduct<'s>> {
    let (left, weights) = (input(node, 0)?, input(node, 1)?);
    let is_one = |name: &str| attribute(node, name).is_none_or(|attribute| attribute.f == 1.0);
    let is_by_depth = int(node, "transB").unwrap_or(0) == 0;
    let &[first, second] = site.stored(weights)?.as_slice() else { return None };
    let [depth, columns] = if is_by_depth { [first, second] } else { [second, first] };
    let bias = input(node, 2);
    let is_plain = is_one("alpha") && is_one("beta") && int(node, "transA").unwrap_or(0) == 0;
    if !is_plain || !bias.is_none_or(|bias| site.is_stored(bias, &[columns])) {
        return None;
    }
    Some(FusedProduct { bias, ..linear(site, left, weights, is_by_depth, [columns, depth])? })
}

fn linear<'s>(
    site: Site<'s>,
    left: &'s str,
    weights: &'s str,
    is_by_depth: bool,
    [columns, depth]: [usize; 2],
) -> Option<FusedProduct<'s>> {
    let lengths = site.lengths(left)?;
    let (&last, before) = lengths.split_last()?;
    if last != depth || before.is_empty() || Site::count(before) < FEWEST_ROWS || !site.is_float(left) {
        return None;
    }
    Some(FusedProduct {
        input: left,
        is_image: false,
        weights,
        is_by_depth,
        columns,
        depth,
        kernel: 1,
        stride: 1,
        offset: 0,
        upsamples: false,
        bias: None,
        added: None,
        activation: Activation::Identity,
        is_gated: false,
        gate: None,
        residual: None,
        fold: None,
    })
}

/// Follows the readers of a product's result as long as they belong to the operator.
struct Walk<'s, 't> {
    site: Site<'s>,
    taken: &'t [bool],
    product: FusedProduct<'s>,
    nodes: Vec<usize>,
    output: &'s str,
    lengths: Vec<usize>,
}

impl<'s> Walk<'s, '_> {
    fn run(&mut self) {
        self.bias();
        self.added();
        if !self.gated_unit() {
            self.activation();
        }
        self.gate();
        self.residual();
    }

    /// Takes the reshapes around a `Gemm`, as ONNX Runtime makes it of a product of more axes and a bias.
    fn unfold(&mut self) {
        if self.product.is_image || self.lengths.len() != 2 {
            return;
        }
        let reshape = |node: &&NodeProto| is(node, "Reshape");
        let source = self.site.source;
        let Some(fold_at) = source.maker_index(self.product.input) else { return };
        let Some(rows) = source.nodes.get(fold_at).filter(reshape).and_then(|fold| input(fold, 0)) else { return };
        let Some((at, made)) =
            self.reader().filter(|(_, node)| reshape(node)).and_then(|(at, node)| Some((at, output(node)?)))
        else {
            return;
        };
        let (Some(rows_lengths), Some(lengths)) = (self.site.lengths(rows), self.site.lengths(made)) else { return };
        let as_rows = |own: &[usize]| own.split_last().map(|(last, before)| (*last, before.to_vec()));
        let (Some((depth, before)), Some((columns, after))) = (as_rows(&rows_lengths), as_rows(&lengths)) else {
            return;
        };
        if (depth, columns) == (self.product.depth, self.product.columns) && before == after {
            self.product.input = rows;
            self.product.fold = Some(fold_at);
            self.lengths = lengths;
            self.take(at, made);
        }
    }

    /// The only reader of the output, unless another group has it.
    fn reader(&self) -> Option<(usize, &'s NodeProto)> {
        self.site.only_reader(self.output).filter(|(at, _)| !self.taken[*at])
    }

    /// The other operand of the only reader, if that is a sum or a product of two tensors.
    fn other(&self, operator: &str) -> Option<(usize, &'s str, &'s str)> {
        let (at, other) = self.site.other_operand(self.output, operator).filter(|(at, _)| !self.taken[*at])?;
        Some((at, other, output(&self.site.source.nodes[at])?))
    }

    fn take(&mut self, at: usize, made: &'s str) {
        self.nodes.push(at);
        self.output = made;
    }

    /// True if a tensor has one number for each of some images, or for all, and each column.
    fn is_by_image(&self, name: &str) -> bool {
        let Some(lengths) = self.site.lengths(name) else { return false };
        let (batch, columns) = (self.lengths[0], self.out_columns());
        let wanted: Vec<usize> = match self.product.is_image {
            true => vec![batch, columns, 1, 1],
            false if self.lengths.len() == 3 => vec![batch, 1, columns],
            false => return false,
        };
        lengths == wanted && self.site.is_float(name)
    }

    fn out_columns(&self) -> usize {
        if self.product.is_gated { self.product.columns / 2 } else { self.product.columns }
    }

    fn bias(&mut self) {
        if self.product.bias.is_none()
            && let Some((at, bias, made)) = self.other("Add")
            && self.site.stored(bias).is_some_and(|own| {
                let channels: &[usize] = if self.product.is_image { &[1, 1] } else { &[] };
                let own: &[usize] = if own.len() == 4 && own[0] == 1 { &own[1..] } else { &own };
                own == [&[self.product.columns], channels].concat()
            })
        {
            self.product.bias = Some(bias);
            self.take(at, made);
        }
    }

    fn added(&mut self) {
        if let Some((at, added, made)) = self.other("Add")
            && self.is_by_image(added)
        {
            self.product.added = Some(added);
            self.take(at, made);
        }
    }

    fn activation(&mut self) {
        if let Some(found) = activation::find(self.site, self.output)
            && found.nodes.iter().all(|&at| !self.taken[at])
        {
            self.product.activation = found.activation;
            self.nodes.extend(found.nodes);
            self.output = found.output;
        }
    }

    /// Halves of the result, of which one is the gate of the other.
    fn gated_unit(&mut self) -> bool {
        const PANEL: usize = crate::kernels::COLUMNS;
        if self.product.is_image || !self.product.columns.is_multiple_of(PANEL) {
            return false;
        }
        let Some((splits, [value, gate])) = halves(self.site, self.output) else { return false };
        let Some(found) = activation::find(self.site, gate) else { return false };
        let Some((at, node)) = self.site.only_reader(found.output).filter(|(_, node)| is(node, "Mul")) else {
            return false;
        };
        let is_pair = node.input.iter().any(|name| name == value) && self.site.only_reader(value).is_some();
        let Some(made) = output(node).filter(|_| is_pair) else { return false };
        self.product.is_gated = true;
        self.product.activation = found.activation;
        self.nodes.extend(splits);
        self.nodes.extend(found.nodes);
        self.take(at, made);
        true
    }

    fn gate(&mut self) {
        if let Some((at, gate, made)) = self.other("Mul")
            && self.is_by_image(gate)
        {
            self.product.gate = Some(gate);
            self.take(at, made);
        }
    }

    fn residual(&mut self) {
        if let Some((at, residual, made)) = self.other("Add")
            && self.site.is_float(residual)
            && self.site.lengths(residual).is_some_and(|lengths| self.site.lengths(self.output) == Some(lengths))
            && self.site.source.maker_index(residual).is_none_or(|maker| maker < at)
        {
            self.product.residual = Some(residual);
            self.take(at, made);
        }
    }
}

/// The first and second half of a tensor along the last axis, if nothing reads it otherwise, and the nodes that make them.
fn halves<'s>(site: Site<'s>, name: &'s str) -> Option<(Vec<usize>, [&'s str; 2])> {
    use crate::rewrite::feed_forward::half;
    let readers = site.source.readers(name);
    let outputs: Vec<&str> = readers.iter().flat_map(|&at| &site.source.nodes[at].output).map(String::as_str).collect();
    let [a, b] = <[&str; 2]>::try_from(outputs).ok()?;
    let places = [a, b].map(|made| half(site.source, site.facts, made).filter(|(whole, _)| *whole == name));
    let halves = match places.map(|place| place.map(|(_, at)| at)) {
        [Some(0), Some(1)] => [a, b],
        [Some(1), Some(0)] => [b, a],
        _ => return None,
    };
    site.source.is_inner(name).then(|| (readers.to_vec(), halves))
}
