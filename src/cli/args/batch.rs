//! The flags of `ldm-ort batch`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::run::Format;
use super::{KeyArgs, path};
use crate::error::Result;
use crate::image::ImageFormat;

/// `ldm-ort batch`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BatchArgs {
    /// Another action than to make images.
    #[command(subcommand)]
    pub action: Option<BatchAction>,
    /// The images to make.
    #[command(flatten)]
    pub images: BatchImageArgs,
}

/// The actions of `ldm-ort batch`.
#[derive(Debug, Clone, Subcommand)]
pub enum BatchAction {
    /// Checks that every image of every request exists, decodes, and was made from this model and this request. Prints a line
    /// for each that does not; the exit code is then 1.
    Verify(Box<BatchImageArgs>),
}

/// The pipeline, requests and folder of a batch.
#[derive(Debug, Clone, Args)]
pub struct BatchImageArgs {
    /// The pipeline file, or - for standard input; or a model directory, to run its first task with the model's defaults.
    #[arg(value_name = "PIPELINE.toml|MODEL_DIR", value_hint = ValueHint::AnyPath, value_parser = path(), required = true)]
    pub pipeline: Option<PathBuf>,
    /// The requests, or - for standard input: JSON lines, each a string (a prompt) or an object (a request, such as
    /// {"prompt": "a cat", "seed": 7}); a file named .txt has a prompt per line.
    #[arg(value_name = "PROMPTS.jsonl", value_hint = ValueHint::FilePath, value_parser = path(), required = true)]
    pub requests: Option<PathBuf>,
    /// The folder for images and manifests, or the address of a bucket, such as s3://bucket/prefix, in programs built with
    /// the feature s3.
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, required = true)]
    pub out: Option<String>,
    /// Only the images of shard I of N, counted from 1; or auto, from the variables of Slurm's job arrays or of AWS Batch; or
    /// auto/N, for Kubernetes Indexed Jobs of N completions.
    #[arg(long, value_name = "I/N|auto|auto/N")]
    pub shard: Option<String>,
    /// The image format. The same image in another format is another file.
    #[arg(long, value_name = "FORMAT", default_value = "png")]
    pub format: Format,
    /// The quality of JPEG images [default: 90].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: Option<u8>,
    /// Print JSON lines on stdout: one per image or failed line, then a summary.
    #[arg(long)]
    pub json: bool,
    /// The flags that override the pipeline file's keys.
    #[command(flatten)]
    pub keys: KeyArgs,
}

impl BatchImageArgs {
    /// Returns the format of the images.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) for a quality that the format does not have.
    pub fn image_format(&self) -> Result<ImageFormat> {
        self.format.with_quality(self.quality)
    }
}
