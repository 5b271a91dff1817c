//! The flags of `ldm-ort run`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{OverrideArgs, path};
use crate::spec::Overrides;

/// `ldm-ort run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The pipeline file, or - for standard input; or a model directory, whose first possible task is run with the
    /// model's defaults and whose images go to ./outputs.
    #[arg(value_name = "PIPELINE.toml|MODEL_DIR", value_hint = ValueHint::AnyPath, value_parser = path())]
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
    /// Reads more prompts from a text file, or - for standard input: one per line, after those of --prompt. Blank lines
    /// are skipped, and so are spaces around a prompt.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = path())]
    pub prompts_file: Option<PathBuf>,
    /// Starts every prompt from the same seeds: image i of each prompt has seed + i.
    #[arg(long, conflicts_with = "from")]
    pub same_seed: bool,
    /// Runs the pipeline once for each of these values, with the same seeds; several times for all combinations. The key
    /// is as for --set (scheduler.ddim.eta) or a plain name: scheduler, steps, guidance_scale, strength, width, height,
    /// negative_prompt. Values are separated by commas. The pipeline is opened once.
    #[arg(long, value_name = "KEY=VALUE,VALUE", conflicts_with = "from")]
    pub sweep: Vec<String>,
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
    /// True if the pipeline file or a prompt is read from standard input.
    pub fn uses_standard_input(&self) -> bool {
        let is_dash = |text: &String| text == "-";
        let keys = &self.overrides.keys;
        self.pipeline.as_ref().is_some_and(|path| path.as_os_str() == "-")
            || keys.prompt.iter().chain(&keys.negative_prompt).any(is_dash)
    }

    /// The flags that override keys, for the library.
    pub fn to_overrides(&self) -> Overrides {
        Overrides { model: self.model.clone(), inputs: self.input.clone(), ..self.overrides.to_overrides() }
    }
}
