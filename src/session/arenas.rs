//! ONNX Runtime's arenas, which keep the memory of a run's intermediate results for the next run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ort::logging::LogLevel;
use ort::session::RunOptions;

use super::library::forget_error;
use super::options::SessionOptions;
use super::provider::{captures_runs, find_provider};

/// ONNX Runtime's option of a run for the arenas that it shrinks afterwards.
const SHRINKAGE: &str = "memory.enable_memory_arena_shrinkage";
/// Part of its message about an arena in that list that a session does not have, which comes before anything is run.
const UNKNOWN_ARENA: &str = "memory arena shrink list";

/// The arenas of a session, whose memory its runs free or keep.
#[derive(Debug)]
pub(super) struct Arenas {
    /// ONNX Runtime's lists of arenas, those to try first coming first. None if runs never free memory.
    lists: Vec<String>,
    /// The list in use.
    at: AtomicUsize,
    /// True if the next runs leave the memory to those after them.
    keeps: AtomicBool,
}

impl Arenas {
    pub(super) fn new(options: &SessionOptions) -> Self {
        let mut lists = Vec::new();
        // Replayed runs need the memory at the addresses at which they were captured.
        if options.frees_memory && !options.providers.iter().any(captures_runs) {
            let first = options.providers.first();
            let device =
                first.filter(|choice| find_provider(&choice.name).map_or(true, |known| known.memory.is_some()));
            let id = |name| device.and_then(|choice| choice.options.get(name));
            let id = id("device_id").or_else(|| id("deviceId")).map_or("0", String::as_str);
            let [device, host] = [device.map(|_| format!("gpu:{id}")), options.uses_arena.then(|| "cpu:0".to_owned())];
            lists.extend(device.map(|device| host.iter().fold(device, |list, host| format!("{list};{host}"))));
            lists.extend(host);
        }
        Self { lists, at: AtomicUsize::new(0), keeps: AtomicBool::new(false) }
    }

    /// Has runs from now on leave their memory to those after them, or free it again.
    pub(super) fn keep(&self, keeps: bool) {
        self.keeps.store(keeps, Ordering::Relaxed);
    }

    /// True if runs leave their memory to those after them.
    pub(super) fn keeps(&self) -> bool {
        self.keeps.load(Ordering::Relaxed)
    }

    /// Calls `run` with the options of one run.
    pub(super) fn run<T>(&self, mut run: impl FnMut(&Arc<RunOptions>) -> ort::Result<T>) -> ort::Result<T> {
        forget_error();
        loop {
            let at = self.at.load(Ordering::Relaxed);
            let list = self.lists.get(at).filter(|_| !self.keeps());
            let mut options = RunOptions::new()?;
            // The default log level: a session opened at the verbose level would stay at it.
            options.set_log_level(LogLevel::Warning)?;
            if let Some(list) = list {
                options.set(SHRINKAGE, list)?;
            }
            match run(&Arc::new(options)) {
                Err(error) if list.is_some() && error.message().contains(UNKNOWN_ARENA) => {
                    self.at.store(at + 1, Ordering::Relaxed);
                }
                Ok(made) => {
                    forget_error();
                    return Ok(made);
                }
                failed => return failed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::ProviderChoice;

    #[test]
    fn arenas_of_devices_come_first() {
        let lists = |name: &str, options: &[(&str, &str)], frees_memory| {
            let mut choice = ProviderChoice::new(name);
            choice.options.extend(options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
            Arenas::new(&SessionOptions { providers: vec![choice], frees_memory, ..SessionOptions::default() }).lists
        };
        assert_eq!(lists("cpu", &[], true), ["cpu:0"]);
        assert_eq!(lists("openvino", &[], true), ["cpu:0"]);
        assert_eq!(lists("cuda", &[("device_id", "1")], true), ["gpu:1;cpu:0", "cpu:0"]);
        assert_eq!(lists("a plugin", &[], true), ["gpu:0;cpu:0", "cpu:0"]);
        assert!(lists("cuda", &[("enable_cuda_graph", "1")], true).is_empty());
        assert!(lists("cuda", &[], false).is_empty());
    }
}
