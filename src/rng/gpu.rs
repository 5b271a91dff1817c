//! How many threads a GPU holds at once.

/// How many threads a GPU holds at once, which is where noise that torch draws on it begins to depend on its model.
///
/// That is its multiprocessors times the threads that each holds, in whole blocks of 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gpu {
    threads: u32,
}

/// Name, multiprocessors, threads a multiprocessor: those of NVIDIA's data sheets and of the compute capability.
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
    /// Threads of a block of torch's kernels for noise.
    const BLOCK: u32 = 256;

    /// The models whose numbers are known, such as `A100`.
    pub fn names() -> impl Iterator<Item = &'static str> + Clone {
        TABLE.iter().map(|(name, ..)| *name)
    }

    /// The GPU of this name, one of [`Gpu::names`].
    pub fn named(name: &str) -> Option<Self> {
        let row = TABLE.iter().find(|(known, ..)| *known == name);
        row.map(|(_, multiprocessors, each)| Self { threads: multiprocessors * each })
    }

    /// A GPU that holds so many threads, a multiple of 256 of them and not none.
    pub fn with_threads(threads: u32) -> Option<Self> {
        (threads > 0 && threads.is_multiple_of(Self::BLOCK)).then_some(Self { threads })
    }

    /// How many threads it holds.
    pub fn threads(self) -> u32 {
        self.threads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_ones_are_whole_and_have_names_of_their_own() {
        assert_eq!(Gpu::named("A100").map(Gpu::threads), Some(221_184));
        assert_eq!(Gpu::named("H100").map(Gpu::threads), Some(270_336));
        assert_eq!(Gpu::named("RTX 4090").map(Gpu::threads), Some(196_608));
        let mut names: Vec<&str> = Gpu::names().collect();
        for name in &names {
            let gpu = Gpu::named(name).unwrap();
            assert_eq!(Gpu::with_threads(gpu.threads()), Some(gpu), "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
        assert_eq!(Gpu::with_threads(0), None);
        assert_eq!(Gpu::with_threads(1000), None);
    }
}
