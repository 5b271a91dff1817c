//! The flags of `ldm-ort run`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::{OverrideArgs, path};
use crate::engine::NamePattern;
use crate::error::{Error, Result};
use crate::image::ImageFormat;
use crate::spec::Overrides;

/// `ldm-ort run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The pipeline file, or - for standard input; or a model directory, to run its first task with the model's defaults and
    /// write images to ./outputs.
    #[arg(value_name = "PIPELINE.toml|MODEL_DIR", value_hint = ValueHint::AnyPath, value_parser = path())]
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    pub pipeline: Option<PathBuf>,
    /// Run the pipeline recorded in an image of this program, to make the same image again.
    #[arg(long, value_name = "IMAGE", value_hint = ValueHint::FilePath, value_parser = path())]
    pub from: Option<PathBuf>,
    /// With --from: the model directory, if it has moved. The run warns if its files differ.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, value_parser = path(), requires = "from")]
    pub model: Option<PathBuf>,
    /// With --from: the path of an input file that has moved, by its key in the record, such as control.0.image=edges.png or
    /// lora.0.path=style.safetensors.
    #[arg(long, value_name = "KEY=PATH", requires = "from")]
    pub input: Vec<String>,
    /// A text file with more prompts, or - for standard input: one per line, after those of --prompt. Blank lines and spaces
    /// around a prompt are ignored.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = path())]
    pub prompts_file: Option<PathBuf>,
    /// Start every prompt from the same seed: image i of each prompt has seed + i.
    #[arg(long, conflicts_with = "from")]
    pub same_seed: bool,
    /// Runs the pipeline once for each of these values, with the same seeds; several times for all combinations. The key
    /// is as for --set (scheduler.ddim.eta) or a plain name: scheduler, steps, guidance_scale, strength, width, height,
    /// negative_prompt. Values are separated by commas. The pipeline is opened once. A contact sheet of all images with
    /// their values, one per prompt, is written next to them; its name ends in -sweep.
    #[arg(long, value_name = "KEY=VALUE,VALUE", conflicts_with = "from")]
    pub sweep: Vec<String>,
    /// The image format. Each holds the record for --from: PNG in text chunks, JPEG and WebP in EXIF data.
    #[arg(long, value_name = "FORMAT", default_value = "png")]
    pub format: Format,
    /// The quality of JPEG images [default: 90]. WebP and PNG images are lossless.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: Option<u8>,
    /// The images' file names without extension, with the fields {prompt}, {seed} and {index} [default: {prompt}-{seed}]. If
    /// the file exists, a number is added.
    #[arg(long, value_name = "PATTERN")]
    pub name: Option<String>,
    /// A file for the final latents of all images, float32 [n, c, h/f, w/f], before they are divided by the scaling factor.
    #[arg(long, value_name = "F.npy", value_hint = ValueHint::FilePath, value_parser = path())]
    pub save_latents: Option<PathBuf>,
    /// Print one JSON object per image on stdout, and nothing else there.
    #[arg(long)]
    pub json: bool,
    /// Print the memory of each graph and each part of the run on stderr (Linux, Windows and macOS).
    #[arg(long)]
    pub memory: bool,
    /// For pipelines with [cache.NAME] or guidance_interval: also make each image with every evaluation of the model, as
    /// NAME-full, and print PSNR in dB, SSIM and the seconds of both.
    #[arg(long)]
    pub compare: bool,
    /// The flags that override the pipeline file's keys. Last, since the heading of these flags holds for all that follow.
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

/// The formats of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// PNG.
    Png,
    /// JPEG.
    #[value(alias = "jpg")]
    Jpeg,
    /// Lossless WebP.
    Webp,
}

impl Format {
    /// Returns the format with a quality.
    ///
    /// # Errors
    /// [`Error::Input`] for a quality that the format does not have.
    pub fn with_quality(self, quality: Option<u8>) -> Result<ImageFormat> {
        match (self, quality) {
            (Self::Jpeg, quality) => Ok(ImageFormat::Jpeg(quality.unwrap_or(ImageFormat::QUALITY))),
            (Self::Png, None) => Ok(ImageFormat::Png),
            (Self::Webp, None) => Ok(ImageFormat::WebP),
            (_, Some(_)) => {
                let problem = "PNG and WebP images are lossless here and have no quality";
                Err(Error::input("--quality", problem, "add --format jpeg, or leave --quality out"))
            }
        }
    }
}

impl RunArgs {
    /// Returns the format and the names of the images.
    ///
    /// # Errors
    /// [`Error::Input`] for a quality that the format does not have, or a wrong pattern.
    pub fn form(&self) -> Result<(ImageFormat, NamePattern)> {
        let format = self.format.with_quality(self.quality)?;
        Ok((format, self.name.as_deref().map(NamePattern::parse).transpose()?.unwrap_or_default()))
    }

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
