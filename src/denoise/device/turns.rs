//! A run: the denoiser's graph and that of the step take turns.

use ndarray::{ArrayD, IxDyn};

use super::control::{DeviceControls, sum_graph};
use super::device_loop::{DeviceCopies, DeviceLoop, DrawnNoise};
use super::formed::Formed;
use super::history::{History, StepOutputs};
use super::read_back::ReadBack;
use super::step_graph::{
    GUIDED_COPY, INDEX, NEXT, NEXT_COPY, NEXT_INDEX, NEXT_INPUT, NEXT_TIMESTEP, PREDICTION, SAMPLE_COPY,
};
use crate::denoise::form::Form;
use crate::denoise::graph::GraphDenoiser;
use crate::denoise::{Call, Step, StepWatcher, at_step, view};
use crate::error::{Error, Result};
use crate::session::{Cancel, DeviceRuns, Place};
use crate::tensor::require_finite;

/// The graphs that take turns.
struct Turns<'t> {
    controls: Option<DeviceControls<'t>>,
    denoiser: DeviceRuns<'t>,
    step: DeviceRuns<'t>,
    history: History,
    /// The names of the denoiser's sample, timestep and output.
    names: [&'t str; 3],
    cancel: Cancel,
}

impl Turns<'_> {
    /// Tensors copied to the device so far, and to the host.
    fn copies(&self) -> [usize; 2] {
        let controls = self.controls.as_ref().map_or([0; 2], DeviceControls::copies);
        let all = [self.denoiser.copies(), self.step.copies(), controls];
        all.iter().fold([0; 2], |sum, copies| [sum[0] + copies[0], sum[1] + copies[1]])
    }
}

impl DeviceLoop<'_> {
    /// Denoises `sample` in place with a denoiser that has no [`DeviceObstacle`](crate::denoise::DeviceObstacle), and returns the number of copies. `watch` observes
    /// each step.
    ///
    /// # Errors
    /// As [`denoise`](crate::denoise::denoise), but values that are not finite are found when the sample has come back.
    pub fn run(
        &self,
        model: &mut GraphDenoiser<'_>,
        sample: &mut ArrayD<f32>,
        drawn: DrawnNoise<'_>,
        watch: &mut dyn StepWatcher,
    ) -> Result<DeviceCopies> {
        let (form, cancel) = (Form::of(model.signature, model.channels), model.cancel.clone());
        let mut back = ReadBack::new(form, sample)?;
        self.scale_first(model, sample);
        let rooms = &mut [Vec::new(), Vec::new()];
        let [sample_room, input_room] = rooms;
        let formed = Formed {
            form,
            sample: form.sample(sample.view(), sample_room)?,
            input_shape: model.input.shape().try_into().unwrap_or_default(),
            input: form.sample(model.input.view(), input_room)?,
        };
        let graph = self.step_graph(model, &formed);
        let mut step_session = model.session.open_beside("step", graph.encode(), &cancel)?;
        let mut step = step_session.device_runs()?;
        self.set_step_inputs(&mut step, &graph, &formed, sample.shape(), drawn)?;
        let signature = model.signature;
        let history = History::new(self.steps.reach(), graph.takes_unchanged());
        history.set(&mut step, &formed.sample)?;
        let mut sum = match model.controls.len() {
            0 | 1 => None,
            several => Some(model.session.open_beside("residuals", sum_graph(several, signature), &cancel)?),
        };
        let first = formed.form.time(self.call(0).timestep);
        let controls = match model.controls.as_mut_slice() {
            [] => None,
            all => Some(DeviceControls::new(all, sum.as_mut(), (signature, &model.condition), &formed, first)?),
        };
        let denoiser = self.denoiser_runs(model.session, (signature, &model.condition), &formed)?;
        let names = [&signature.sample, &signature.timestep, &signature.output].map(|info| info.name.as_str());
        let mut turns = Turns { controls, denoiser, step, history, names, cancel };
        let [before, _] = turns.copies();
        let calls = self.span.len();
        for index in 0..calls {
            self.step(index, &mut turns, &mut back, watch)?;
            model.evaluations += model.guidance.branches().len();
        }
        let [to_device, to_host] = turns.copies();
        drop(turns);
        let end = self.call(calls.saturating_sub(1)).position(back.images);
        require_finite(&back.sample, "the latents", end.step, end.steps)?;
        *sample = ArrayD::from_shape_vec(IxDyn(sample.shape()), back.sample)
            .map_err(|e| Error::internal("latents", e.to_string()))?;
        Ok(DeviceCopies { before, during: to_device - before, to_host })
    }

    fn call(&self, index: usize) -> Call {
        let timestep = self.steps.steps.get(index).map_or(0.0, |step| step.timestep);
        Call { index, total: self.span.len(), order: self.scheduler.order(), timestep }
    }

    /// One evaluation of the denoiser and its step.
    fn step(
        &self,
        index: usize,
        turns: &mut Turns<'_>,
        back: &mut ReadBack<'_>,
        watch: &mut dyn StepWatcher,
    ) -> Result<()> {
        let call = self.call(index);
        let position = call.position(back.images);
        let [sample_name, timestep_name, output_name] = turns.names;
        let is_last = index + 1 == call.total;
        let wants_x0 = watch.wants_x0(index + 1, call.total, call.order);
        let wanted = turns.history.outputs(call, wants_x0, watch.wants_sample());
        let mut run = || -> Result<StepOutputs> {
            let denoiser = &mut turns.denoiser;
            turns.controls.iter_mut().try_for_each(|controls| controls.run(call, denoiser, &turns.cancel))?;
            let predicted = denoiser.run(&[(output_name, Place::Device)], &turns.cancel)?;
            predicted.iter().try_for_each(|prediction| turns.step.bind(PREDICTION, prediction))?;
            turns.history.bind(&mut turns.step)?;
            Ok(StepOutputs::new(&wanted, turns.step.run(&wanted, &turns.cancel)?))
        };
        let mut made = run().map_err(|error| at_step(error, position))?;
        let copied = made.take(if is_last { NEXT } else { NEXT_COPY });
        copied.iter().try_for_each(|sample| back.read_sample(sample))?;
        if !is_last {
            let (input, timestep) = (made.require(NEXT_INPUT)?, made.require(NEXT_TIMESTEP)?);
            turns.denoiser.bind(sample_name, &input)?;
            turns.denoiser.bind(timestep_name, &timestep)?;
            turns.controls.iter_mut().try_for_each(|controls| controls.bind_next(&input, &timestep))?;
            turns.step.bind(INDEX, &made.require(NEXT_INDEX)?)?;
        }
        if wants_x0 {
            let before = if index > 0 { Some(made.require(SAMPLE_COPY)?) } else { None };
            let guided = made.require(GUIDED_COPY)?;
            back.read_x0(before.as_ref(), &guided, (self.scheduler, self.span.start + index), self.unmasked)?;
        }
        turns.history.advance(&mut made);
        let state = Step {
            call: index + 1,
            calls: call.total,
            timestep: call.timestep,
            images: back.images,
            sample: if copied.is_some() { Some(view(&back.shape(), &back.sample)?) } else { None },
            x0: if wants_x0 { Some(view(&back.shape(), &back.x0)?) } else { None },
        };
        watch.observe(state).map_err(|error| at_step(error, position))
    }
}
