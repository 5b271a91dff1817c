//! Events as dicts.

use ldm_ort::Event;
use pyo3::prelude::*;

use crate::image::{Image, Preview};

/// Converts an event to a dict whose `event` names it; `pixels` of previews and images is a `Preview` or an `Image`.
pub(crate) fn to_dict<'py>(py: Python<'py>, event: Event) -> PyResult<Bound<'py, PyAny>> {
    let dict = py.import("json")?.call_method1("loads", (event.to_json(),))?;
    match event {
        Event::Preview { image, step, width, height, rgb } => {
            dict.set_item("pixels", Preview::new(image, step, width, height, rgb)?)?;
        }
        Event::Image(image) => dict.set_item("pixels", Image::from(*image))?,
        _ => {}
    }
    Ok(dict)
}
