//! Rewrites 3×3 convolutions with minimal filtering: F(4×4, 3×3) of Winograd 1980 as in Lavin and Gray 2015 (arXiv
//! 1509.09308, section 4.1).
//!
//! Each 4×4 tile of the result comes from 6×6 pixels of the image. They are transformed to 36 numbers `Bᵀ d B`; each is
//! multiplied by a separate matrix `[out, in]` of the transformed weights `G g Gᵀ`; and the 36 products are transformed
//! to the tile, `Aᵀ m A`: 36 products per tile instead of 144. The matrices are those of [`Filtering`].
//!
//! The stored weights do not change: nodes that read only them compute their transform, which ONNX Runtime folds when
//! it opens the graph with basic optimizations or better. Weights that are dequantized at every run are skipped: their
//! transform, which is four times as large, could not be folded.

use super::convolution::Convolution;
use super::edits::{Edits, int, ints, node};
use super::facts::TensorFacts;
use super::indexed_graph::IndexedGraph;
use super::length::Length;
use crate::bundle::proto::{AttributeProto, NodeProto};
use crate::kernels::Filtering;

/// The side of a tile of the result, in pixels.
const TILE: i64 = 4;
/// The side of its window in the image, in pixels, and of the transformed window.
const WINDOW: i64 = 6;
/// With fewer channels in or out, the transforms cost more than the products save.
const FEWEST_CHANNELS: i64 = 256;
/// With more weights per pixel, the transformed ones, four times as many, cost more memory than the time is worth.
const MOST_WEIGHTS: i64 = 1_300_000;

/// Rewrites every convolution for which it is faster, and returns their number.
pub fn rewrite(source: &IndexedGraph<'_>, facts: &TensorFacts, edits: &mut Edits) -> usize {
    let mut sites = 0;
    for (at, conv) in source.nodes.iter().enumerate() {
        if !edits.is_replaced(at)
            && let Some(convolution) = Convolution::from_node(facts, conv)
            && is_worth_it(&convolution)
            && source.is_constant(convolution.weights)
        {
            let nodes = nodes(&convolution, source, facts, edits);
            edits.replace(at, nodes);
            sites += 1;
        }
    }
    sites
}

/// Returns the bytes that a node would need beyond its inputs and output if [`rewrite`] rewrote it: for its weights,
/// and for the temporary values per pixel of the image.
pub fn extra_bytes(facts: &TensorFacts, conv: &NodeProto) -> Option<(u64, u64)> {
    let convolution = Convolution::from_node(facts, conv).filter(is_worth_it)?;
    let [weights, channels] = [
        convolution.channels_in.checked_mul(convolution.channels_out)?,
        // Before and after the transposition of either side at the same time.
        convolution.channels_in.max(convolution.channels_out).checked_mul(2)?,
    ];
    let bytes = |numbers: i64| u64::try_from(numbers.checked_mul(4)?).ok();
    let beyond = WINDOW * WINDOW - 9;
    Some((bytes(weights.checked_mul(beyond)?)?, bytes(channels * WINDOW * WINDOW)? / (TILE * TILE) as u64))
}

fn is_worth_it(convolution: &Convolution<'_>) -> bool {
    let (channels_in, channels_out) = (convolution.channels_in, convolution.channels_out);
    channels_in.min(channels_out) >= FEWEST_CHANNELS && channels_in.saturating_mul(channels_out) <= MOST_WEIGHTS
}

/// The transforms as matrices: from 9 weights to 36 numbers, from 36 pixels to 36 numbers, from 36 numbers to 16 pixels.
/// Each is the product of the same transform along the rows and along the columns.
struct Transforms {
    weights: Vec<f32>,
    image: Vec<f32>,
    back: Vec<f32>,
}

impl Transforms {
    fn new() -> Self {
        let of_weights: Vec<Vec<f64>> = Filtering::Four.of_weights().iter().map(|row| row.to_vec()).collect();
        let image = squared(&transposed(&Filtering::Four.of_image()));
        let back = squared(&Filtering::Four.of_tile_rows());
        Self { weights: squared(&transposed(&of_weights)), image: turned(&image, 36), back: turned(&back, 36) }
    }
}

fn transposed(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let columns = matrix.first().map_or(0, Vec::len);
    (0..columns).map(|column| matrix.iter().filter_map(|row| row.get(column).copied()).collect()).collect()
}

/// Returns the product of the two numbers of each pair of rows and each pair of columns of a matrix.
fn squared(matrix: &[Vec<f64>]) -> Vec<f32> {
    let pairs = matrix.iter().flat_map(|first| matrix.iter().map(move |second| (first, second)));
    pairs.flat_map(|(first, second)| first.iter().flat_map(|a| second.iter().map(move |b| (a * b) as f32))).collect()
}

/// Returns a matrix with `columns` columns, in column-major order.
fn turned(matrix: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| matrix.iter().skip(column).step_by(columns).copied()).collect()
}

/// A sequence of nodes.
struct Chain<'e, 's> {
    source: &'e IndexedGraph<'s>,
    edits: &'e mut Edits,
    nodes: Vec<NodeProto>,
}

impl Chain<'_, '_> {
    fn node(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let name = self.edits.name(self.source, "winograd");
        self.nodes.push(node(operator, inputs, &name, attributes));
        name
    }

    fn reshape(&mut self, name: &str, shape: &[i64]) -> String {
        let shape = self.edits.list(self.source, shape);
        self.node("Reshape", &[name, &shape], Vec::new())
    }

    /// Returns the last two lengths of a tensor with four axes.
    fn sides(&mut self, name: &str) -> String {
        let [from, to] = [2, 4].map(|at| self.edits.list(self.source, &[at]));
        let lengths = self.node("Shape", &[name], Vec::new());
        self.node("Slice", &[&lengths, &from, &to], Vec::new())
    }
}

/// The image's transform is a convolution of each channel with 36 kernels, and the inverse transform a transposed one,
/// cropped to the image's size.
fn nodes(
    convolution: &Convolution<'_>,
    source: &IndexedGraph<'_>,
    facts: &TensorFacts,
    edits: &mut Edits,
) -> Vec<NodeProto> {
    let Convolution { image, weights, channels_in, channels_out, .. } = *convolution;
    let transforms = Transforms::new();
    let [of_weights, of_image, back] = [
        edits.floats(source, "winograd_weights", &[9, 36], &transforms.weights),
        edits.floats(source, "winograd_image", &[36, 1, 6, 6], &transforms.image),
        edits.floats(source, "winograd_back", &[36, 1, 4, 4], &transforms.back),
    ];
    let count = WINDOW * WINDOW;
    let mut chain = Chain { source, edits, nodes: Vec::new() };

    let flat = chain.reshape(weights, &[-1, 9]);
    let numbers = chain.node("MatMul", &[&flat, &of_weights], Vec::new());
    let numbers = chain.node("Transpose", &[&numbers], vec![ints("perm", &[1, 0])]);
    let matrices = chain.reshape(&numbers, &[count, channels_out, channels_in]);

    // [batch · in, 1, height, width], [batch · in, 36, rows, columns], then through [batch · in, 36, tiles] and [batch,
    // in · 36, tiles] to [batch, 36, in, tiles].
    let alone = chain.reshape(image, &[-1, 1, 0, 0]);
    let strides = || ints("strides", &[TILE, TILE]);
    let kernel = |side| ints("kernel_shape", &[side, side]);
    let attributes = vec![kernel(WINDOW), ints("pads", &[1, 1, TILE, TILE]), strides()];
    let tiles = chain.node("Conv", &[&alone, &of_image], attributes);
    let rows_and_columns = chain.sides(&tiles);
    let lined = chain.reshape(&tiles, &[0, 0, -1]);
    let lined = chain.reshape(&lined, &[-1, channels_in * count, 0]);
    let lined = chain.reshape(&lined, &[0, channels_in, count, -1]);
    let swap = || vec![ints("perm", &[0, 2, 1, 3])];
    let lined = chain.node("Transpose", &[&lined], swap());

    let products = chain.node("MatMul", &[&matrices, &lined], Vec::new());
    let products = chain.node("Transpose", &[&products], swap());
    let before = chain.edits.list(source, &[-1, count]);
    let shape = chain.node("Concat", &[&before, &rows_and_columns], vec![int("axis", 0)]);
    let products = chain.node("Reshape", &[&products, &shape], Vec::new());
    let made = chain.node("ConvTranspose", &[&products, &back], vec![kernel(TILE), strides()]);
    let mut made = chain.reshape(&made, &[-1, channels_out, 0, 0]);

    let is_whole = |length: &Length| length.over(&Length::from(TILE)).is_some();
    if !facts.shape(image).is_some_and(|shape| shape.iter().skip(2).all(is_whole)) {
        let ends = chain.sides(image);
        let [starts, axes] = [[0, 0], [2, 3]].map(|list| chain.edits.list(source, &list));
        made = chain.node("Slice", &[&made, &starts, &ends, &axes], Vec::new());
    }
    if let Some(bias) = convolution.bias {
        let bias = chain.reshape(bias, &[1, -1, 1, 1]);
        made = chain.node("Add", &[&made, &bias], Vec::new());
    }
    let mut nodes = chain.nodes;
    if let Some(last) = nodes.last_mut().filter(|last| last.output.first() == Some(&made)) {
        last.output = vec![convolution.output.to_owned()];
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tile computed with the transforms equals the tile of a plain convolution.
    #[test]
    fn a_tile_is_a_convolution() {
        let transforms = Transforms::new();
        let number = |n: usize| ((n * 37 + 11) % 29) as f32 / 29.0 - 0.5;
        let (kernel, window): (Vec<f32>, Vec<f32>) = ((0..9).map(number).collect(), (9..45).map(number).collect());
        let transformed = |matrix: &[f32], values: &[f32], count: usize| -> Vec<f64> {
            let one = |to: usize| {
                values.iter().enumerate().map(|(at, v)| f64::from(*v) * f64::from(matrix[at * count + to])).sum()
            };
            (0..count).map(one).collect()
        };
        let weights = transformed(&transforms.weights, &kernel, 36);
        let image = transformed(&turned(&transforms.image, 36), &window, 36);
        let products: Vec<f32> = weights.iter().zip(&image).map(|(a, b)| (a * b) as f32).collect();
        let tile = transformed(&transforms.back, &products, 16);
        for (at, got) in tile.iter().enumerate() {
            let (row, column) = (at / 4, at % 4);
            let places = (0..9).map(|k| (k, (row + k / 3) * 6 + column + k % 3));
            let want: f64 = places.map(|(k, p)| f64::from(kernel[k]) * f64::from(window[p])).sum();
            assert!((got - want).abs() < 1e-5, "{at}: {got}, not {want}");
        }
    }
}
