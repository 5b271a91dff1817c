//! The flags of `ldm-ort run`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{OverrideArgs, path};
use crate::spec::Overrides;

/// `ldm-ort run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The pipeline file, or - for standard input.
    #[arg(value_name = "PIPELINE.toml", value_hint = ValueHint::FilePath, value_parser = path())]
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    pub pipeline: Option<PathBuf>,
    /// Runs the pipeline recorded in an image that this program made, to make the same image again.
    #[arg(long, value_name = "IMAGE.png", value_hint = ValueHint::FilePath, value_parser = path())]
    pub from: Option<PathBuf>,
    /// With --from: the model directory, if it is not where the record says. The run says if its files are others.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = path(), requires = "from")]
    pub model: Option<PathBuf>,
    /// With --from: a file that the record names, if it is not there, by its key in the record, such as
    /// control.0.image=edges.png or lora.0.path=style.safetensors.
    #[arg(long, value_name = "KEY=PATH", requires = "from")]
    pub input: Vec<String>,
    /// Writes the final latents of all images here, float32 [n, c, h/f, w/f], before they are divided by the
    /// scaling factor.
    #[arg(long, value_name = "F.npy", value_hint = ValueHint::FilePath, value_parser = path())]
    pub save_latents: Option<PathBuf>,
    /// Prints one JSON object an image on stdout, and nothing else there.
    #[arg(long)]
    pub json: bool,
    /// Says on stderr what each graph and each part of the run takes of the memory. On Linux only.
    #[arg(long)]
    pub memory: bool,
    /// Makes each image a second time with every evaluation of the model, and prints how alike the two are (PSNR in
    /// dB, SSIM) beside the seconds of both; for pipelines with [cache.NAME] or guidance_interval. The second image
    /// has -full at the end of its name.
    #[arg(long)]
    pub compare: bool,
    /// The flags that override the pipeline file's keys. Last, since the heading of these flags holds for all that follow.
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

impl RunArgs {
    /// The flags that override keys, for the library.
    pub fn to_overrides(&self) -> Overrides {
        Overrides { model: self.model.clone(), inputs: self.input.clone(), ..self.overrides.to_overrides() }
    }
}
