//! Requests, checked without ONNX Runtime.

use super::{Engine, Request};
use crate::error::Result;
use crate::plan::{ModelSources, Plan};
use crate::spec::Spec;

/// Plans the requests of a pipeline. The model directory is read once; no graph is opened.
pub struct RequestPlanner {
    engine: Engine,
    spec: Spec,
    sources: ModelSources,
}

impl RequestPlanner {
    /// Reads the model directories of a pipeline.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for what is wrong with them.
    pub fn new(engine: &Engine, spec: Spec) -> Result<Self> {
        Ok(Self { engine: engine.clone(), sources: ModelSources::open(&spec)?, spec })
    }

    /// Returns the pipeline that a request describes, with what it leaves open still open.
    ///
    /// # Errors
    /// [`Error::Spec`](crate::Error::Spec) holding every problem of the request.
    pub fn spec(&self, request: &Request) -> Result<Spec> {
        let tables = request.tables(self.spec.task.as_ref())?;
        let spec = if tables.is_empty() { self.spec.clone() } else { self.spec.with_request(tables)? };
        Ok(if request.wants_all_evaluations() { spec.with_all_evaluations() } else { spec })
    }

    /// Returns the checked plan of a request.
    ///
    /// # Errors
    /// [`Error::Spec`](crate::Error::Spec) and [`Error::Input`](crate::Error::Input) for what is wrong with the request.
    pub fn plan(&self, request: &Request) -> Result<Plan> {
        let mut plan = Plan::from_sources(self.spec(request)?, &self.sources)?;
        plan.set_graph_cache(self.engine.optimized_graphs()?.as_ref());
        plan.request.only = request.only_index();
        Ok(plan)
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn pipeline(&self) -> &Spec {
        &self.spec
    }

    pub(super) fn sources(&self) -> &ModelSources {
        &self.sources
    }
}
