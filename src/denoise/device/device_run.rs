//! A run: the denoiser's graph and that of the step take turns.

use ndarray::{ArrayD, IxDyn};

use super::control::DeviceControls;
use super::device_loop::{DeviceCopies, DeviceLoop, RunNoise};
use super::graph_sample::GraphSample;
use super::history::{History, StepOutputs};
use super::read_back::ReadBack;
use super::step_graph::{
    GUIDED_COPY, INDEX, NEXT, NEXT_COPY, NEXT_INDEX, NEXT_INPUT, NEXT_TIMESTEP, PREDICTION, SAMPLE_COPY,
};
use crate::denoise::form::Form;
use crate::denoise::graph::GraphDenoiser;
use crate::denoise::{Call, Step, StepWatcher, at_step, view};
use crate::error::{Error, Result};
use crate::session::{Cancel, DeviceRuns, Place, Session, SmallGraphs};
use crate::tensor::require_finite;

/// The open graph of the step.
pub struct StepSession {
    session: Session,
    small_graphs: SmallGraphs,
}

/// The graphs that take turns.
struct DeviceRun<'t> {
    controls: Option<DeviceControls<'t>>,
    denoiser: DeviceRuns<'t>,
    step: DeviceRuns<'t>,
    history: History,
    /// The names of the denoiser's sample, timestep and output.
    names: [&'t str; 3],
    cancel: Cancel,
}

impl DeviceRun<'_> {
    /// Tensors copied to the device so far, and to the host.
    fn copies(&self) -> [usize; 2] {
        let controls = self.controls.as_ref().map_or([0; 2], DeviceControls::copies);
        let all = [self.denoiser.copies(), self.step.copies(), controls];
        all.iter().fold([0; 2], |sum, copies| [sum[0] + copies[0], sum[1] + copies[1]])
    }
}

impl DeviceLoop<'_> {
    /// Opens the graph of the step for a denoiser that has no [`DeviceObstacle`](crate::denoise::DeviceObstacle).
    ///
    /// # Errors
    /// [`Error::Internal`] if it has one; as [`SmallGraphs::open`](crate::session::SmallGraphs::open) if the provider does
    /// not take the graph.
    pub fn open(&self, model: &mut GraphDenoiser<'_>, sample: &ArrayD<f32>) -> Result<StepSession> {
        if let Some(obstacle) = model.obstacle() {
            return Err(Error::internal("the loop on a device", obstacle.to_string()));
        }
        let [mut sample_room, mut input_room] = [Vec::new(), Vec::new()];
        let sample = GraphSample::new(model.signature, [sample, &model.input], [&mut sample_room, &mut input_room])?;
        let graph = self.step_graph(model, &sample);
        let small_graphs = model.session.small_graphs();
        let session = small_graphs.open("denoising step", graph.encode(), &model.cancel)?;
        Ok(StepSession { session, small_graphs })
    }

    /// Denoises `sample` in place, and returns the number of copies. `watch` observes each step. `opened` is from
    /// [`DeviceLoop::open`].
    ///
    /// # Errors
    /// As [`denoise`](crate::denoise::denoise), but values that are not finite are found when the sample has come back.
    pub fn run(
        &self,
        model: &mut GraphDenoiser<'_>,
        mut opened: StepSession,
        sample: &mut ArrayD<f32>,
        noise: RunNoise<'_>,
        watch: &mut dyn StepWatcher,
    ) -> Result<DeviceCopies> {
        let form = Form::of(model.signature, model.channels);
        let mut back = ReadBack::new(form, sample)?;
        self.scale_first(model, sample);
        let shape = sample.shape().to_vec();
        let mut run = self.start(model, &mut opened, sample, noise)?;
        let [before, _] = run.copies();
        for index in 0..self.span.len() {
            self.step(index, &mut run, &mut back, watch)?;
        }
        let [to_device, to_host] = run.copies();
        drop(run);
        model.evaluations += self.span.len() * model.guidance.branches().len();
        let end = self.call(self.span.len().saturating_sub(1)).position(back.images);
        require_finite(&back.sample, "the latents", end.step, end.steps)?;
        *sample = ArrayD::from_shape_vec(IxDyn(&shape), back.sample)
            .map_err(|e| Error::internal("latents", e.to_string()))?;
        Ok(DeviceCopies { before, during: to_device - before, to_host })
    }

    /// Sets the inputs of all graphs for the first step.
    fn start<'t>(
        &self,
        model: &'t mut GraphDenoiser<'_>,
        opened: &'t mut StepSession,
        sample: &ArrayD<f32>,
        noise: RunNoise<'_>,
    ) -> Result<DeviceRun<'t>> {
        let [mut sample_room, mut input_room] = [Vec::new(), Vec::new()];
        let formed = GraphSample::new(model.signature, [sample, &model.input], [&mut sample_room, &mut input_room])?;
        let graph = self.step_graph(model, &formed);
        let cancel = model.cancel.clone();
        let mut step = opened.session.device_runs()?;
        self.set_step_inputs(&mut step, &graph, &formed, sample.shape(), noise, &cancel)?;
        let history = History::new(self.steps.reach(), graph.takes_unchanged());
        history.set(&mut step, &formed.sample)?;
        let signature = model.signature;
        let first = formed.form.time(self.call(0).timestep);
        let components = (signature, &model.condition);
        let controls = match model.controls.as_mut_slice() {
            [] => None,
            all => Some(DeviceControls::new(all, opened.small_graphs.clone(), components, &formed, first)?),
        };
        let denoiser = self.denoiser_runs(model.session, components, &formed)?;
        let names = [&signature.sample, &signature.timestep, &signature.output].map(|info| info.name.as_str());
        Ok(DeviceRun { controls, denoiser, step, history, names, cancel })
    }

    fn call(&self, index: usize) -> Call {
        let timestep = self.steps.steps.get(index).map_or(0.0, |step| step.timestep);
        Call { index, total: self.span.len(), order: self.scheduler.order(), timestep }
    }

    /// One evaluation of the denoiser and its step.
    fn step(
        &self,
        index: usize,
        run: &mut DeviceRun<'_>,
        back: &mut ReadBack<'_>,
        watch: &mut dyn StepWatcher,
    ) -> Result<()> {
        let call = self.call(index);
        let position = call.position(back.images);
        let [sample_name, timestep_name, output_name] = run.names;
        let is_last = call.is_last();
        let wants_x0 = watch.wants_x0(index + 1, call.total, call.order);
        let wanted = run.history.outputs(call, wants_x0, watch.wants_sample());
        let mut evaluate = || -> Result<StepOutputs> {
            let denoiser = &mut run.denoiser;
            run.controls.iter_mut().try_for_each(|controls| controls.run(call, denoiser, &run.cancel))?;
            denoiser.keep_memory(!is_last);
            let predicted = denoiser.run(&[(output_name, Place::Device)], &run.cancel)?;
            predicted.iter().try_for_each(|prediction| run.step.bind(PREDICTION, prediction))?;
            run.history.bind(&mut run.step)?;
            Ok(StepOutputs::new(&wanted, run.step.run(&wanted, &run.cancel)?))
        };
        let mut made = evaluate().map_err(|error| at_step(error, position))?;
        let copied = made.take(if is_last { NEXT } else { NEXT_COPY });
        copied.iter().try_for_each(|sample| back.read_sample(sample))?;
        if !is_last {
            let (input, timestep) = (made.require(NEXT_INPUT)?, made.require(NEXT_TIMESTEP)?);
            run.denoiser.bind(sample_name, &input)?;
            run.denoiser.bind(timestep_name, &timestep)?;
            run.controls.iter_mut().try_for_each(|controls| controls.bind_next(&input, &timestep))?;
            run.step.bind(INDEX, &made.require(NEXT_INDEX)?)?;
        }
        if wants_x0 {
            let before = if index > 0 { Some(made.require(SAMPLE_COPY)?) } else { None };
            let guided = made.require(GUIDED_COPY)?;
            back.read_x0(before.as_ref(), &guided, (self.scheduler, self.span.start + index), self.unmasked)?;
        }
        run.history.advance(&mut made);
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
