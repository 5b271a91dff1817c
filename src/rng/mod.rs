//! Seeded unit normal noise, in the streams that other programs made famous.
//!
//! A stream is a type that is a [`Generator`]: [`TorchCpu`] is `torch.Generator("cpu")`, [`TorchCuda`] its sibling on a
//! GPU, and so on; [`Stream`] is the choice between them. Each image of a run has its own generator, so an image
//! never depends on its neighbours in a batch. [`BrownianTree`] makes noise for stretches of time out of any of them.

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
pub use torch_cpu_half::{Half, TorchCpuHalf};
pub use torch_cuda::TorchCuda;

/// A seeded source of unit normal values.
pub trait Generator: Send {
    /// Fills `out` with what one call for that many values draws next.
    ///
    /// The number of values of one call is part of most streams: two calls for half the values do not give what one
    /// call for all of them gives.
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

    /// Holds a stream to the values that scripts/goldens/golden_rng.py recorded under `name`. `bound` says how far a value of
    /// a call of so many may be off.
    pub(super) fn hold<G: Generator>(name: &str, make: impl Fn(u64) -> G, bound: impl Fn(usize, f32) -> f32) {
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
