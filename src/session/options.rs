//! Options for opening a session.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::Cancel;
use super::provider::ProviderChoice;
use crate::tensor::ByteEdit;

/// The level of ONNX Runtime's own graph optimizations when it opens a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Optimization {
    /// The graph unchanged.
    None,
    /// Constant folding and removal of redundant nodes. Opens several times faster than [`Optimization::All`], and runs
    /// some 5 to 20 % slower on a CPU.
    Basic,
    /// Also fusions.
    Extended,
    /// Also this machine's data layout.
    #[default]
    All,
}

/// A file of weights that a graph refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightFile {
    /// The name in the graph, relative to the graph's directory.
    pub location: String,
    /// The file.
    pub path: PathBuf,
}

/// Options for opening a session.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// The component's name for messages: `unet`, `text_encoder`.
    pub component: String,
    /// Execution providers in order of preference; empty means the CPU (`cpu`).
    ///
    /// Nodes that no listed provider takes run on the CPU only if the list ends in `cpu`. Otherwise heavy nodes
    /// (convolutions, matrix products, attention) without a provider are an error. Light nodes, such as the shape
    /// arithmetic that ONNX Runtime itself moves off a GPU, may run on the CPU in any case.
    pub providers: Vec<ProviderChoice>,
    /// Threads within one node on the CPU, useful up to [`usable_threads`]. `None` is one per physical core, or one per
    /// available CPU if a container or an affinity mask restricts the process.
    pub threads: Option<usize>,
    /// The number of concurrent runs that [`Session::run_each`](super::Session::run_each) makes; more than one only on
    /// the CPU. They share the threads.
    pub callers: usize,
    /// True if memory is laid out once for all runs of one shape.
    ///
    /// Off by default: for the few large runs of a diffusion model, planning the layout costs more time and memory than
    /// it saves.
    pub memory_pattern: bool,
    /// The level of ONNX Runtime's own optimizations.
    pub optimization: Optimization,
    /// Further entries of ONNX Runtime's session configuration, key and value, under its own names such as
    /// `session.disable_prepacking`.
    pub config: Vec<(String, String)>,
    /// Fixed lengths for dynamic axes of the inputs, by name. A graph with static shapes folds to a third of its nodes.
    pub axes: Vec<(String, usize)>,
    /// Weight files to map for ONNX Runtime, under the names that the graph gives them. If empty, ONNX Runtime finds
    /// them itself, and rejects symbolic links to another directory. If not empty, all files that the graph names have
    /// to be here.
    pub weight_files: Vec<WeightFile>,
    /// Bytes of the graph's file that are replaced in memory; the file does not change.
    pub edits: Vec<ByteEdit>,
    /// The file that messages name, if the opened file is a substitute for it.
    pub display_path: Option<PathBuf>,
    /// A file that stays open, and locked, as long as the session.
    pub held: Option<Arc<File>>,
    /// True if the graph computes in half precision; messages about values out of range say so.
    pub computes_in_half: bool,
    /// True if the CPU's memory comes from an arena of ONNX Runtime's, which grows in steps and is fast. Without it, each
    /// intermediate result is allocated by itself, and no more is held than is in use.
    pub uses_arena: bool,
    /// True if each run frees the memory of its intermediate results, which ONNX Runtime keeps for the next run otherwise.
    pub frees_memory: bool,
    /// True if the graph has operators of [`kernels`](crate::kernels).
    pub has_own_operators: bool,
    /// Stops the opening, which can take minutes if a provider compiles the graph.
    pub cancel: Cancel,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            component: "graph".into(),
            providers: Vec::new(),
            threads: None,
            callers: 1,
            memory_pattern: false,
            optimization: Optimization::default(),
            config: Vec::new(),
            axes: Vec::new(),
            weight_files: Vec::new(),
            edits: Vec::new(),
            display_path: None,
            held: None,
            computes_in_half: false,
            uses_arena: true,
            frees_memory: false,
            has_own_operators: false,
            cancel: Cancel::new(),
        }
    }
}

impl PartialEq for SessionOptions {
    /// Compares what decides a session. The switch that stops its opening does not, nor does a file that it holds.
    fn eq(&self, other: &Self) -> bool {
        // All fields by name, so that a new one is not forgotten.
        let Self {
            component,
            providers,
            threads,
            callers,
            memory_pattern,
            optimization,
            config,
            axes,
            weight_files,
            edits,
            display_path,
            held: _,
            computes_in_half,
            uses_arena,
            frees_memory,
            has_own_operators,
            cancel: _,
        } = self;
        *component == other.component
            && *providers == other.providers
            && (*threads, *callers) == (other.threads, other.callers)
            && *memory_pattern == other.memory_pattern
            && *optimization == other.optimization
            && *config == other.config
            && *axes == other.axes
            && *weight_files == other.weight_files
            && *edits == other.edits
            && *display_path == other.display_path
            && *computes_in_half == other.computes_in_half
            && (*uses_arena, *frees_memory) == (other.uses_arena, other.frees_memory)
            && *has_own_operators == other.has_own_operators
    }
}

/// Returns the number of threads that ONNX Runtime uses on the CPU by default.
pub fn cpu_threads() -> usize {
    limited_threads().unwrap_or_else(num_cpus::get_physical)
}

/// Returns the threads of each of `callers` concurrent runs, if `asked` is the total. The calling thread is one of a
/// run's threads; all runs share the others.
pub(super) fn threads(asked: Option<usize>, callers: usize) -> Option<usize> {
    if callers < 2 {
        return asked;
    }
    let all = asked.unwrap_or_else(cpu_threads);
    Some(all.saturating_sub(callers - 1).max(1))
}

/// Returns the number of threads that can run at the same time: the CPUs that the machine, the affinity mask and the
/// control groups' CPU quota (version 1 or 2) leave this process. With more threads, ONNX Runtime's wait for each
/// other.
pub fn usable_threads() -> usize {
    std::thread::available_parallelism().map_or_else(|_| num_cpus::get(), usize::from)
}

/// Returns the number of CPUs this process may use, if it is lower than the machine's.
///
/// ONNX Runtime counts the machine's cores. In a container that may use only a few of them it still starts one thread
/// per core, and they wait for each other.
pub(super) fn limited_threads() -> Option<usize> {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    let available = usable_threads();
    (available < count_ranges(online.trim())?).then_some(available)
}

/// Returns how many numbers a list such as `0-3,8` contains.
fn count_ranges(list: &str) -> Option<usize> {
    list.split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            last.checked_sub(first)?.checked_add(1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_share_the_threads() {
        assert_eq!(threads(Some(2), 2), Some(1));
        assert_eq!(threads(Some(8), 2), Some(7));
        assert_eq!(threads(Some(1), 2), Some(1));
        assert_eq!(threads(Some(8), 1), Some(8));
        assert_eq!(threads(None, 1), None);
        assert!(threads(None, 2).is_some_and(|n| n >= 1));
    }

    #[test]
    fn options_are_equal_if_they_open_the_same_session() {
        let options = || SessionOptions { component: "unet".into(), ..SessionOptions::default() };
        let cancelled = options();
        cancelled.cancel.cancel();
        assert_eq!(options(), cancelled);
        assert_ne!(options(), SessionOptions { frees_memory: true, ..options() });
        assert_ne!(options(), SessionOptions { axes: vec![("batch".into(), 2)], ..options() });
    }

    #[test]
    fn no_more_threads_than_can_run() {
        let usable = usable_threads();
        assert!((1..=usable).contains(&cpu_threads()), "{} of {usable}", cpu_threads());
    }

    #[test]
    fn counts_processors() {
        assert_eq!(count_ranges("0"), Some(1));
        assert_eq!(count_ranges("0-3,8-11,15"), Some(9));
        assert_eq!(count_ranges(""), None);
        assert_eq!(count_ranges("3-1"), None);
    }
}
