//! Images and previews.

use std::path::PathBuf;

use ldm_ort::Rgb8;
use ldm_ort::image::{ImageFormat, encode_as};
use pyo3::exceptions::{PyImportError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::errors::{not_picklable, to_python};

const PICKLE_ADVICE: &str = "send `image.encode(\"png\")`, which holds the record too, or `numpy.array(image)`";

/// A finished image: `height` rows of `width` RGB pixels, 8 bits a channel, and the record of how it was made.
///
/// `numpy.asarray(image)` is a read-only uint8 array `[height, width, 3]` of the image's own memory.
#[pyclass(frozen, module = "ldm_ort")]
pub(crate) struct Image(ldm_ort::Image);

/// A preview of an image that is not finished: RGB pixels, 8 bits a channel. It has no record.
///
/// `numpy.asarray(preview)` is a read-only uint8 array `[height, width, 3]` of the preview's own memory.
#[pyclass(frozen, module = "ldm_ort")]
pub(crate) struct Preview {
    pixels: Rgb8,
    index: usize,
    step: usize,
}

impl From<ldm_ort::Image> for Image {
    fn from(image: ldm_ort::Image) -> Self {
        Self(image)
    }
}

impl Preview {
    pub(crate) fn new(index: usize, step: usize, width: usize, height: usize, rgb: Vec<u8>) -> PyResult<Self> {
        let pixels = Rgb8::new(width, height, rgb);
        let pixels = pixels.ok_or_else(|| PyRuntimeError::new_err("internal error: a preview without pixels"))?;
        Ok(Self { pixels, index, step })
    }
}

/// NumPy's description of pixels that the object owns, which an array keeps alive.
fn array_interface<'py>(py: Python<'py>, pixels: &Rgb8) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("version", 3)?;
    dict.set_item("shape", (pixels.height(), pixels.width(), 3))?;
    dict.set_item("typestr", "|u1")?;
    dict.set_item("data", (pixels.data().as_ptr() as usize, true))?;
    Ok(dict)
}

fn to_pil<'py>(py: Python<'py>, pixels: &Rgb8) -> PyResult<Bound<'py, PyAny>> {
    let pil = py.import("PIL.Image").map_err(|error| {
        let problem = PyImportError::new_err("to_pil() needs Pillow\n  hint: pip install pillow");
        problem.set_cause(py, Some(error));
        problem
    })?;
    let size = (pixels.width(), pixels.height());
    pil.call_method1("frombytes", ("RGB", size, PyBytes::new(py, pixels.data())))
}

/// Encodes pixels without a record.
fn plain<'py>(py: Python<'py>, pixels: &Rgb8, format: ImageFormat) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = py.detach(|| encode_as(pixels, format, &[])).map_err(|error| to_python(&error))?;
    Ok(PyBytes::new(py, &bytes))
}

pub(crate) fn format_of(name: &str, quality: Option<i64>) -> PyResult<ImageFormat> {
    let format = ImageFormat::of_extension(name).ok_or_else(|| {
        PyValueError::new_err(format!("format: expected \"png\", \"jpeg\" or \"webp\", found {name:?}"))
    })?;
    match (format, quality) {
        (format, None) => Ok(format),
        (ImageFormat::Jpeg(_), Some(quality)) => match u8::try_from(quality) {
            Ok(quality @ 1..=100) => Ok(ImageFormat::Jpeg(quality)),
            _ => Err(PyValueError::new_err(format!("quality: expected 1 to 100, found {quality}"))),
        },
        _ => Err(PyValueError::new_err(format!("quality: {name} is lossless\n  hint: leave quality out"))),
    }
}

#[pymethods]
impl Image {
    /// Width in pixels.
    #[getter]
    fn width(&self) -> usize {
        self.0.width()
    }

    /// Height in pixels.
    #[getter]
    fn height(&self) -> usize {
        self.0.height()
    }

    /// The seed of this image alone: a request with it makes this image first.
    #[getter]
    fn seed(&self) -> u64 {
        self.0.seed()
    }

    /// The index in the request, counted from 0, prompts outermost.
    #[getter]
    fn index(&self) -> usize {
        self.0.index()
    }

    /// The prompt; "" for a task without prompts.
    #[getter]
    fn prompt(&self) -> &str {
        self.0.prompt()
    }

    /// The record of how the image was made, as PNG files hold it. The first one of a pipeline computes the digests of the
    /// model's files.
    #[getter]
    fn record<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let record = py.detach(|| self.0.record()).map_err(|error| to_python(&error))?;
        let json = serde_json::to_string(&record).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        py.import("json")?.call_method1("loads", (json,))
    }

    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        array_interface(py, self.0.pixels())
    }

    /// Returns a copy as a `PIL.Image.Image` of mode RGB.
    fn to_pil<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_pil(py, self.0.pixels())
    }

    /// Returns a copy of the pixels: 3 * width * height bytes, rows from the top.
    fn tobytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.rgb())
    }

    /// Encodes the image with its record: "png", "jpeg" or "webp" (lossless). `quality` is 1 to 100, for JPEG; 90 by default.
    #[pyo3(signature = (format="png", *, quality=None))]
    fn encode<'py>(&self, py: Python<'py>, format: &str, quality: Option<i64>) -> PyResult<Bound<'py, PyBytes>> {
        let format = format_of(format, quality)?;
        let bytes = py.detach(|| self.0.encode(format)).map_err(|error| to_python(&error))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Writes the image with its record, whole or not at all: a JPEG or WebP file if the name ends so, else a PNG.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.0.save(path)).map_err(|error| to_python(&error))
    }

    fn _repr_png_<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        plain(py, self.0.pixels(), ImageFormat::Png)
    }

    fn __repr__(&self) -> String {
        format!("<ldm_ort.Image {}x{} seed={}>", self.width(), self.height(), self.seed())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Image", PICKLE_ADVICE))
    }
}

#[pymethods]
impl Preview {
    /// Width in pixels.
    #[getter]
    fn width(&self) -> usize {
        self.pixels.width()
    }

    /// Height in pixels.
    #[getter]
    fn height(&self) -> usize {
        self.pixels.height()
    }

    /// The index of the image in the request, counted from 0.
    #[getter]
    fn index(&self) -> usize {
        self.index
    }

    /// The step, counted from 1.
    #[getter]
    fn step(&self) -> usize {
        self.step
    }

    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        array_interface(py, &self.pixels)
    }

    /// Returns a copy as a `PIL.Image.Image` of mode RGB.
    fn to_pil<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_pil(py, &self.pixels)
    }

    /// Returns a copy of the pixels: 3 * width * height bytes, rows from the top.
    fn tobytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.pixels.data())
    }

    /// Encodes the pixels: "png", "jpeg" or "webp" (lossless). `quality` is 1 to 100, for JPEG; 90 by default.
    #[pyo3(signature = (format="png", *, quality=None))]
    fn encode<'py>(&self, py: Python<'py>, format: &str, quality: Option<i64>) -> PyResult<Bound<'py, PyBytes>> {
        plain(py, &self.pixels, format_of(format, quality)?)
    }

    fn _repr_png_<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        plain(py, &self.pixels, ImageFormat::Png)
    }

    fn __repr__(&self) -> String {
        format!("<ldm_ort.Preview {}x{} step={}>", self.width(), self.height(), self.step)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(not_picklable("Preview", PICKLE_ADVICE))
    }
}
