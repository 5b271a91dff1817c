//! Rewrites nearest-neighbor upsampling and a convolution as convolutions of the small image (Shi et al. 2016, arXiv
//! 1609.07009, section 2.2).
//!
//! In the image upsampled by two, a 3×3 window that starts at an even row covers the rows `i − 1, i, i` of the small
//! one, and one that starts at an odd row `i, i, i + 1`; columns likewise. So each of the four kinds of pixels is a 2×2
//! convolution of the small image whose weights are sums of the stored ones: 16 products per small pixel instead of 36.

use std::ops::Range;

use rayon::prelude::*;

use super::convolution::Convolution;
use super::edits::{Edits, int, ints, node};
use super::facts::TensorFacts;
use super::indexed_graph::{IndexedGraph, input, int as int_of, is, output, text};
use super::length::Length;
use super::numbers::Values;
use crate::bundle::proto::NodeProto;
use crate::tensor::DType;
use crate::threads::parallel;

/// Rewrites every such pair, and returns their number.
pub fn rewrite(source: &IndexedGraph<'_>, facts: &TensorFacts, edits: &mut Edits) -> usize {
    let mut sites = 0;
    for (at, conv) in source.nodes.iter().enumerate() {
        if !edits.is_replaced(at)
            && let Some(site) = Site::find(source, facts, conv)
            && let Some(Values::Real(weights)) = stored_values(source, site.weights).map(|numbers| numbers.values)
        {
            let nodes = site.nodes(&weights, source, edits);
            edits.replace(at, nodes);
            sites += 1;
        }
    }
    sites
}

/// Returns true if a convolution reads an image that was upsampled for it.
pub fn is_site(source: &IndexedGraph<'_>, facts: &TensorFacts, conv: &NodeProto) -> bool {
    Site::find(source, facts, conv).is_some()
}

/// An upsampling and the convolution that reads it.
struct Site<'s> {
    /// The small image, `[batch, channels, height, width]`.
    image: &'s str,
    bias: Option<&'s str>,
    /// The convolution's output.
    output: &'s str,
    channels_out: usize,
    channels_in: usize,
    /// The convolution's weights, `[out, in, 3, 3]`.
    weights: &'s str,
}

impl<'s> Site<'s> {
    fn find(source: &'s IndexedGraph<'_>, facts: &TensorFacts, conv: &'s NodeProto) -> Option<Self> {
        let convolution = Convolution::from_node(facts, conv)?;
        let resize = source.maker(convolution.image)?;
        let image = input(resize, 0).filter(|name| doubles(facts, resize, name))?;
        Some(Self {
            image,
            bias: convolution.bias,
            output: convolution.output,
            channels_out: usize::try_from(convolution.channels_out).ok()?,
            channels_in: usize::try_from(convolution.channels_in).ok()?,
            weights: convolution.weights,
        })
    }

    /// Returns four convolutions and their interleaving along the columns, then along the rows.
    fn nodes(&self, weights: &[f32], source: &IndexedGraph<'_>, edits: &mut Edits) -> Vec<NodeProto> {
        let mut nodes = Vec::new();
        let [deeper, open] = [[0, 0, 0, 0, 1].as_slice(), &[0, 0, 0, -1]].map(|list| edits.list(source, list));
        let mut lines = Vec::new();
        for row in 0..2 {
            let mut apart = Vec::new();
            for column in 0..2 {
                let shape = [self.channels_out, self.channels_in, 2, 2];
                let weights = edits.floats(source, "subpixel_weight", &shape, &merged(weights, row, column));
                let (made, deep) = (edits.name(source, "subpixel"), edits.name(source, "subpixel"));
                let pads = [1 - row as i64, 1 - column as i64, row as i64, column as i64];
                let inputs: Vec<&str> = [self.image, &weights].into_iter().chain(self.bias).collect();
                let attributes = vec![ints("kernel_shape", &[2, 2]), ints("pads", &pads), ints("strides", &[1, 1])];
                nodes.push(node("Conv", &inputs, &made, attributes));
                nodes.push(node("Reshape", &[&made, &deeper], &deep, Vec::new()));
                apart.push(deep);
            }
            let (pairs, line) = (edits.name(source, "subpixel"), edits.name(source, "subpixel"));
            let apart: Vec<&str> = apart.iter().map(String::as_str).collect();
            nodes.push(node("Concat", &apart, &pairs, vec![int("axis", 4)]));
            nodes.push(node("Reshape", &[&pairs, &open], &line, Vec::new()));
            lines.push(line);
        }
        // [batch, channels, height, 4 · width], and then [batch, channels, 2 · height, 2 · width].
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let [joined, lengths, sides, doubled, shape] = std::array::from_fn(|_| edits.name(source, "subpixel"));
        let [from, to, two, same] = [[2].as_slice(), &[4], &[2, 2], &[0, 0]].map(|list| edits.list(source, list));
        nodes.push(node("Concat", &lines, &joined, vec![int("axis", 3)]));
        nodes.push(node("Shape", &[self.image], &lengths, Vec::new()));
        nodes.push(node("Slice", &[&lengths, &from, &to], &sides, Vec::new()));
        nodes.push(node("Mul", &[&sides, &two], &doubled, Vec::new()));
        nodes.push(node("Concat", &[&same, &doubled], &shape, vec![int("axis", 0)]));
        nodes.push(node("Reshape", &[&joined, &shape], self.output, Vec::new()));
        nodes
    }
}

/// Merges weights `[out, in, 3, 3]` into `[out, in, 2, 2]` for the pixels in even or odd rows and columns. Sums are
/// float64.
fn merged(weights: &[f32], row: usize, column: usize) -> Vec<f32> {
    // The rows of three that fall on the first and on the second of two, for windows that start at an even and at an
    // odd row.
    let falls = [[0..1, 1..3], [0..2, 2..3]];
    let (Some(rows), Some(columns)) = (falls.get(row), falls.get(column)) else { return Vec::new() };
    let merge = |kernel: &[f32]| {
        let sum = |rows: &Range<usize>, columns: &Range<usize>| {
            let lines = kernel.chunks_exact(3).skip(rows.start).take(rows.len());
            let taken = lines.flat_map(|line| line.iter().skip(columns.start).take(columns.len()));
            taken.map(|&w| f64::from(w)).sum::<f64>() as f32
        };
        let [top, bottom] = rows;
        let [left, right] = columns;
        [sum(top, left), sum(top, right), sum(bottom, left), sum(bottom, right)]
    };
    parallel(|| weights.par_chunks_exact(9).flat_map_iter(merge).collect())
}

/// Returns true if a node repeats each pixel of `image` twice along both sides and does nothing else.
fn doubles(facts: &TensorFacts, resize: &NodeProto, image: &str) -> bool {
    let mode = text(resize, "mode").unwrap_or("nearest");
    let transformation = text(resize, "coordinate_transformation_mode").unwrap_or("half_pixel");
    let rounding = text(resize, "nearest_mode").unwrap_or("round_prefer_floor");
    // Pixel 2i + a of the large image reads i + a / 2 with the first and i - 1/4 + a / 2 with the second, which rounds
    // to i for both a.
    let repeats = match transformation {
        "asymmetric" => matches!(rounding, "floor" | "round_prefer_floor"),
        "half_pixel" | "pytorch_half_pixel" => matches!(rounding, "round_prefer_floor" | "round_prefer_ceil"),
        _ => false,
    };
    is(resize, "Resize") && mode == "nearest" && repeats && is_twice(facts, resize, image).unwrap_or(false)
}

/// Returns true if a node's output is provably twice as high and wide as `image`, with the same batch and channels.
fn is_twice(facts: &TensorFacts, resize: &NodeProto, image: &str) -> Option<bool> {
    let (small, large) = (facts.shape(image)?, facts.shape(output(resize)?)?);
    let ([batch, channels, height, width], [b, c, h, w]) = (small, large) else { return Some(false) };
    let twice = |length: &Length| length.times(&Length::from(2));
    Some(b == batch && c == channels && *h == twice(height)? && *w == twice(width)?)
}

/// Returns the values stored under a name, also behind nodes that only change how they are stored.
fn stored_values(source: &IndexedGraph<'_>, name: &str) -> Option<super::numbers::Numbers> {
    if let Some(numbers) = source.numbers(name, usize::MAX) {
        return Some(numbers);
    }
    let node = source.maker(name)?;
    let widens = is(node, "Cast") && int_of(node, "to") == Some(i64::from(DType::F32.to_onnx()));
    if widens || is(node, "Identity") { stored_values(source, input(node, 0)?) } else { None }
}
