//! The command line of `ldm-ort`; see [`ldm_ort::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ldm_ort::cli::main()
}
