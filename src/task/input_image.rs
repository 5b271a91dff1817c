//! The images that a task starts from: how they are named, read, encoded and masked.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use ndarray::{Array4, ArrayD, Axis, IxDyn, concatenate};

use super::context::{StageOutput, TaskContext};
use crate::error::{Error, Result};
use crate::image::{self, InputLimit, Rgb8};
use crate::keys::{Origin, Table, Value, Writer};
use crate::vae::Posterior;

/// The image that a task starts from, or its mask.
#[derive(Clone, PartialEq, Eq)]
pub enum InputImage {
    /// The image in a file.
    File(PathBuf),
    /// Pixels in memory, which only a program can give. No limit of pixels applies to them. A spec that holds them is
    /// written without them, and the records of its images say that they cannot be made again.
    Pixels(Arc<Rgb8>),
    /// In a `[[stage]]`: the output of the stage before.
    StageOutput,
}

impl InputImage {
    /// The path, if the image is in a file.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Pixels(_) | Self::StageOutput => None,
        }
    }

    /// True if the image is in memory.
    pub fn is_in_memory(&self) -> bool {
        matches!(self, Self::Pixels(_))
    }

    /// The name of the image in messages: its path, if it is in a file.
    pub fn describe(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Pixels(_) => "the image given in memory".to_owned(),
            Self::StageOutput => "the image handed on".to_owned(),
        }
    }

    /// The image under `image` of a task's table; in a stage without one, the output of the stage before.
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        if table.get("image").is_none() && table.is_in_stage() {
            return Self::StageOutput;
        }
        table.require("image", "the path of an image");
        Self::at(table, "image")
    }

    /// The image under a key: a path, or in a request also an image in memory or the text `data:image/png;base64,…`.
    pub(crate) fn at(table: &mut Table<'_>, key: &str) -> Self {
        let Some(item) = table.get(key) else { return Self::File(PathBuf::new()) };
        match item.value() {
            Value::Pixels(image) => return Self::Pixels(Arc::clone(image)),
            Value::String(text) if item.origin() == Origin::Request && text.starts_with(DATA_URI) => {
                match image_of_data_uri(text) {
                    Ok(image) => return image.into(),
                    Err(problem) => item.report(problem),
                }
                return Self::File(PathBuf::new());
            }
            _ => {}
        }
        Self::File(table.file_path(key).unwrap_or_default())
    }

    /// Width and height; `stage_output` is the size of a stage's input, `None` if that is not known.
    pub(crate) fn dimensions(
        &self,
        stage_output: Option<(usize, usize)>,
        limit: InputLimit,
    ) -> Result<Option<(usize, usize)>> {
        match self {
            Self::File(path) => image::dimensions(path, limit).map(Some),
            Self::Pixels(image) => Ok(Some((image.width(), image.height()))),
            Self::StageOutput => Ok(stage_output),
        }
    }

    /// The pixels of an image that is not the output of a stage.
    pub(crate) fn load(&self, limit: InputLimit) -> Result<Cow<'_, Rgb8>> {
        match self {
            Self::File(path) => image::load(path, limit).map(Cow::Owned),
            Self::Pixels(image) => Ok(Cow::Borrowed(image)),
            Self::StageOutput => Err(no_stage_output("image")),
        }
    }

    pub(crate) fn write(&self, key: &str, writer: &mut Writer) {
        if let Self::File(path) = self {
            writer.path(key, path);
        }
    }
}

impl fmt::Debug for InputImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            // Without the pixels themselves, which are millions of numbers.
            Self::Pixels(image) => write!(f, "Pixels({}×{})", image.width(), image.height()),
            Self::StageOutput => f.write_str("StageOutput"),
        }
    }
}

impl From<PathBuf> for InputImage {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&PathBuf> for InputImage {
    fn from(path: &PathBuf) -> Self {
        Self::File(path.clone())
    }
}

impl From<&Path> for InputImage {
    fn from(path: &Path) -> Self {
        Self::File(path.to_path_buf())
    }
}

impl From<&str> for InputImage {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

impl From<Rgb8> for InputImage {
    fn from(image: Rgb8) -> Self {
        Self::Pixels(Arc::new(image))
    }
}

impl From<Arc<Rgb8>> for InputImage {
    fn from(image: Arc<Rgb8>) -> Self {
        Self::Pixels(image)
    }
}

/// An image as the VAE takes it, at the size of this run: `[1, 3, h, w]` in [-1, 1].
pub(super) fn pixels(
    image: &InputImage,
    (width, height): (usize, usize),
    stage: &TaskContext<'_>,
) -> Result<ArrayD<f32>> {
    let image = match (image, &stage.stage_output) {
        (InputImage::StageOutput, Some(StageOutput::Image(image))) => image::resize(image, width, height)?,
        _ => image::resize(image.load(stage.input_limit)?.as_ref(), width, height)?,
    };
    Ok(image::to_tensor(&image).into_dyn())
}

const DATA_URI: &str = "data:";

/// Decodes the image in a `data:` URI (RFC 2397) with base64.
fn image_of_data_uri(text: &str) -> std::result::Result<Rgb8, String> {
    let (_, encoded) = text.split_once(";base64,").ok_or("expected data:image/png;base64,… or a path")?;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|error| format!("holds a data: URI that is not base64: {error}"))?;
    Rgb8::decode(&bytes, InputLimit::default()).map_err(|error| error.to_string())
}

/// The error of a task in a stage that is run by itself.
pub(super) fn no_stage_output(what: &str) -> Error {
    Error::input(
        "task",
        format!("begins with the {what} of a stage before it, and was handed none"),
        "run it with execution::Execution, which hands it on",
    )
}

/// Reads the image that a task starts from, if it is a file.
pub(super) fn check(image: &InputImage, limit: InputLimit) -> Result<()> {
    image.file().map_or(Ok(()), |path| image::load(path, limit).map(drop))
}

/// Encodes `[1, 3, h, w]` pixels with the VAE.
pub(super) fn posterior(pixels: &ArrayD<f32>, what: &InputImage, stage: &mut TaskContext<'_>) -> Result<Posterior> {
    let Some(encoder) = stage.encoder.as_deref_mut() else {
        return Err(Error::input("task", "this model directory has no encoder for images", "export vae_encoder too"));
    };
    let posterior = encoder.encode(pixels.view(), stage.cancel)?;
    let shape = &posterior.mode().shape()[1..];
    if shape != stage.sample_shape {
        return Err(Error::input(
            what.describe(),
            format!("encoded to {shape:?}, and the denoiser takes {:?}", stage.sample_shape),
            "encoder and denoiser are not of one model",
        ));
    }
    Ok(posterior)
}

/// Latents for the diffusion, drawn for each image of the batch: `[n, c, h/f, w/f]`.
pub(super) fn drawn(posterior: &Posterior, stage: &mut TaskContext<'_>) -> Result<ArrayD<f32>> {
    let scaling = stage.model.scaling;
    let latents: Vec<_> =
        (0..stage.images()).map(|i| posterior.sample(scaling, |out| stage.noise.draw(i, out))).collect();
    let views: Vec<_> = latents.iter().map(|l| l.view()).collect();
    concatenate(Axis(0), &views).map_err(|e| Error::input("image", e.to_string(), ""))
}

/// A mask at the size of this run, `[1, 1, h, w]`: 1 where its image is at least half white, else 0.
///
/// # Errors
/// [`Error::Input`] where it is all black, which leaves nothing to draw.
pub(super) fn mask(mask: &InputImage, (width, height): (usize, usize), limit: InputLimit) -> Result<Array4<f32>> {
    let image = image::resize(mask.load(limit)?.as_ref(), width, height)?;
    let values = image::luma(&image).iter().map(|&v| if f32::from(v) / 255.0 < 0.5 { 0.0 } else { 1.0 }).collect();
    let values = Array4::from_shape_vec((1, 1, height, width), values)
        .map_err(|e| Error::input(mask.describe(), e.to_string(), ""))?;
    if values.iter().all(|&v| v == 0.0) {
        return Err(Error::input(
            mask.describe(),
            "is black all over, so that nothing is to be drawn",
            "a mask is white where the image is to be drawn anew",
        ));
    }
    Ok(values)
}

/// The nearest values of `[1, 1, h, w]` at another height and width, as torch's `interpolate` picks them.
pub(super) fn nearest(mask: &Array4<f32>, height: usize, width: usize) -> Array4<f32> {
    let (_, _, from_height, from_width) = mask.dim();
    // torch rounds the ratio to float32 before it multiplies.
    let at = |i: usize, from: usize, to: usize| ((i as f32 * (from as f32 / to as f32)) as usize).min(from - 1);
    Array4::from_shape_fn((1, 1, height, width), |(_, _, y, x)| {
        mask[[0, 0, at(y, from_height, height), at(x, from_width, width)]]
    })
}

/// One `[1, c, h, w]` for each of `rows`.
pub(super) fn repeated(one: ArrayD<f32>, rows: usize) -> ArrayD<f32> {
    let mut shape = one.shape().to_vec();
    if let Some(first) = shape.first_mut() {
        *first = rows;
    }
    one.broadcast(IxDyn(&shape)).map_or_else(|| one.clone(), |all| all.as_standard_layout().into_owned())
}

/// `tensor` for each branch, one after the other.
pub(super) fn for_branches(tensor: &ArrayD<f32>, branches: usize) -> Result<ArrayD<f32>> {
    let views = vec![tensor.view(); branches];
    concatenate(Axis(0), &views).map_err(|e| Error::input("image", e.to_string(), ""))
}

/// Requires that a mask has the shape of its image, be it larger or smaller.
pub(super) fn same_shape((width, height): (usize, usize), mask: &InputImage, limit: InputLimit) -> Result<()> {
    let Some((mask_width, mask_height)) = mask.dimensions(None, limit)? else { return Ok(()) };
    // Up to a pixel of rounding in either.
    let (a, b) = (width * mask_height, height * mask_width);
    if a.abs_diff(b) <= width.max(height).max(mask_width).max(mask_height) {
        return Ok(());
    }
    Err(Error::input(
        mask.describe(),
        format!("is {mask_width}×{mask_height} pixels, another shape than the image's {width}×{height}"),
        "make the mask from the image, so that their edges meet",
    ))
}
