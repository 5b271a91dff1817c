//! How a session is opened.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::Cancel;
use super::provider::ProviderChoice;
use crate::tensor::ByteEdit;

/// How far ONNX Runtime rewrites a graph when it opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Optimization {
    /// The graph as it stands.
    None,
    /// Constant folding and removal of redundant nodes: opens several times faster than [`Optimization::All`], and
    /// runs some 5 to 20 % slower on a CPU.
    Basic,
    /// Fusions too.
    Extended,
    /// Data layout for this machine too.
    #[default]
    All,
}

/// A file of weights that a graph names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightFile {
    /// The name in the graph, relative to the graph's directory.
    pub location: String,
    /// The file.
    pub path: PathBuf,
}

/// How a session is opened.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// The component's name, for messages: `unet`, `text_encoder`.
    pub component: String,
    /// Execution providers in order of preference; empty means the CPU (`cpu`).
    ///
    /// Nodes that no provider of the list takes run on the CPU only if the list ends in `cpu`; otherwise heavy
    /// nodes (convolutions, matrix products, attention) without a provider are an error. Light nodes, such as the
    /// shape arithmetic that ONNX Runtime itself moves off a GPU, may run on the CPU in any case.
    pub providers: Vec<ProviderChoice>,
    /// Threads within one node on the CPU, which are of use up to [`usable_threads`]; `None` is one for each physical core, or
    /// for each CPU the process may use if a container or an affinity mask leaves it fewer than the machine has.
    pub threads: Option<usize>,
    /// How many runs [`Session::run_each`](super::Session::run_each) makes at the same time; more than one on the
    /// processor alone. The threads are shared by all of them.
    pub callers: usize,
    /// Whether memory is laid out once for all runs of one shape.
    ///
    /// Off by default: for the few large runs of a diffusion model laying out costs more than it saves (the first
    /// run of a Stable Diffusion 1.5 UNet at 512×512 took 15.2 s with it and 11.6 s without, and 0.5 GiB more).
    pub memory_pattern: bool,
    /// How far the graph is rewritten.
    pub optimization: Optimization,
    /// Further entries of ONNX Runtime's session configuration, key and value, under its own names such as
    /// `session.disable_prepacking`.
    pub config: Vec<(String, String)>,
    /// Free axes of the inputs, by name, and the lengths that they are fixed at: a graph of which all is known folds to
    /// a third of its nodes.
    pub axes: Vec<(String, usize)>,
    /// Files of weights that ONNX Runtime is handed, mapped, under the names that the graph has for them. Empty leaves
    /// finding them to ONNX Runtime, which refuses those that a link leads to from another directory; where any is given,
    /// all that the graph names have to be.
    pub weight_files: Vec<WeightFile>,
    /// Bytes of the graph's file that are read as others; the file stays as it is.
    pub edits: Vec<ByteEdit>,
    /// The file that messages name, where the one opened stands for it.
    pub of: Option<PathBuf>,
    /// A file that stays open as long as the session, for the lock that is held on it.
    pub held: Option<Arc<File>>,
    /// Stops the opening, which can take minutes where a provider compiles.
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
            of: None,
            held: None,
            cancel: Cancel::new(),
        }
    }
}

/// The threads that ONNX Runtime uses on the CPU where nothing else is asked for.
pub fn cpu_threads() -> usize {
    limited_threads().unwrap_or_else(num_cpus::get_physical)
}

/// The threads of each of `callers` runs made at the same time where `asked` for is what all of them may use; the
/// caller's own is one of a run's threads, and those beside it are shared by all.
pub(super) fn threads(asked: Option<usize>, callers: usize) -> Option<usize> {
    if callers < 2 {
        return asked;
    }
    let all = asked.unwrap_or_else(cpu_threads);
    Some(all.saturating_sub(callers - 1).max(1))
}

/// The most threads that run at the same time: the CPUs that the machine, the affinity mask and the control groups' CPU
/// quota (version 1 or 2) leave this process. With more threads than that, ONNX Runtime's spend their time waiting for
/// each other.
pub fn usable_threads() -> usize {
    std::thread::available_parallelism().map_or_else(|_| num_cpus::get(), usize::from)
}

/// The number of CPUs this process may use, where that is fewer than the machine has.
///
/// ONNX Runtime counts the machine's cores. Where a container may use only a few of them, it starts a thread for each
/// all the same, and they spend their time waiting for each other.
pub(super) fn limited_threads() -> Option<usize> {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    let available = usable_threads();
    (available < count_ranges(online.trim())?).then_some(available)
}

/// How many numbers a list such as `0-3,8` holds.
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
