//! Input images in memory.

use ldm_ort::{InputImage, InputLimit, Request, Rgb8};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use crate::errors::to_python;

/// An input image: RGB pixels with their width and height, or an encoded file.
#[derive(FromPyObject)]
pub(crate) enum Input {
    Pixels((usize, usize, PyBackedBytes)),
    Encoded(PyBackedBytes),
}

/// Reads a request and the images of its keys.
pub(crate) fn request_of(json: &str, inputs: Vec<(String, Input)>) -> PyResult<Request> {
    let mut request = Request::from_json(json).map_err(|error| to_python(&error))?;
    for (key, input) in inputs {
        let image = image_of(&key, input).map_err(PyValueError::new_err)?;
        request = request.image(&key, image);
    }
    Ok(request)
}

/// Reads an input image, or says in a text that begins with its key why it is none.
pub(crate) fn image_of(key: &str, input: Input) -> Result<InputImage, String> {
    match input {
        Input::Encoded(bytes) => {
            let image = Rgb8::decode(&bytes, InputLimit::default());
            image.map(InputImage::from).map_err(|error| format!("{key}: {error}"))
        }
        Input::Pixels((width, height, bytes)) => {
            let found = bytes.len();
            Rgb8::new(width, height, bytes.to_vec()).map(InputImage::from).ok_or_else(|| {
                let expected = format!("expected 3 * {width} * {height} bytes of RGB pixels, found {found}");
                format!("{key}: {expected}")
            })
        }
    }
}
