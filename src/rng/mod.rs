//! Seeded unit normal noise from reimplementations of other programs' generators.
//!
//! Each generator implements [`Generator`]: [`TorchCpu`] is `torch.Generator("cpu")`, [`TorchCuda`] is
//! `torch.Generator("cuda")`, and so on. [`Stream`] selects one of them. Each image of a run has its own generator, so
//! no image depends on its neighbors in a batch. [`BrownianTree`] turns any generator into a Brownian path.

mod brownian_tree;
mod fused;
mod gpu;
mod mt19937;
mod normal16;
mod numpy;
mod seed_sequence;
mod stream;
mod torch_cpu;
mod torch_cpu_half;
mod torch_cuda;

pub use brownian_tree::BrownianTree;
pub(crate) use fused::fused;
pub use gpu::Gpu;
pub use numpy::NumPy;
pub use stream::Stream;
pub use torch_cpu::TorchCpu;
pub use torch_cpu_half::{HalfFormat, TorchCpuHalf};
pub use torch_cuda::TorchCuda;

/// A seeded source of unit normal values.
pub trait Generator: Send {
    /// Fills `out` with the values of one draw of that size.
    ///
    /// In most streams the size of a draw matters: two draws of half the size give other values than one draw.
    fn normal(&mut self, out: &mut [f32]);
}

#[cfg(test)]
mod golden {
    use super::Generator;

    #[derive(serde::Deserialize)]
    struct Case {
        seed: u64,
        calls: Vec<usize>,
    }

    /// Compares a stream with the values recorded by scripts/goldens/golden_rng.py under `name`. `bound` returns the largest
    /// difference for a value in a draw of the given size.
    pub(super) fn assert_equals_golden<G: Generator>(
        name: &str,
        make: impl Fn(u64) -> G,
        bound: impl Fn(usize, f32) -> f32,
    ) {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/rng");
        let cases = std::fs::read_to_string(format!("{dir}/{name}.json")).unwrap();
        let cases: Vec<Case> = serde_json::from_str(&cases).unwrap();
        let values = crate::npy::read_f32(format!("{dir}/{name}.npy")).unwrap();
        let mut rest = values.as_slice().unwrap();
        for Case { seed, calls } in cases {
            let mut generator = make(seed);
            for n in calls {
                let want = rest.split_off(..n).unwrap();
                let mut got = vec![0.0; n];
                generator.normal(&mut got);
                for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
                    let bound = bound(n, want);
                    assert!((got - want).abs() <= bound, "seed {seed}, {n} values, value {i}: {got} {want}");
                }
            }
        }
        assert!(rest.is_empty());
    }
}
