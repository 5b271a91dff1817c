//! The command line's commands and flags.

mod batch;
mod machine;
mod overrides;
mod run;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::engine::Engine;
use crate::error::Result;
use crate::files;

pub use batch::{BatchAction, BatchArgs, BatchImageArgs};
pub use machine::{
    CacheAction, CacheArgs, CompletionsArgs, ManArgs, OptimizeArgs, QuantizeArgs, RuntimeAction, RuntimeArgs,
};
pub use overrides::{KeyArgs, OverrideArgs};
pub use run::RunArgs;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the run failed
  2    the command line, the pipeline file, the model directory, the provider or ONNX Runtime is at fault
  70   a bug of the program
  130  interrupted

Results go to stdout, everything else to stderr.";

const RUN_EXAMPLES: &str = "\
Examples:
  ldm-ort run pipeline.toml
  ldm-ort run pipeline.toml -p 'a green star' -s 7 --images 4
  ldm-ort run models/shapes -p 'a green star' -n blurry -o stars
  ldm-ort run pipeline.toml --prompts-file prompts.txt --same-seed
  ldm-ort run pipeline.toml --sweep scheduler=euler,unipc --sweep guidance_scale=5,7.5
  ldm-ort run pipeline.toml --scheduler ddim --set scheduler.ddim.eta=1.0 --steps 20
  ldm-ort run pipeline.toml --provider tensorrt,cuda
  ldm-ort run pipeline.toml --preview 5
  ldm-ort run --from outputs/image.png";

const BATCH_EXAMPLES: &str = "\
Examples:
  ldm-ort batch pipeline.toml prompts.jsonl --out images
  ldm-ort batch models/shapes prompts.txt --out images --shard 1/4
  ldm-ort batch pipeline.toml prompts.jsonl --out images --shard auto
  ldm-ort batch verify pipeline.toml prompts.jsonl --out images";

const PLOT_EXAMPLES: &str = "\
Examples:
  ldm-ort plot pipeline.toml
  ldm-ort plot pipeline.toml --scheduler euler --scheduler 'DPM++ 2M Karras' --steps 12 --output schedules.svg";

const OPTIMIZE_EXAMPLES: &str = "\
Examples:
  ldm-ort optimize pipeline.toml
  ldm-ort optimize pipeline.toml --width 768 --height 512";

const CACHE_EXAMPLES: &str = "\
Examples:
  ldm-ort cache list
  ldm-ort cache trim --to '20 GB'
  ldm-ort cache clear --stale";

const QUANTIZE_EXAMPLES: &str = "\
Examples:
  ldm-ort quantize sd15 --weights int8 --output sd15-int8
  ldm-ort quantize sd15 --weights half --component unet --output sd15-half
  ldm-ort quantize sd15 --weights half --activations half --output sd15-float16";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  ldm-ort completions bash > ~/.local/share/bash-completion/completions/ldm-ort
  ldm-ort completions fish > ~/.config/fish/completions/ldm-ort.fish";

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Reads a path, `~` expanded: no shell does that in `--flag=~/path`.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| files::expand_home(&path))
}

/// Runs latent diffusion models on ONNX Runtime, from a model directory and a pipeline.toml to images.
#[derive(Debug, Clone, Parser)]
#[command(name = "ldm-ort", version, after_help = EXIT_CODES, styles = STYLES, max_term_width = 100)]
#[command(propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// The arguments of every command.
    #[command(flatten)]
    pub global: Global,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Runs a pipeline and writes its images.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Makes the images of many requests: resumable, in shards for several machines, each image once.
    #[command(after_help = BATCH_EXAMPLES)]
    Batch(Box<BatchArgs>),
    /// Checks a pipeline without running it: prints every mistake, and every setting with its source.
    Check(Box<CheckArgs>),
    /// Describes a model directory: components, the inputs and outputs of their graphs, missing files.
    Inspect(InspectArgs),
    /// Prints a pipeline.toml for a model directory.
    #[command(after_help = "Example:\n  ldm-ort init models/shapes > pipeline.toml")]
    Init(InitArgs),
    /// Lists schedulers, tasks, execution providers, families, keys, commands, or old names that still work.
    List(ListArgs),
    /// Plots the schedules of one or several schedulers: timesteps, sigmas and signal-to-noise ratios over the steps.
    #[command(after_help = PLOT_EXAMPLES)]
    Plot(Box<PlotArgs>),
    /// Optimizes a pipeline's graphs for this machine, which its first run would do otherwise.
    #[command(after_help = OPTIMIZE_EXAMPLES)]
    Optimize(Box<OptimizeArgs>),
    /// The old name of `optimize`.
    #[command(hide = true)]
    Compile(Box<OptimizeArgs>),
    /// Lists, verifies, trims or clears the cache of optimized graphs.
    #[command(after_help = CACHE_EXAMPLES)]
    Cache(CacheArgs),
    /// Writes a copy of a model directory with quantized weights, for less memory or faster products.
    #[command(after_help = QUANTIZE_EXAMPLES)]
    Quantize(QuantizeArgs),
    /// Writes the demo pipeline and its model into a folder: pipeline.toml and models/shapes.
    #[command(after_help = "Example:\n  ldm-ort demo demo && ldm-ort run demo/pipeline.toml")]
    Demo(DemoArgs),
    /// Prints the ONNX Runtime library in use and the reason for it, or downloads one.
    #[command(after_help = "Examples:\n  ldm-ort runtime\n  ldm-ort runtime install webgpu\n  ldm-ort runtime list")]
    Runtime(RuntimeArgs),
    /// Prints a completion script for a shell.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Prints a man page.
    #[command(after_help = "Examples:\n  ldm-ort man > ldm-ort.1\n  ldm-ort man run | man -l -")]
    Man(ManArgs),
}

/// The arguments of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Only print warnings and errors on stderr: no progress, no notes.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more on stderr; given twice, everything, including ONNX Runtime's messages.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// The location of ONNX Runtime's library, and permission to download one.
    #[command(flatten)]
    pub library: LibraryArgs,
}

/// The location of ONNX Runtime's library, and permission to download one.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "ONNX Runtime")]
pub struct LibraryArgs {
    /// ONNX Runtime's shared library, as a file or its folder. No other place is searched.
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::AnyPath, value_parser = path())]
    pub runtime: Option<PathBuf>,
    /// Never download. If ONNX Runtime is not installed, the error describes the installation by hand. LDM_ORT_OFFLINE=1 in
    /// the environment does the same.
    #[arg(long, global = true)]
    pub offline: bool,
    /// The Python package index to download ONNX Runtime from [default: LDM_ORT_INDEX_URL, PIP_INDEX_URL, UV_DEFAULT_INDEX,
    /// pip's configuration, or the public index].
    #[arg(long, global = true, value_name = "URL", value_hint = ValueHint::Url)]
    pub index_url: Option<String>,
    /// The folder of Python's package `onnxruntime`, for the command of a Python environment.
    #[arg(skip)]
    pub package_dir: Option<PathBuf>,
}

impl LibraryArgs {
    /// Makes the engine of these flags and of the environment.
    ///
    /// # Errors
    /// As [`EngineBuilder::build`](crate::EngineBuilder::build).
    pub fn engine(&self) -> Result<Engine> {
        let mut builder = Engine::builder();
        if let Some(path) = &self.runtime {
            builder = builder.runtime_path(path);
        }
        if self.offline {
            builder = builder.offline(true);
        }
        if let Some(url) = &self.index_url {
            builder = builder.index_url(url);
        }
        if let Some(dir) = &self.package_dir {
            builder = builder.package_dir(dir);
        }
        builder.build()
    }
}

/// `ldm-ort check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The pipeline file, or - for standard input.
    #[arg(value_name = "PIPELINE.toml", value_hint = ValueHint::FilePath, value_parser = path())]
    pub pipeline: PathBuf,
    /// Also open the graphs, on the providers that would run them, and print the number of nodes that each provider took.
    #[arg(long)]
    pub open: bool,
    /// Also run each component once on its provider and once on the CPU, with ONNX Runtime's own operators, and compare the
    /// results. Exits with code 2 if one is wrong.
    #[arg(long)]
    pub verify: bool,
    /// With --verify, print a JSON object a component on stdout, and nothing else: component, graph, provider, precision,
    /// tolerance, verified (null if it could not be compared), relative_l2 and largest_difference, or the reason.
    #[arg(long, requires = "verify")]
    pub json: bool,
    /// Also check that the run can write its final latents to this file.
    #[arg(long, value_name = "F.npy", value_hint = ValueHint::FilePath, value_parser = path())]
    pub save_latents: Option<PathBuf>,
    /// The keys set over the pipeline file's.
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

/// `ldm-ort plot`.
#[derive(Debug, Clone, Args)]
pub struct PlotArgs {
    /// The pipeline file, or - for standard input.
    #[arg(value_name = "PIPELINE.toml", value_hint = ValueHint::FilePath, value_parser = path())]
    pub pipeline: PathBuf,
    /// A further scheduler, with the same model's configuration and number of steps: any name of `ldm-ort list schedulers`.
    /// Can be repeated.
    #[arg(long, value_name = "NAME")]
    pub scheduler: Vec<String>,
    /// The SVG file to write [default: the pipeline file's name with the extension .svg, next to it].
    #[arg(short, long, value_name = "F.svg", value_hint = ValueHint::FilePath, value_parser = path())]
    pub output: Option<PathBuf>,
    /// Print a JSON object on stdout: the SVG file's path, and for each scheduler the position in steps, timestep, sigma and
    /// signal-to-noise ratio of every evaluation; null is infinite.
    #[arg(long)]
    pub json: bool,
    /// The keys set over the pipeline file's.
    #[command(flatten)]
    pub overrides: KeyArgs,
}

/// `ldm-ort inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// The model directory, or a pipeline file, whose `[model]` table can describe what the directory does not.
    #[arg(value_name = "DIR|PIPELINE.toml", value_hint = ValueHint::AnyPath, value_parser = path())]
    pub model: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ldm-ort init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The model directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = path())]
    pub model: PathBuf,
}

/// `ldm-ort demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// The folder, created if it does not exist. Files with other contents are not replaced.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = path())]
    pub dir: PathBuf,
    /// The demo model's directory, where the command's package has it.
    #[arg(skip)]
    pub model: Option<PathBuf>,
}

/// `ldm-ort list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// The table to print.
    pub what: Listing,
    /// Print JSON; for the keys, a JSON schema of pipeline.toml.
    #[arg(long)]
    pub json: bool,
    /// Print the page of docs/reference.
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// For the providers: the library of a plugin provider to list with its devices. Can be repeated.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, value_parser = path())]
    pub provider_library: Vec<PathBuf>,
}

/// The tables of `ldm-ort list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// Schedulers: names for [scheduler.NAME] and --scheduler.
    Schedulers,
    /// Tasks: names for [task.NAME], and their keys.
    Tasks,
    /// Execution providers: names for --provider, and the availability of each.
    Providers,
    /// Model families, with their tasks and diffusers' pipeline classes.
    Families,
    /// Keys of pipeline.toml.
    Keys,
    /// Commands.
    Commands,
    /// Old names of keys, values, folders, variables, commands and record fields that still work, with the new ones.
    Aliases,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::session::Flavor;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_read() {
        let read = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        let Ok(Command::Run(run)) = read("ldm-ort run p.toml --prompt a --prompt b --provider cuda,cpu --json -q")
        else {
            panic!("run is not read");
        };
        assert_eq!(run.overrides.keys.prompt, ["a", "b"]);
        assert_eq!(run.overrides.to_overrides().providers, ["cuda", "cpu"]);
        assert!(matches!(read("ldm-ort run --from x.png"), Ok(Command::Run(run)) if run.pipeline.is_none()));
        assert!(matches!(read("ldm-ort runtime"), Ok(Command::Runtime(RuntimeArgs { action: None }))));
        let install = read("ldm-ort runtime install openvino --offline");
        let Ok(Command::Runtime(RuntimeArgs { action: Some(RuntimeAction::Install { build }) })) = install else {
            panic!("{install:?}");
        };
        assert_eq!(build, Flavor::OpenVino);
        for line in [
            "ldm-ort",
            "ldm-ort run",
            "ldm-ort run p.toml --from x.png",
            "ldm-ort run p.toml --steps -1",
            "ldm-ort run p.toml --steps 1.5",
            "ldm-ort run p.toml -q -v",
            "ldm-ort list models",
            "ldm-ort runtime install rocm",
            "ldm-ort cache",
            "ldm-ort optimize",
            "ldm-ort compile",
            "ldm-ort cache trim",
            "ldm-ort cache trim --to much",
            "ldm-ort paint",
        ] {
            assert_eq!(read(line).map_err(|error| error.exit_code()).err(), Some(2), "{line}");
        }
    }

    #[test]
    fn a_slip_is_answered_with_what_was_meant() {
        let error = |line: &str| Cli::try_parse_from(line.split(' ')).map(|_| ()).unwrap_err().to_string();
        assert!(error("ldm-ort inspct d").contains("'inspect'"));
        assert!(error("ldm-ort run p.toml --step 5").contains("'--steps'"));
        assert!(error("ldm-ort list scheduler").contains("'schedulers'"));
    }
}
