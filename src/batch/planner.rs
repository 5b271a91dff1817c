//! The keys of the images of each line.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use toml::Table;

use super::canonical::CanonicalRequest;
use super::key::Key;
use super::lines::InputLine;
use crate::engine::{Engine, KnownDigests, ModelDigests, Request, RequestPlanner};
use crate::error::Result;
use crate::files;
use crate::plan::Plan;
use crate::spec::Spec;

/// Plans the lines of a batch without opening a graph.
pub struct BatchPlanner {
    planner: RequestPlanner,
    known: KnownDigests,
    inputs: Mutex<HashMap<PathBuf, String>>,
}

/// A line with everything that its images depend on.
pub struct PlannedRequest {
    /// The request, with a seed.
    pub request: Request,
    /// The number of the line, counted from 1, if it has one.
    pub line: Option<usize>,
    /// The images, in the order of the request.
    pub images: Vec<PlannedImage>,
    /// The seed that was derived, if the request has none.
    pub(super) derived_seed: Option<u64>,
    pub(super) plan: Plan,
    pub(super) digests: Vec<ModelDigests>,
    /// The digests of input files by their keys.
    pub(super) inputs: Table,
}

/// An image of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedImage {
    /// The index in the request, counted from 0, prompts outermost.
    pub image: usize,
    /// The image's name.
    pub key: Key,
    /// The image's seed.
    pub seed: u64,
}

impl BatchPlanner {
    /// Reads the model directories of a pipeline. Its previews and intermediate images are left out.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for what is wrong with them.
    pub fn new(engine: &Engine, spec: &Spec) -> Result<Self> {
        let planner = RequestPlanner::new(engine, without_extra_images(spec.clone()))?;
        Ok(Self { planner, known: KnownDigests::default(), inputs: Mutex::default() })
    }

    /// Plans a line: reads its request, gives it a seed if it has none, and computes the keys of its images.
    ///
    /// The seed follows from the request alone: from its canonical form without the model and the number of images.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) and [`Error::Spec`](crate::Error::Spec) for what is wrong with the line,
    /// [`Error::Io`](crate::Error::Io) if a file of the model or an input cannot be read.
    pub fn plan(&self, line: &InputLine) -> Result<PlannedRequest> {
        let mut request = line.request()?;
        let spec = self.spec(&request)?;
        let has_seed = spec.run.seed.is_some();
        let plan = self.planner.plan(&if has_seed { request.clone() } else { request.clone().seed(0) })?;
        let digests = plan.executions().map(|own| ModelDigests::known(own, &self.known)).collect::<Result<Vec<_>>>()?;
        let inputs = self.input_digests(&spec)?;
        let mut form = CanonicalRequest::new(spec, &plan, &digests, inputs.clone());
        let derived_seed = if has_seed { None } else { Some(form.seed()?) };
        if let Some(seed) = derived_seed {
            request = request.seed(seed);
            form = CanonicalRequest::new(self.spec(&request)?, &plan, &digests, inputs.clone());
        }
        let first_seed = derived_seed.unwrap_or(plan.request.seed);
        let images = (0..plan.request.total_images()).map(|image| {
            let seed = first_seed.wrapping_add(image as u64);
            Ok(PlannedImage { image, key: form.key(image, seed)?, seed })
        });
        let images = images.collect::<Result<Vec<_>>>()?;
        Ok(PlannedRequest { request, line: line.number, images, derived_seed, plan, digests, inputs })
    }

    fn spec(&self, request: &Request) -> Result<Spec> {
        self.planner.spec(request).map(without_extra_images)
    }

    /// The digests of a pipeline's input files. Each file is read once.
    fn input_digests(&self, spec: &Spec) -> Result<Table> {
        let mut known = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut digests = Table::new();
        for (key, path) in spec.inputs() {
            let digest = match known.get(path) {
                Some(digest) => digest.clone(),
                None => {
                    let digest = files::digest(path)?;
                    known.insert(path.to_path_buf(), digest.clone());
                    digest
                }
            };
            digests.insert(key, digest.into());
        }
        Ok(digests)
    }
}

/// The pipeline without previews and without images that a later stage goes on with.
pub(super) fn without_extra_images(mut spec: Spec) -> Spec {
    spec.output.preview = None;
    spec.output.save_intermediate = false;
    for stage in &mut spec.stages {
        stage.spec.output.preview = None;
        stage.spec.output.save_intermediate = false;
    }
    spec
}
