//! The native half of the Python package `ldm_ort`: pipelines, batches, images, events, errors. `python/ldm_ort` is the other half,
//! which reads keyword arguments.

mod batch;
mod cancel;
mod errors;
mod events;
mod image;
mod inputs;
mod pipeline;
mod watch;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    use ldm_ort::cli::CommandPlaces;
    use std::ffi::OsString;
    use std::panic::catch_unwind;
    use std::path::PathBuf;

    use super::*;

    #[pymodule_export]
    use super::batch::Batch;
    #[pymodule_export]
    use super::cancel::Cancel;
    #[pymodule_export]
    use super::errors::{Cancelled, Error, ModelError, NonFiniteError, ProviderError};
    #[pymodule_export]
    use super::image::{Image, Preview};
    #[pymodule_export]
    use super::pipeline::{Engine, Pipeline};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// The exit code of a program of Rust that panicked.
    const PANICKED: u8 = 101;

    /// Raises ValueError for a folder or bucket that there is no store for. Touches no file, and sends nothing.
    #[pyfunction]
    fn check_store(out: &str) -> PyResult<()> {
        super::batch::store_of(out).map(|_| ()).map_err(|error| super::errors::to_python(&error))
    }

    /// Runs the command with its arguments, the first of which is its name, and returns the exit code.
    #[pyfunction]
    fn run_command(
        py: Python<'_>,
        arguments: Vec<OsString>,
        package_dir: Option<PathBuf>,
        demo_model: Option<PathBuf>,
    ) -> u8 {
        let places = CommandPlaces { onnxruntime_package: package_dir, demo_model };
        py.detach(|| catch_unwind(|| ldm_ort::cli::run_command(arguments, places)).unwrap_or(PANICKED))
    }
}
