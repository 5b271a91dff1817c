//! Seeded unit normal noise, in the streams that other programs made famous.
//!
//! A stream is a type: [`TorchCpu`] is `torch.Generator("cpu")`. Each picture of a run has its own generator, so a
//! picture never depends on its neighbours in a batch.

mod mt19937;
mod normal16;
mod torch_cpu;

pub use torch_cpu::TorchCpu;
