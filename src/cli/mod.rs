//! The command line: arguments, progress, printing, environment variables, exit codes.

pub mod args;
mod batch;
mod check;
mod compare;
mod completions;
mod contact_sheet;
mod demo;
mod graph_cache;
mod init;
mod inspect;
mod interrupt;
mod keys;
mod list;
mod markdown;
mod memory;
mod output;
mod plot;
mod preview;
mod progress;
mod provider_list;
mod quantize;
mod remaining;
mod requests;
mod run;
mod runtime;
mod standard_input;
mod table;
mod version;
mod writer;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::aliases::{Alias, AliasKind};
use crate::error::Result;
use crate::session::{self, Runtime, RuntimeOptions};
use args::{Cli, Command, Global};

/// Runs the program: reads the arguments, does what they say, and turns an error into a message on standard error and
/// an exit code (0 done, 1 the run failed, 2 usage, pipeline file or model directory at fault, 130 interrupted).
pub fn main() -> ExitCode {
    ExitCode::from(run_command(std::env::args_os().collect(), CommandPlaces::default()))
}

/// The places that a package in which the command is installed knows of.
#[derive(Debug, Clone, Default)]
pub struct CommandPlaces {
    /// The folder of Python's package `onnxruntime`, if the command runs in its environment.
    pub onnxruntime_package: Option<PathBuf>,
    /// The demo model's directory. Absent: next to the executable, or in the source tree.
    pub demo_model: Option<PathBuf>,
}

/// Runs the program with arguments, the first of which is its name, and returns the exit code.
pub fn run_command(arguments: Vec<OsString>, places: CommandPlaces) -> u8 {
    let CommandPlaces { onnxruntime_package: package_dir, demo_model } = places;
    let mut cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => return version::print(&arguments, package_dir),
        Err(error) => error.exit(),
    };
    cli.global.library.package_dir = package_dir;
    if let Command::Demo(args) = &mut cli.command {
        args.model = demo_model;
    }
    log(&cli.global);
    match dispatch(&cli, &mut std::io::stdout()) {
        Ok(()) => 0,
        Err(error) => {
            output::say(&format!("error: {error}"));
            error.exit_code()
        }
    }
}

fn dispatch(cli: &Cli, out: &mut (dyn Write + Send)) -> Result<()> {
    match &cli.command {
        Command::Run(args) => run::run(args, &cli.global, out),
        Command::Batch(args) => batch::batch(args, &cli.global, out),
        Command::Check(args) => check::check(args, &cli.global, out),
        Command::Inspect(args) => inspect::inspect(args, out),
        Command::Init(args) => init::init(args, out),
        Command::List(args) if args.markdown => output::text(out, &markdown::page(args.what)),
        Command::Demo(args) => demo::demo(args, out),
        Command::List(args) => list::list(args, || list_runtime(&cli.global), out),
        Command::Completions(args) => completions::print_completions(args, out),
        Command::Man(args) => completions::print_man_page(args, out),
        Command::Plot(args) => plot::plot(args, out),
        Command::Optimize(args) => graph_cache::optimize(args, &cli.global, out),
        Command::Compile(args) => {
            Alias::find(AliasKind::Command, "compile").iter().for_each(|alias| output::warn([alias.plain_warning()]));
            graph_cache::optimize(args, &cli.global, out)
        }
        Command::Cache(args) => graph_cache::run(&args.action, &cli.global, out),
        Command::Quantize(args) => quantize::quantize(args, &cli.global, out),
        Command::Runtime(args) => {
            runtime::run(args.action.as_ref(), &cli.global.library.engine()?.runtime_options(None), out)
        }
    }
}

/// Loads ONNX Runtime for a list, which is no reason to fetch it.
fn list_runtime(global: &Global) -> Result<Runtime> {
    Runtime::load(&RuntimeOptions { offline: true, ..global.library.engine()?.runtime_options(None) })
}

/// Sends what the program and ONNX Runtime log to standard error, as much of it as `-v` asks for.
fn log(global: &Global) {
    // ONNX Runtime warns of much that is of no use to know; what this program warns of is said in any case.
    let (own, others) = match global.verbose {
        0 => (LevelFilter::WARN, LevelFilter::ERROR),
        1 => (LevelFilter::INFO, LevelFilter::INFO),
        _ => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let has_colours = !plain && std::io::stderr().is_terminal();
    // With colors, tracing escapes what steers the terminal in messages by itself.
    let writer = move || -> Box<dyn Write> {
        let stderr = std::io::stderr();
        if has_colours { Box::new(stderr) } else { Box::new(output::Visible(stderr)) }
    };
    let lines = tracing_subscriber::fmt::layer().with_ansi(has_colours).with_writer(writer).without_time();
    // The loader warns of libraries newer than its interface, which is what versioned interfaces are for; one that is too
    // old is an error. `session` logs the library and its version itself.
    let levels = Targets::new()
        .with_default(others)
        .with_target(session::LOADER_LOG, LevelFilter::WARN)
        .with_target(env!("CARGO_CRATE_NAME"), own);
    // A second command in one process logs as the first one.
    let _ = tracing_subscriber::registry().with(lines).with(levels).try_init();
}
