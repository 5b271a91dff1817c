//! Normalization of rows and heads, and rotary embedding.

use super::*;

fn mean(values: impl Iterator<Item = f64>, count: usize) -> f64 {
    values.sum::<f64>() / count as f64
}

#[test]
fn row_norms() {
    for width in [1, 16, 77, 200] {
        for centers in [false, true] {
            row_norm(width, centers);
        }
    }
}

fn row_norm(width: usize, centers: bool) {
    let (images, rows) = (2, 19);
    let values: Vec<f32> = numbers(images * rows * width, 1).into_iter().map(|x| x + 0.5).collect();
    let (by_image, of_all) = (numbers(images * width, 2), numbers(width, 3));
    for (scale, shift) in [(None, None), (Some(&by_image), Some(&of_all)), (Some(&of_all), Some(&by_image))] {
        let of = |values: Option<&Vec<f32>>, image: usize, at: usize| {
            values.map(|v| f64::from(v[if v.len() == width { at } else { image * width + at }]))
        };
        let mut wanted = Vec::new();
        for (number, row) in values.chunks(width).enumerate() {
            let wide = || row.iter().map(|x| f64::from(*x));
            let middle = if centers { mean(wide(), width) } else { 0.0 };
            let variance = mean(wide().map(|x| (x - middle).powi(2)), width);
            wanted.extend(wide().enumerate().map(|(at, x)| {
                let normalized = (x - middle) / (variance + 1e-2).sqrt();
                normalized * of(scale, number / rows, at).unwrap_or(1.0) + of(shift, number / rows, at).unwrap_or(0.0)
            }));
        }
        let norm = RowNorm {
            rows: &values,
            width,
            rows_per_image: rows,
            epsilon: 1e-2,
            centers,
            scale: scale.map(Vec::as_slice),
            shift: shift.map(Vec::as_slice),
        };
        let what = format!("row norm of {width}, {centers}");
        everywhere::<f32>(&what, 2e-6, &wanted, |set, threads, out| norm.run(set, threads, out));
    }
}

/// A place of the result: batch entry, row of both sequences, head, number of the head.
type Place = [usize; 4];

/// Some heads and their rotary embedding.
struct Heads {
    norm: HeadNorm<'static>,
    rows: [Vec<f32>; 2],
    scale: Vec<f32>,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl Heads {
    /// The value before the rotary embedding.
    fn normalized(&self, [n, row, head, at]: Place) -> f64 {
        let HeadNorm { sequences: [first, second], heads, width, epsilon, .. } = self.norm;
        let (number, rows, row) =
            if row < first.rows { (0, first.rows, row) } else { (1, second.rows, row - first.rows) };
        let values = &self.rows[number][((n * rows + row) * heads + head) * width..][..width];
        let wide = |at: usize| f64::from(values[at]);
        let Some(epsilon) = epsilon else { return wide(at) };
        let squares = mean((0..width).map(|at| wide(at) * wide(at)), width);
        // The first sequence has no scale.
        let scale = if number == 0 { 1.0 } else { f64::from(self.scale[at]) };
        wide(at) / (squares + f64::from(epsilon)).sqrt() * scale
    }

    /// The value after the rotary embedding.
    fn turned(&self, place: Place, pairs: RotaryPairs, is_by_pair: bool, is_by_batch: bool) -> f64 {
        let ([n, row, head, at], width) = (place, self.norm.width);
        let (pair, other, is_first) = match pairs {
            RotaryPairs::Adjacent => (at / 2, at ^ 1, at % 2 == 0),
            RotaryPairs::Halves => (at % (width / 2), (at + width / 2) % width, at < width / 2),
        };
        let own = if is_by_pair { width / 2 } else { width };
        let row_of_it =
            row + if is_by_batch { n * (self.norm.sequences[0].rows + self.norm.sequences[1].rows) } else { 0 };
        let from = row_of_it * own + if is_by_pair { pair } else { at };
        let (cos, sin) = (f64::from(self.cosines[from]), f64::from(self.sines[from]));
        let sign = if is_first { -1.0 } else { 1.0 };
        self.normalized(place) * cos + sign * sin * self.normalized([n, row, head, other])
    }
}

/// Two sequences or one, heads of even widths with and without a rest beside the lanes, every kind of pairs.
#[test]
fn heads_are_normalized_and_turned() {
    for (rows, width) in [([5, 14], 128), ([21, 0], 72), ([3, 1], 6), ([2, 9], 36)] {
        for epsilon in [Some(1e-3), None] {
            for pairs in [RotaryPairs::Adjacent, RotaryPairs::Halves] {
                for (is_by_pair, is_by_batch) in [(false, false), (true, false), (false, true), (true, true)] {
                    heads(rows, width, epsilon, Some((pairs, is_by_pair, is_by_batch)));
                }
            }
            heads(rows, width, epsilon, None);
            heads(rows, width - 1, epsilon, None);
        }
    }
}

fn heads(rows: [usize; 2], width: usize, epsilon: Option<f32>, rotary: Option<(RotaryPairs, bool, bool)>) {
    let (batch, heads) = (2, 3);
    let all = rows[0] + rows[1];
    let sequence = |rows: usize, seed: u64| numbers(batch * rows * heads * width, seed);
    let sequences = rows.map(|rows| HeadRows { rows, ..HeadRows::default() });
    let norm = HeadNorm { sequences, batch, heads, width, epsilon, rotary: None };
    let given = [sequence(rows[0], 1), sequence(rows[1], 2)];
    let angles = batch * all * width;
    let of =
        Heads { norm, rows: given, scale: numbers(width, 3), cosines: numbers(angles, 4), sines: numbers(angles, 5) };
    let mut wanted = Vec::new();
    for (n, row, head) in places(batch, all, heads) {
        wanted.extend((0..width).map(|at| match rotary {
            Some((pairs, by_pair, by_batch)) => of.turned([n, row, head, at], pairs, by_pair, by_batch),
            None => of.normalized([n, row, head, at]),
        }));
    }
    let scales = [None, epsilon.map(|_| &of.scale[..])];
    let sequences = std::array::from_fn(|at| HeadRows { values: &of.rows[at], rows: rows[at], scale: scales[at] });
    let rotary = rotary.map(|(pairs, is_by_pair, is_by_batch)| {
        let count = all * width / if is_by_pair { 2 } else { 1 } * if is_by_batch { batch } else { 1 };
        Rotary { cosines: &of.cosines[..count], sines: &of.sines[..count], pairs, is_by_pair }
    });
    let norm = HeadNorm { sequences, rotary, batch, heads, width, epsilon };
    let what = format!("{rows:?} rows of {heads} heads of {width}, {:?}", rotary.map(|rotary| rotary.pairs));
    everywhere::<f32>(&what, 2e-6, &wanted, |set, threads, out| norm.run(set, threads, out));
}
