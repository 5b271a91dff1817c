//! `ldm-ort --version`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::args::LibraryArgs;
use super::output;
use crate::error::Result;
use crate::session::{self, RuntimeOptions};

/// Prints the versions of the program and of the ONNX Runtime that it would load. Nothing is fetched.
pub(super) fn print(arguments: &[OsString], package_dir: Option<PathBuf>) -> u8 {
    let runtime = runtime(arguments, package_dir).unwrap_or_else(|error| format!("cannot be used: {error}"));
    let text = format!("ldm-ort {}\nONNX Runtime {runtime}\n", env!("CARGO_PKG_VERSION"));
    match output::text(&mut std::io::stdout(), &text) {
        Ok(()) => 0,
        Err(error) => error.exit_code(),
    }
}

/// Returns the version and the path of the library on this machine.
fn runtime(arguments: &[OsString], package_dir: Option<PathBuf>) -> Result<String> {
    let runtime = named_library(arguments).map(Into::into);
    let library = LibraryArgs { runtime, package_dir, ..LibraryArgs::default() };
    let options = RuntimeOptions { offline: true, ..library.engine()?.runtime_options(None) };
    let search = session::search(&options);
    match (search.selected(), search.error()) {
        (Some((path, version)), _) => Ok(format!("{version} ({})", path.display())),
        (None, Some(error)) => Err(error),
        (None, None) => Ok("none found".to_owned()),
    }
}

/// Returns the value of `--runtime`: clap stops at `--version` before it reads the other flags.
fn named_library(arguments: &[OsString]) -> Option<OsString> {
    let value = |at: usize, argument: &OsString| match argument.to_str()?.strip_prefix("--runtime")? {
        "" => arguments.get(at + 1).cloned(),
        rest => rest.strip_prefix('=').map(OsString::from),
    };
    arguments.iter().enumerate().find_map(|(at, argument)| value(at, argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_flag_is_read_in_both_forms() {
        let named = |line: &str| named_library(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(named("ldm-ort --runtime a.so --version"), Some("a.so".into()));
        assert_eq!(named("ldm-ort --version --runtime=b.so"), Some("b.so".into()));
        assert_eq!(named("ldm-ort --version"), None);
    }
}
