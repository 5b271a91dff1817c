//! Errors of opening and running graphs.

use std::path::Path;

use super::library::take_error;
use super::memory_messages::is_lack_of_memory;
use crate::error::Error;

/// Parts of ONNX Runtime's messages about threads that the system refuses to start, in lower case.
const NO_THREAD: &[&str] = &["pthread_create failed", "_beginthreadex failed"];

/// Returns the error of a graph that failed: [`Error::Memory`] if the system or a device lacks memory or threads, else
/// [`Error::Graph`]. `action` is `opening` or `running`.
///
/// WebGPU's error of a run only says that a buffer is invalid, and the reason is in the log; so the last error that was
/// logged counts too, since the caller called [`forget_error`](super::library::forget_error).
pub(super) fn graph_error(component: &str, path: &Path, action: &'static str, mut problem: String) -> Error {
    let logged = take_error().filter(|logged| is_lack_of_memory(logged) && !is_lack_of_memory(&problem));
    if let Some(reason) = logged.as_ref().and_then(|logged| logged.lines().next()) {
        problem = format!("{reason}: {problem}");
    }
    let has_no_thread = NO_THREAD.iter().any(|part| problem.to_ascii_lowercase().contains(part));
    let lacking = if has_no_thread {
        (
            "no thread can be started",
            "raise the limit of processes (ulimit -u, or the container's), or lower device.threads",
        )
    } else if is_lack_of_memory(&problem) {
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
    use ort::logging::LogLevel;

    use super::*;
    use crate::error::ErrorKind;
    use crate::session::library;

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

    /// As the WebGPU plugin 0.4.0 does, with the error that ONNX Runtime logs next.
    #[test]
    fn the_reason_can_be_in_the_log() {
        let log = |message| library::log(LogLevel::Error, "", "", "", message);
        let failed =
            || graph_error("unet", Path::new("unet.onnx"), "running", "[Invalid Buffer] is invalid".to_owned());
        log("WebGPU device error(3): Allocation size too large\n - While calling [Device].CreateBuffer().");
        log("Non-zero status code returned while running Expand node.");
        let error = failed();
        let says = "running failed: WebGPU device error(3): Allocation size too large: [Invalid Buffer] is invalid";
        assert!(error.kind() == ErrorKind::Memory && error.to_string().contains(says), "{error}");
        assert_eq!(failed().kind(), ErrorKind::Pipeline, "the reason of one error is not that of the next");
        log("WebGPU device error(3): Out of memory");
        library::forget_error();
        assert_eq!(failed().kind(), ErrorKind::Pipeline);
    }
}
