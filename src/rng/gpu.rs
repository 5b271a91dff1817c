//! The number of resident threads of GPU models.

/// The number of resident threads of a GPU. torch's noise depends on the GPU model for tensors with more values than
/// that.
///
/// It is the number of multiprocessors times the threads per multiprocessor, in blocks of 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gpu {
    threads: u32,
}

/// Name, multiprocessors, threads per multiprocessor, from NVIDIA's data sheets and the compute capability.
const TABLE: &[(&str, u32, u32)] = &[
    ("V100", 80, 2048),
    ("T4", 40, 1024),
    ("RTX 2080 Ti", 68, 1024),
    ("A100", 108, 2048),
    ("A10", 72, 1536),
    ("A40", 84, 1536),
    ("RTX A6000", 84, 1536),
    ("RTX 3060", 28, 1536),
    ("RTX 3080", 68, 1536),
    ("RTX 3090", 82, 1536),
    ("L4", 58, 1536),
    ("L40S", 142, 1536),
    ("RTX 4070", 46, 1536),
    ("RTX 4080", 76, 1536),
    ("RTX 4090", 128, 1536),
    ("H100", 132, 2048),
    ("H100 PCIe", 114, 2048),
    ("H200", 132, 2048),
    ("B200", 148, 2048),
    ("RTX 5090", 170, 1536),
];

impl Gpu {
    /// Threads per block of torch's noise kernels.
    const BLOCK: u32 = 256;

    /// Returns the known models, such as `A100`.
    pub fn names() -> impl Iterator<Item = &'static str> + Clone {
        TABLE.iter().map(|(name, ..)| *name)
    }

    /// Returns the GPU with this name, one of [`Gpu::names`].
    pub fn by_name(name: &str) -> Option<Self> {
        let row = TABLE.iter().find(|(known, ..)| *known == name);
        row.map(|(_, multiprocessors, each)| Self { threads: multiprocessors * each })
    }

    /// Creates a GPU with this number of resident threads; `None` unless it is a positive multiple of 256.
    pub fn with_threads(threads: u32) -> Option<Self> {
        (threads > 0 && threads.is_multiple_of(Self::BLOCK)).then_some(Self { threads })
    }

    /// Returns the number of resident threads.
    pub fn threads(self) -> u32 {
        self.threads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_ones_are_whole_and_have_names_of_their_own() {
        assert_eq!(Gpu::by_name("A100").map(Gpu::threads), Some(221_184));
        assert_eq!(Gpu::by_name("H100").map(Gpu::threads), Some(270_336));
        assert_eq!(Gpu::by_name("RTX 4090").map(Gpu::threads), Some(196_608));
        let mut names: Vec<&str> = Gpu::names().collect();
        for name in &names {
            let gpu = Gpu::by_name(name).unwrap();
            assert_eq!(Gpu::with_threads(gpu.threads()), Some(gpu), "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
        assert_eq!(Gpu::with_threads(0), None);
        assert_eq!(Gpu::with_threads(1000), None);
    }
}
