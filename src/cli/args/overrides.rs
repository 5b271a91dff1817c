//! The flags over a pipeline file's keys.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::path;
use crate::spec::Overrides;

/// The flags that override a pipeline file's keys.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Overrides of the pipeline file's keys")]
pub struct OverrideArgs {
    /// Those that every command on a pipeline takes.
    #[command(flatten)]
    pub keys: KeyArgs,
    /// The scheduler, with the defaults of its table; see `ldm-ort list schedulers`.
    #[arg(long, value_name = "NAME")]
    pub scheduler: Option<String>,
    /// The folder for the images, relative to the current directory.
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = path())]
    pub output: Option<PathBuf>,
    /// Preview each image every N steps [default: 1]: in the file NAME.preview.png next to the image, which is removed when
    /// the image is written, and in terminals that show images (kitty's or iTerm2's protocol).
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1")]
    pub preview: Option<u64>,
}

impl OverrideArgs {
    /// The same for the library.
    pub fn to_overrides(&self) -> Overrides {
        let Self { keys, scheduler, output, preview } = self.clone();
        Overrides { scheduler, output, preview, ..keys.to_overrides() }
    }
}

/// The flags that override a pipeline file's keys and mean the same to every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Overrides of the pipeline file's keys")]
pub struct KeyArgs {
    /// Text describing the image, or - for standard input. Can be repeated for several prompts.
    #[arg(short, long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// Text describing what the image should not show.
    #[arg(short, long, value_name = "TEXT")]
    pub negative_prompt: Option<String>,
    /// The seed of the first image; image i has seed + i.
    #[arg(short, long, value_name = "N")]
    pub seed: Option<u64>,
    /// The number of scheduler steps.
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// The number of images per prompt.
    #[arg(long, value_name = "N")]
    pub images: Option<u64>,
    /// The images' width in pixels.
    #[arg(long, value_name = "PIXELS")]
    pub width: Option<u64>,
    /// The images' height in pixels.
    #[arg(long, value_name = "PIXELS")]
    pub height: Option<u64>,
    /// The execution provider, or several in order of preference; see `ldm-ort list providers`.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub provider: Vec<String>,
    /// The shared library of a plugin provider, whose name in ONNX Runtime --provider then takes. Can be repeated.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, value_parser = path())]
    pub provider_library: Vec<PathBuf>,
    /// The type in which denoisers and VAEs multiply on the CPU: float32, bf16, int8 for linear layers, or auto for bf16
    /// where the CPU has it.
    #[arg(long, value_name = "TYPE")]
    pub precision: Option<String>,
    /// Any key, such as `task.text-to-image.guidance_scale=5`. Paths are relative to the current directory. Can be repeated.
    #[arg(long, value_name = "TABLE.KEY=VALUE")]
    pub set: Vec<String>,
}

impl KeyArgs {
    /// The same for the library.
    pub fn to_overrides(&self) -> Overrides {
        Overrides {
            prompts: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            seed: self.seed,
            steps: self.steps,
            images: self.images,
            width: self.width,
            height: self.height,
            providers: self.provider.clone(),
            provider_libraries: self.provider_library.clone(),
            precision: self.precision.clone(),
            set: self.set.clone(),
            ..Default::default()
        }
    }
}
