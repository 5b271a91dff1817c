//! The selection of a noise generator.

use super::{Generator, Gpu, HalfFormat, NumPy, TorchCpu, TorchCpuHalf, TorchCuda};

/// A kind of noise generator, to be seeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Stream {
    /// `torch-cpu`: [`TorchCpu`].
    #[default]
    TorchCpu,
    /// `torch-cpu-float16`: [`TorchCpuHalf`] in float16.
    TorchCpuFloat16,
    /// `torch-cpu-bfloat16`: [`TorchCpuHalf`] in bfloat16.
    TorchCpuBfloat16,
    /// `torch-cuda`: [`TorchCuda`].
    TorchCuda {
        /// The GPU to reproduce; `None` for one with enough threads for every draw.
        gpu: Option<Gpu>,
    },
    /// `numpy`: [`NumPy`].
    NumPy,
}

impl Stream {
    /// Every stream with its name in pipeline.toml.
    pub const TABLE: [(&str, Self); 5] = [
        ("torch-cpu", Self::TorchCpu),
        ("torch-cpu-float16", Self::TorchCpuFloat16),
        ("torch-cpu-bfloat16", Self::TorchCpuBfloat16),
        ("torch-cuda", Self::TorchCuda { gpu: None }),
        ("numpy", Self::NumPy),
    ];

    /// Returns the stream's name, without its GPU.
    pub fn name(self) -> &'static str {
        match self {
            Self::TorchCpu => "torch-cpu",
            Self::TorchCpuFloat16 => "torch-cpu-float16",
            Self::TorchCpuBfloat16 => "torch-cpu-bfloat16",
            Self::TorchCuda { .. } => "torch-cuda",
            Self::NumPy => "numpy",
        }
    }

    /// Creates a generator with this seed.
    pub fn seeded(self, seed: u64) -> Box<dyn Generator> {
        match self {
            Self::TorchCpu => Box::new(TorchCpu::new(seed)),
            Self::TorchCpuFloat16 => Box::new(TorchCpuHalf::new(HalfFormat::Float16, seed)),
            Self::TorchCpuBfloat16 => Box::new(TorchCpuHalf::new(HalfFormat::Bfloat16, seed)),
            Self::TorchCuda { gpu } => Box::new(TorchCuda::new(seed, gpu)),
            Self::NumPy => Box::new(NumPy::new(seed)),
        }
    }

    /// Returns the largest seed that the original program accepts.
    pub fn last_seed(self) -> u64 {
        match self {
            Self::NumPy => u64::from(u32::MAX),
            _ => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_each_stream_as_it_names_itself_and_each_is_its_own() {
        let mut firsts = Vec::new();
        for (name, stream) in Stream::TABLE {
            assert_eq!(stream.name(), name);
            let mut values = [0.0; 64];
            stream.seeded(42).normal(&mut values);
            let mean = values.iter().sum::<f32>() / 64.0;
            let power = values.iter().map(|v| v * v).sum::<f32>() / 64.0;
            assert!(mean.abs() < 0.5 && (0.5..2.0).contains(&power), "{name}: {mean} {power}");
            firsts.push(values[0]);
        }
        firsts.sort_by(f32::total_cmp);
        firsts.dedup();
        assert_eq!(firsts.len(), Stream::TABLE.len());
    }
}
