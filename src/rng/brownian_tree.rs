//! Brownian paths that can be queried between any two times, in any order.

use super::seed_sequence::first_word;

/// A Brownian path over an interval of time: torchsde's `BrownianInterval` with `halfway_tree`, a tolerance of 1e-6 and
/// a pool of 24 words, as the samplers of k-diffusion and diffusers create it.
///
/// The interval is halved repeatedly, down to multiples of 1e-6. At each halving a Brownian bridge splits the change
/// between both halves, with noise whose seed is derived from the seed of the path and the position in the tree. The
/// path is therefore a function of its seed, independent of the queries. Times are first rounded to six decimals.
///
/// Source: `torchsde/_brownian/brownian_interval.py`; Li et al. 2020, "Scalable Gradients for Stochastic Differential
/// Equations", section 4.
#[derive(Debug, Clone, Copy)]
pub struct BrownianTree {
    seed: u64,
    start: f64,
    end: f64,
    /// The standard deviation of the change over the whole interval.
    std_dev: f32,
}

/// Draws the first unit normal values of a generator with this seed.
type Draw<'a> = dyn FnMut(u64, &mut [f32]) + 'a;

/// A node of the tree, a part of the interval.
#[derive(Debug, Clone, Copy)]
struct TreeNode {
    start: f64,
    end: f64,
    /// The index among the nodes of its depth, from the start.
    index: u128,
    depth: u32,
}

impl BrownianTree {
    /// Creates the path with this seed between two times, in either order.
    pub fn new(seed: u64, a: f64, b: f64) -> Self {
        let (start, end) = (a.min(b), a.max(b));
        Self { seed, start: round(start), end: round(end), std_dev: (end - start).sqrt() as f32 }
    }

    /// Fills `out` with the changes of independent paths, one per value, from time `a` to time `b`, which may be
    /// earlier than `a`. Times outside the interval are clamped to its ends; times equal to six decimals are the same.
    ///
    /// `draw` fills a slice with the first values of a new generator with a given seed. torchsde uses
    /// [`TorchCpu`](super::TorchCpu).
    pub fn change(&self, a: f64, b: f64, draw: &mut Draw<'_>, out: &mut [f32]) {
        out.fill(0.0);
        let within = |time: f64| round(time.max(self.start).min(self.end));
        let (from, to) = (within(a.min(b)), within(a.max(b)));
        if from >= to {
            return;
        }
        let mut whole = vec![0.0; out.len()];
        draw(u64::from(first_word(self.seed, &[])), &mut whole);
        whole.iter_mut().for_each(|value| *value *= self.std_dev);
        let part = TreeNode { start: self.start, end: self.end, index: 0, depth: 0 };
        self.add(part, whole, (from, to), draw, out);
        if a > b {
            out.iter_mut().for_each(|value| *value = -*value);
        }
    }

    /// Adds the portion of a node's `change` between two times to `out`.
    fn add(&self, part: TreeNode, change: Vec<f32>, (from, to): (f64, f64), draw: &mut Draw<'_>, out: &mut [f32]) {
        let TreeNode { start, end, index, depth } = part;
        if from <= start && end <= to {
            out.iter_mut().zip(&change).for_each(|(out, change)| *out += change);
            return;
        }
        let middle = round(0.5 * (end + start));
        if !(start < middle && middle < end) {
            return;
        }
        let (left, right) = (middle - start, end - middle);
        let shrink = 1.0 / (end - start);
        let std_dev = (left * right * shrink).sqrt() as f32;
        let mut first = vec![0.0; change.len()];
        draw(u64::from(first_word(self.seed, &[index, u128::from(depth)])), &mut first);
        for (first, change) in first.iter_mut().zip(&change) {
            *first = left as f32 * change * shrink as f32 + std_dev * *first;
        }
        let half = |start, end, side| TreeNode { start, end, index: index << 1 | side, depth: depth + 1 };
        let second: Option<Vec<f32>> =
            (to > middle).then(|| change.iter().zip(&first).map(|(change, first)| change - first).collect());
        drop(change);
        if from < middle {
            self.add(half(start, middle, 0), first, (from, to.min(middle)), draw, out);
        }
        if let Some(second) = second {
            self.add(half(middle, end, 1), second, (from.max(middle), to), draw, out);
        }
    }
}

/// Rounds as Python's `round(x, 6)`: to the double nearest to the six-digit decimal nearest to the exact value, ties to
/// even. The standard library formats and parses numbers exactly.
fn round(x: f64) -> f64 {
    format!("{x:.6}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Generator, TorchCpu};

    #[derive(serde::Deserialize)]
    struct Case {
        seed: u64,
        stretch: (f64, f64),
        size: usize,
        queries: Vec<(f64, f64)>,
    }

    fn draw(seed: u64, out: &mut [f32]) {
        TorchCpu::new(seed).normal(out);
    }

    #[test]
    fn changes_are_those_of_torchsde() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/rng");
        let cases = std::fs::read_to_string(format!("{dir}/brownian_tree.json")).unwrap();
        let cases: Vec<Case> = serde_json::from_str(&cases).unwrap();
        let values = crate::npy::read_f32(format!("{dir}/brownian_tree.npy")).unwrap();
        let mut rest = values.as_slice().unwrap();
        let mut worst = 0.0_f32;
        for Case { seed, stretch, size, queries } in cases {
            let tree = BrownianTree::new(seed, stretch.0, stretch.1);
            for (a, b) in queries {
                let want = rest.split_off(..size).unwrap();
                let mut got = vec![0.0; size];
                tree.change(a, b, &mut draw, &mut got);
                let root = ((a - b).abs().sqrt() as f32).max(1e-3);
                for (got, want) in got.iter().zip(want) {
                    let difference = (got - want).abs() / root;
                    assert!(difference <= 2e-6, "seed {seed}, {a} to {b}: {got} {want}");
                    worst = worst.max(difference);
                }
            }
        }
        assert!(rest.is_empty());
        println!("worst {worst:.1e} of the standard deviation");
    }

    #[test]
    fn parts_add_up_and_time_runs_both_ways() {
        let tree = BrownianTree::new(3, 14.6, 0.03);
        let change = |a, b| {
            let mut out = [0.0; 4];
            tree.change(a, b, &mut draw, &mut out);
            out
        };
        let (whole, back) = (change(0.5, 9.0), change(9.0, 0.5));
        let (first, second) = (change(0.5, 1.7), change(1.7, 9.0));
        for i in 0..4 {
            assert_eq!(whole[i], -back[i]);
            assert!((whole[i] - first[i] - second[i]).abs() < 1e-5);
        }
        assert_eq!(change(2.0, 2.0), [0.0; 4]);
        assert_eq!(change(2.0, 2.000_000_1), [0.0; 4]);
        assert_eq!(change(-5.0, 1.0), change(0.03, 1.0));
        assert_eq!(change(20.0, 15.0), [0.0; 4]);
    }

    #[test]
    fn degenerate_intervals_terminate() {
        for (a, b) in [(0.0, 0.0), (0.0, 1e-6), (1e12, 0.1), (f64::NAN, 1.0), (f64::INFINITY, 0.1), (1e38, 1e-38)] {
            let mut out = [0.0; 2];
            BrownianTree::new(1, a, b).change(0.25, 0.5, &mut draw, &mut out);
        }
    }

    #[test]
    fn times_are_rounded_as_python_rounds_them() {
        for (x, rounded) in [
            (0.029_167_532_920_837_402, 0.029_168),
            (14.614_641_189_575_195, 14.614_641),
            (0.007_812_5, 0.007_812),
            (0.023_437_5, 0.023_438),
            (2.000_000_5, 2.000_001),
            (2.000_001_5, 2.000_002),
            (1e22, 1e22),
        ] {
            assert_eq!(round(x), rounded, "{x}");
        }
    }
}
