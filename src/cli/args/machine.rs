//! The commands that work on graphs and on ONNX Runtime itself, and make no images.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueHint};

use super::{OverrideArgs, path};
use crate::session::Flavor;

/// `ldm-ort compile`.
#[derive(Debug, Clone, Args)]
pub struct CompileArgs {
    /// The pipeline file, or - for standard input.
    #[arg(value_name = "PIPELINE.toml", value_hint = ValueHint::FilePath, value_parser = path())]
    pub pipeline: PathBuf,
    /// What stands over the pipeline file's keys.
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

/// `ldm-ort cache`.
#[derive(Debug, Clone, Args)]
pub struct CacheArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: CacheAction,
}

/// What `ldm-ort cache` does.
#[derive(Debug, Clone, Subcommand)]
pub enum CacheAction {
    /// Lists the graphs that are kept: component, sizes, room on the disk, and the graph that each was made from.
    List {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Reads all that is kept, and the models whose digests are remembered, and compares them with what was written.
    /// Prints a line for each. What is damaged is dropped, and the next run makes it again; the exit code is 1 then.
    Verify {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Removes them; the next run makes anew what it needs.
    Clear {
        /// Only those whose graph is gone, or that were made for another processor.
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
    /// How weights are stored: half (half precision) or int8 (blocks of 64 8-bit numbers, each with a scale), widened
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
    /// What to do; without one, which library is used is told.
    #[command(subcommand)]
    pub action: Option<RuntimeAction>,
}

/// What `ldm-ort runtime` does.
#[derive(Debug, Clone, Subcommand)]
pub enum RuntimeAction {
    /// Fetches a build of ONNX Runtime into the cache ahead of time.
    Install {
        /// Which build: for the CPU alone, for NVIDIA's cards too, for Intel's CPUs and cards.
        #[arg(value_parser = PossibleValuesParser::new(Flavor::ALL.map(Flavor::name)).try_map(flavor))]
        build: Flavor,
    },
    /// Lists the builds in the cache.
    List,
}

fn flavor(name: String) -> Result<Flavor, String> {
    Flavor::from_name(&name).ok_or_else(|| format!("there is no build {name}"))
}
