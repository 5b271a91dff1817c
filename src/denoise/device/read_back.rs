//! Samples and predictions that come back from the device.

use ndarray::{ArrayD, IxDyn};

use crate::denoise::form::Form;
use crate::denoise::{UnmaskedLatents, predict_x0};
use crate::error::{Error, Result};
use crate::scheduler::Scheduler;
use crate::session::DeviceTensor;

/// Arrays that came back, `[n, c, h, w]`.
pub(super) struct ReadBack<'f> {
    form: Form<'f>,
    pub images: usize,
    /// `[c, h, w]`
    shape: [usize; 3],
    pub sample: Vec<f32>,
    /// The sample before the step, and the guided prediction.
    before: Vec<f32>,
    guided: Vec<f32>,
    pub x0: Vec<f32>,
    room: Vec<f32>,
}

impl<'f> ReadBack<'f> {
    pub fn new(form: Form<'f>, sample: &ArrayD<f32>) -> Result<Self> {
        let (&[images, channels, height, width], Some(values)) = (sample.shape(), sample.as_slice()) else {
            return Err(Error::internal("latents", format!("found {:?}, not row by row", sample.shape())));
        };
        let empty = || vec![0.0; values.len()];
        Ok(Self {
            form,
            images,
            shape: [channels, height, width],
            sample: values.to_vec(),
            before: values.to_vec(),
            guided: empty(),
            x0: empty(),
            room: Vec::new(),
        })
    }

    /// `[n, c, h, w]`
    pub fn shape(&self) -> IxDyn {
        let [channels, height, width] = self.shape;
        IxDyn(&[self.images, channels, height, width])
    }

    pub fn read_sample(&mut self, sample: &DeviceTensor) -> Result<()> {
        read(self.form, self.shape, sample, &mut self.sample, &mut self.room)
    }

    /// Predicts the original sample of a step. Without `before`, the sample before the step is the run's first.
    pub fn read_x0(
        &mut self,
        before: Option<&DeviceTensor>,
        guided: &DeviceTensor,
        (scheduler, step): (&dyn Scheduler, usize),
        unmasked: Option<&UnmaskedLatents>,
    ) -> Result<()> {
        if let Some(before) = before {
            read(self.form, self.shape, before, &mut self.before, &mut self.room)?;
        }
        read(self.form, self.shape, guided, &mut self.guided, &mut self.room)?;
        predict_x0(scheduler, step, &self.guided, &self.before, self.images, &mut self.x0);
        self.room.resize(self.x0.len(), 0.0);
        unmasked.iter().for_each(|unmasked| unmasked.restore(scheduler, None, &mut self.x0, &mut self.room));
        Ok(())
    }
}

fn read(form: Form<'_>, shape: [usize; 3], from: &DeviceTensor, to: &mut [f32], room: &mut Vec<f32>) -> Result<()> {
    form.prediction(shape[0], shape, to, room, |values| from.read(values))
}
