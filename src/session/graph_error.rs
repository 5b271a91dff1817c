//! Errors of opening and running graphs.

use std::path::Path;

use crate::error::Error;

/// Parts of ONNX Runtime's messages about threads that the system refuses to start, in lower case.
const NO_THREAD: &[&str] = &["pthread_create failed", "_beginthreadex failed"];

/// Parts of its messages about memory that there is not, in lower case, of all providers.
const NO_MEMORY: &[&str] = &[
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "alloc_failed",
    "is smaller than requested bytes",
];

/// Returns the error of a graph that failed: [`Error::Memory`] if the system lacks memory or threads, else
/// [`Error::Graph`]. `action` is `opening` or `running`.
pub(super) fn graph_error(component: &str, path: &Path, action: &'static str, problem: String) -> Error {
    let message = problem.to_ascii_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    let lacking = if says(NO_THREAD) {
        (
            "no thread can be started",
            "raise the limit of processes (ulimit -u, or the container's), or lower device.threads",
        )
    } else if says(NO_MEMORY) {
        (
            "no memory is left",
            "make smaller images, close other programs or raise the container's limit, or set device.memory_budget to have \
             the run use less",
        )
    } else {
        return Error::Graph { component: component.to_owned(), path: path.to_path_buf(), action, problem };
    };
    let (lacks, help) = lacking;
    let problem = format!("{lacks}: {component} ({}): {action} failed: {problem}", path.display());
    Error::Memory { problem, help: help.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_lack_of_threads_or_memory_is_no_fault_of_the_graph() {
        let thread =
            "env.cc:327 PosixThread pthread_create failed, error code: 11 error msg: Resource temporarily unavailable";
        let memory = "bfc_arena.cc:361 Failed to allocate memory for requested buffer of size 137438953472";
        for (problem, kind, says) in [
            (thread, ErrorKind::Memory, "memory: no thread can be started: unet (unet.onnx): opening failed: env.cc"),
            (memory, ErrorKind::Memory, "memory: no memory is left: unet (unet.onnx): opening failed: bfc_arena.cc"),
            ("std::bad_alloc", ErrorKind::Memory, "device.memory_budget"),
            ("CUDA failure 2: out of memory", ErrorKind::Memory, "device.memory_budget"),
            (
                "This is an invalid model",
                ErrorKind::Pipeline,
                "unet (unet.onnx): opening failed: This is an invalid model",
            ),
        ] {
            let error = graph_error("unet", Path::new("unet.onnx"), "opening", problem.to_owned());
            assert!(error.kind() == kind && error.to_string().contains(says), "{error}");
        }
    }
}
