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
    /// Lists the optimized graphs: component, sizes, size on disk, last use, and source graph.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compares every optimized graph, and every model file whose digest is cached, with its checksum, and prints a line for
    /// each. Removes damaged graphs, which the next run optimizes again; the exit code is then 1.
    Verify {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Removes optimized graphs, the least recently used first, until the cache has at most this size. Graphs in use by a
    /// running process stay.
    Trim {
        /// The size, such as "20 GB".
        #[arg(long, value_name = "SIZE", value_parser = size)]
        to: u64,
    },
    /// Removes the optimized graphs; the next run optimizes those that it needs.
    Clear {
        /// Only remove those whose source graph no longer exists, or that were optimized for another CPU.
        #[arg(long)]
        stale: bool,
    },
}

/// `ldm-ort quantize`.
#[derive(Debug, Clone, Args)]
pub struct QuantizeArgs {
    /// The model directory, with graphs in float32. It is not changed.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = path())]
    pub model: PathBuf,
    /// The weight format: half (half precision) or int8 (blocks of 64 8-bit values, each with a scale), both dequantized node by
    /// node at run time, with float32 arithmetic; or dynamic-int8 (8-bit weights of matrix products with a scale per
    /// column, and 8-bit products), which is faster on CPUs with VNNI and less exact.
    #[arg(long, value_name = "FORMAT")]
    pub weights: String,
    /// The element type of the arithmetic: float32, or half with --weights half, for devices that compute in half precision.
    /// Nodes that need float32 keep it, and so do the inputs and outputs of the graphs.
    #[arg(long, value_name = "FORMAT", default_value = "float32")]
    pub activations: String,
    /// A component to quantize, such as unet [default: the denoiser and the text encoders]. Can be repeated.
    #[arg(long, value_name = "NAME")]
    pub component: Vec<String>,
    /// The model directory to write, which must not exist yet.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = path())]
    pub output: PathBuf,
    /// Print a JSON list on stdout: for each graph its bytes before and after, the number of quantized tensors, the largest and
    /// the relative error of their weights, the tensors that stay float32, and the nodes that do, with the reasons.
    #[arg(long)]
    pub json: bool,
}

/// `ldm-ort runtime`.
#[derive(Debug, Clone, Args)]
pub struct RuntimeArgs {
    /// The action; without one, prints the library in use.
    #[command(subcommand)]
    pub action: Option<RuntimeAction>,
}

/// The actions of `ldm-ort runtime`.
#[derive(Debug, Clone, Subcommand)]
pub enum RuntimeAction {
    /// Downloads a build of ONNX Runtime, or a provider's library for it, into the cache.
    Install {
        /// The package: a build for CPUs (cpu), also for NVIDIA's GPUs (cuda), for Intel's CPUs and GPUs (openvino), for
        /// DirectX 12 GPUs on Windows (directml); or the library for GPUs with Vulkan, Metal or Direct3D 12 (webgpu), which
        /// the build cpu loads.
        #[arg(value_parser = PossibleValuesParser::new(Flavor::ALL.map(Flavor::name)).try_map(flavor))]
        build: Flavor,
    },
    /// Lists the packages in the cache.
    List,
}

fn size(text: &str) -> Result<u64, String> {
    byte_size::parse(text).ok_or_else(|| "expected a size such as \"20 GB\" or \"1.5 TiB\"".to_owned())
}

fn flavor(name: String) -> Result<Flavor, String> {
    Flavor::from_name(&name).ok_or_else(|| format!("there is no package {name}"))
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
    /// The command to print the page of, such as `run` [default: `ldm-ort` itself].
    pub command: Option<String>,
}
