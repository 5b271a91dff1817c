//! An open pipeline: one model or several in a row, ready for requests.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::converter::Converter;
use super::digests::KnownDigests;
use super::recorder::Recorder;
use super::{Engine, Event, Image, Request, RequestPlanner};
use crate::error::Result;
use crate::execution::{Execution, ExecutionEvent, Timings};
use crate::plan::{ExecutionPlan, Plan};
use crate::session::{Cancel, Runtime};
use crate::spec::{RecordNames, Spec};

/// An open pipeline. It runs any number of requests, of any tasks that its models can do, and loads each graph once.
///
/// A pipeline runs one request at a time (`&mut self`) and can be moved to another thread.
pub struct Pipeline {
    planner: RequestPlanner,
    plan: Plan,
    execution: Execution,
    runtime: Runtime,
    digests: KnownDigests,
    /// The names for files in records, of a pipeline that was read from a record.
    names: RecordNames,
    opening_seconds: (f64, f64),
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("model", &self.plan.model.dir).finish_non_exhaustive()
    }
}

impl Pipeline {
    pub(super) fn open(
        engine: &Engine,
        spec: Spec,
        is_for_one_run: bool,
        cancel: &Cancel,
        observer: &mut dyn FnMut(Event),
    ) -> Result<Self> {
        let started = Instant::now();
        let planner = RequestPlanner::new(engine, spec)?;
        let (plan, runtime) = planner.engine().plan(planner.pipeline().clone(), planner.sources(), cancel, observer)?;
        let planned = started.elapsed().as_secs_f64();
        let mut converter = Converter::new(observer, None);
        let load = if is_for_one_run { Execution::load_in_turn } else { Execution::load };
        let execution = load(&plan, &runtime, cancel, &mut |event: ExecutionEvent<'_>| converter.notice(event))?;
        let opening_seconds = (planned, started.elapsed().as_secs_f64() - planned);
        Ok(Self {
            planner,
            plan,
            execution,
            runtime,
            digests: KnownDigests::default(),
            names: RecordNames::default(),
            opening_seconds,
        })
    }

    /// Returns the request that the pipeline's file describes.
    pub fn request(&self) -> Request {
        Request::new()
    }

    /// Returns the checked pipeline as it was opened.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the models of the pipeline as they were opened or run last, in the order in which they run: unlike
    /// [`Pipeline::plan`] after what was found on this machine.
    pub(super) fn models(&self) -> impl Iterator<Item = &ExecutionPlan> {
        self.execution.models()
    }

    /// Returns the precision of the first model's denoiser as it was opened or run last, such as `bf16 (amx_bf16)`.
    pub fn precision(&self) -> String {
        self.models().next().unwrap_or(&self.plan.execution).precision()
    }

    /// Returns the seconds that opening took: reading the model directory and loading ONNX Runtime, and loading graphs.
    pub fn opening_seconds(&self) -> (f64, f64) {
        self.opening_seconds
    }

    /// Returns the loaded ONNX Runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Checks a request without running it. Only input files that the request names are read.
    ///
    /// # Errors
    /// [`Error::Spec`](crate::Error::Spec) and [`Error::Input`](crate::Error::Input) for what is wrong with the request.
    pub fn check(&self, request: &Request) -> Result<()> {
        self.plan_of(request)?.check_inputs()
    }

    /// Makes the images of a request.
    ///
    /// # Errors
    /// As [`Pipeline::run`].
    pub fn generate(&mut self, request: &Request) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        self.run(request, &Cancel::new(), &mut |event| {
            if let Event::Image(image) = event
                && image.is_final()
            {
                images.push(*image);
            }
        })?;
        Ok(images)
    }

    /// Makes the images of a request and reports events, each image as soon as it is finished. `cancel` stops the run from
    /// another thread, within one node of a graph.
    ///
    /// # Errors
    /// The request's faults as [`Pipeline::check`]; [`Error::Interrupted`](crate::Error::Interrupted),
    /// [`Error::NonFinite`](crate::Error::NonFinite) naming the step, [`Error::Memory`](crate::Error::Memory), and whatever a
    /// graph fails with. The pipeline can be used after an error.
    pub fn run(&mut self, request: &Request, cancel: &Cancel, observer: &mut dyn FnMut(Event)) -> Result<Timings> {
        let plan = self.plan_of(request)?;
        let mut converter = Converter::new(observer, Some(self.recorder(&plan)));
        let timings = self.execution.run(&plan, cancel, &mut |event: ExecutionEvent<'_>| converter.notice(event))?;
        observer(Event::Done { timings });
        Ok(timings)
    }

    /// As [`Pipeline::run`], for the last request: each graph is unloaded as soon as no image needs it any more.
    ///
    /// # Errors
    /// As [`Pipeline::run`].
    pub fn run_last(self, request: &Request, cancel: &Cancel, observer: &mut dyn FnMut(Event)) -> Result<Timings> {
        let plan = self.plan_of(request)?;
        let mut converter = Converter::new(observer, Some(self.recorder(&plan)));
        let timings = self.execution.finish(&plan, cancel, &mut |event: ExecutionEvent<'_>| converter.notice(event))?;
        observer(Event::Done { timings });
        Ok(timings)
    }

    /// Has runs fail for which no memory is left, rather than decode in tiles that the request does not have.
    pub fn forbid_tiles(&mut self) {
        self.execution.forbid_tiles();
    }

    /// Names files in records as another record does, from which this pipeline was read.
    pub fn set_record_names(&mut self, names: RecordNames) {
        self.names = names;
    }

    /// Returns the checked plan of a request.
    ///
    /// # Errors
    /// As [`Pipeline::check`].
    pub fn plan_of(&self, request: &Request) -> Result<Plan> {
        let mut plan = self.planner.plan(request)?;
        plan.fit_runtime(&self.runtime)?;
        Ok(plan)
    }

    fn recorder(&self, plan: &Plan) -> Arc<Mutex<Recorder>> {
        let mut recorder = Recorder::new(plan, &self.runtime, self.digests.clone()).with_names(self.names.clone());
        self.execution.verifications().iter().for_each(|verification| recorder.add_verification(verification));
        Arc::new(Mutex::new(recorder))
    }
}
