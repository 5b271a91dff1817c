//! Turns the events of an execution into those of a pipeline.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::recorder::Recorder;
use super::{Event, Image};
use crate::execution::ExecutionEvent;
use crate::plan::name;

/// Turns the events of an execution into those of a pipeline.
pub(super) struct Converter<'a> {
    observer: &'a mut dyn FnMut(Event),
    recorder: Option<Arc<Mutex<Recorder>>>,
    /// The end of the step before.
    last: Instant,
}

impl<'a> Converter<'a> {
    pub(super) fn new(observer: &'a mut dyn FnMut(Event), recorder: Option<Arc<Mutex<Recorder>>>) -> Self {
        Self { observer, recorder, last: Instant::now() }
    }

    pub(super) fn notice(&mut self, event: ExecutionEvent<'_>) {
        if let Some(event) = self.convert(event) {
            (self.observer)(event);
        }
    }

    fn convert(&mut self, event: ExecutionEvent<'_>) -> Option<Event> {
        use ExecutionEvent as From;
        Some(match event {
            From::Stage { key, number, of } => Event::Stage { key: key.to_owned(), number, total: of },
            From::Optimizing { component, is_shallow, bytes, folder } => {
                Event::Optimizing { component: name(component, is_shallow), bytes, folder: folder.to_owned() }
            }
            From::WaitingForOptimized { component } => Event::WaitingForOptimized { component: component.to_string() },
            From::Measuring { component } => Event::Measuring { component: component.to_string() },
            From::Opening { component, is_shallow, weight_bytes, opened_bytes, of_bytes } => Event::Opening {
                component: name(component, is_shallow),
                weight_bytes,
                opened_bytes,
                total_bytes: of_bytes,
            },
            From::Opened { component, is_shallow, seconds, nodes } => {
                Event::Loading { component: name(component, is_shallow), seconds, nodes }
            }
            From::Verifying { component, is_shallow } => Event::Verifying { component: name(component, is_shallow) },
            From::Verified(verification) => {
                if let Some(recorder) = &self.recorder {
                    let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
                    recorder.add_verification(verification);
                }
                Event::Verified(verification.clone())
            }
            From::Warning(text) => Event::Warning { text },
            From::Preparing { first, images, of } => Event::Preparing { image: first, images, total: of },
            From::Denoising { first, of } => {
                self.last = Instant::now();
                Event::Denoising { image: first, total: of }
            }
            From::Step { first, of, step } => {
                let seconds = self.last.elapsed().as_secs_f64();
                self.last = Instant::now();
                let (images, step, steps, timestep) = (step.images, step.call, step.calls, step.timestep);
                Event::Step { image: first, images, total: of, step, steps, timestep, seconds }
            }
            From::Preview { index, call, pixels, .. } => {
                let (width, height, rgb) = (pixels.width(), pixels.height(), pixels.data().to_vec());
                Event::Preview { image: index, step: call, width, height, rgb }
            }
            From::Decoding { index, of } => Event::Decoding { image: index, total: of },
            From::Image(image) => Event::Image(Box::new(Image::new(image.clone(), self.recorder.clone()?, true))),
            From::Kept(image) => Event::Image(Box::new(Image::new(image.clone(), self.recorder.clone()?, false))),
        })
    }
}
