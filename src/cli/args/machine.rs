//! The commands that work on graphs and on ONNX Runtime itself, and make no images.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueHint};

use super::{OverrideArgs, path};
use crate::byte_size;
use crate::session::Flavor;

/// `ldm-ort optimize`.
#[derive(Debug, Clone, Args)]
pub struct OptimizeArgs {
    /// The pipeline file, or - for standard input.
    #[arg(value_name = "PIPELINE.toml", value_hint = ValueHint::FilePath, value_parser = path())]
    pub pipeline: PathBuf,
    /// The keys set over the pipeline file's.
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

/// `ldm-ort cache`.
#[derive(Debug, Clone, Args)]
pub struct CacheArgs {
    /// The action.
    #[command(subcommand)]
    pub action: CacheAction,
}

/// The actions of `ldm-ort cache`.
#[derive(Debug, Clone, Subcommand)]
pub enum CacheAction {
    /// Lists the optimized graphs: component, sizes, size on disk, last use, and the graph that each was made from.
    List {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Reads every optimized graph, and every model file whose digest is cached, and compares them with their checksums.
    /// Prints a line for each. Damaged graphs are removed, and the next run makes them again; the exit code is 1 then.
    Verify {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Removes optimized graphs, the least recently used first, until the cache has at most this size. Graphs that a
    /// running process uses are not removed.
    Trim {
        /// The size, such as "20 GB".
        #[arg(long, value_name = "SIZE", value_parser = size)]
        to: u64,
    },
    /// Removes the optimized graphs; the next run makes those that it needs.
    Clear {
        /// Only remove those whose graph is gone, or that were made for another CPU.
        #[arg(long)]
        stale: bool,
    },
}

/// `ldm-ort quantize`.
#[derive(Debug, Clone, Args)]
pub struct QuantizeArgs {
    /// The model directory, with graphs in float32. It stays as it is.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = path())]
    pub model: PathBuf,
    /// The weights' form: half (half precision) or int8 (blocks of 64 8-bit numbers, each with a scale), widened
    /// as the graph runs, node by node, with arithmetic in float32; or dynamic-int8, those of matrix products in 8 bits
    /// with a scale a column, and the products made in 8 bits: faster products on CPUs with VNNI, and further off.
    #[arg(long, value_name = "FORM")]
    pub weights: String,
    /// A component whose weights are stored so, such as unet; may be given several times. Without it, the denoiser and
    /// the text encoders.
    #[arg(long, value_name = "NAME")]
    pub component: Vec<String>,
    /// The model directory that is written, which must not be there yet.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = path())]
    pub output: PathBuf,
    /// Prints a JSON list on stdout: for each graph bytes before and after, how many tensors, the largest and the
    /// relative error of the weights, and which tensors stay float32.
    #[arg(long)]
    pub json: bool,
}

/// `ldm-ort runtime`.
#[derive(Debug, Clone, Args)]
pub struct RuntimeArgs {
    /// The action; without one, prints which library is used.
    #[command(subcommand)]
    pub action: Option<RuntimeAction>,
}

/// The actions of `ldm-ort runtime`.
#[derive(Debug, Clone, Subcommand)]
pub enum RuntimeAction {
    /// Fetches a build of ONNX Runtime into the cache ahead of time.
    Install {
        /// The build: for the CPU alone, for NVIDIA's cards too, for Intel's CPUs and cards.
        #[arg(value_parser = PossibleValuesParser::new(Flavor::ALL.map(Flavor::name)).try_map(flavor))]
        build: Flavor,
    },
    /// Lists the builds in the cache.
    List,
}

fn size(text: &str) -> Result<u64, String> {
    byte_size::parse(text).ok_or_else(|| "expected a size such as \"20 GB\" or \"1.5 TiB\"".to_owned())
}

fn flavor(name: String) -> Result<Flavor, String> {
    Flavor::from_name(&name).ok_or_else(|| format!("there is no build {name}"))
}

/// `ldm-ort completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// `ldm-ort man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// The command whose page is printed, such as `run`; without one, that of `ldm-ort` itself.
    pub command: Option<String>,
}
