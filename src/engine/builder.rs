//! The engine: one for a program, from which pipelines are opened.

use std::path::PathBuf;
use std::sync::Arc;

use super::converter::Converter;
use super::{Environment, Event};
use crate::error::{Error, Result};
use crate::execution::{ComponentVerification, Execution, ExecutionEvent};
use crate::graph_cache::{CachedGraph, GraphCache, SizeLimit};
use crate::plan::{ModelSources, Plan};
use crate::session::{self, Cancel, Flavor, Host, HostApi, Runtime, RuntimeOptions};
use crate::spec::{DeviceSpec, Overrides, Spec};

/// Opens pipelines. A clone is the same engine.
///
/// ```no_run
/// use ldm_ort::{Engine, Request};
///
/// let engine = Engine::builder().build()?;
/// let mut pipeline = engine.open("pipeline.toml")?;
/// let images = pipeline.generate(&Request::text_to_image("a lighthouse in the fog").seed(7).steps(20))?;
/// images[0].save("lighthouse.png")?;
/// # Ok::<(), ldm_ort::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Engine(Arc<EngineBuilder>);

/// The settings of an [`Engine`].
///
/// Settings that are absent come from the environment: `ORT_DYLIB_PATH`, `LDM_ORT_OFFLINE`, `LDM_ORT_CACHE_DIR`, `LDM_ORT_INDEX_URL`,
/// `LDM_ORT_OPTIMIZE`, `LDM_ORT_GRAPH_CACHE_SIZE` and those that the README lists. ONNX Runtime's library is found, or fetched once into the user's cache, when the first
/// pipeline is opened, since the build depends on the pipeline's execution providers.
#[derive(Debug, Clone)]
pub struct EngineBuilder {
    host: Option<Host>,
    has_host_threads: bool,
    runtime_path: Option<PathBuf>,
    provider_libraries: Vec<PathBuf>,
    index_url: Option<String>,
    is_offline: Option<bool>,
    has_graph_cache: Option<bool>,
    graph_cache_limit: Option<SizeLimit>,
    cache_dir: Option<PathBuf>,
    environment: Environment,
}

impl EngineBuilder {
    /// Uses the host program's own ONNX Runtime: the result of its `OrtGetApiBase`, a `const OrtApiBase*`. Environment and
    /// providers are then the host's; NULL changes nothing.
    ///
    /// # Safety
    /// `base` is NULL, or the library that it is of stays loaded until the process ends.
    pub unsafe fn ort_api(mut self, base: *const std::ffi::c_void) -> Self {
        // SAFETY: as this function demands.
        self.host = unsafe { HostApi::new(base) }.map(Host::Api);
        self
    }

    /// Uses the environment of a host program that has one of the crate `ort` itself, in the version that this crate uses.
    pub fn ort_environment(mut self, environment: impl Into<Host>) -> Self {
        self.host = Some(environment.into());
        self
    }

    /// Runs graphs on the global thread pool of ONNX Runtime's environment if true, and starts no threads for them. The host
    /// creates that environment, with `CreateEnvWithGlobalThreadPools`, before the first pipeline is opened; `[device]
    /// threads` is then an error.
    pub fn host_threads(mut self, has_host_threads: bool) -> Self {
        self.has_host_threads = has_host_threads;
        self
    }

    /// Takes ONNX Runtime's shared library from a file or the folder it is in, and searches nowhere else.
    pub fn runtime_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.runtime_path = Some(path.into());
        self
    }

    /// Registers the library of a plugin provider for the pipelines that are opened, which may then name its providers as
    /// `--provider` does: those that are opened from files and directories instead of their own `[device] provider_library`,
    /// those that are given as values besides it. Can be called for several libraries.
    pub fn provider_library(mut self, path: impl Into<PathBuf>) -> Self {
        self.provider_libraries.push(path.into());
        self
    }

    /// Takes ONNX Runtime's library from Python's package `onnxruntime`, in this folder, before one from the user's cache, if
    /// it has the pipeline's execution provider. For programs that run in a Python environment.
    pub fn package_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.environment.runtime.package_dir = Some(dir.into());
        self
    }

    /// Fetches nothing from the network if true.
    pub fn offline(mut self, is_offline: bool) -> Self {
        self.is_offline = Some(is_offline);
        self
    }

    /// Fetches ONNX Runtime from this Python package index.
    pub fn index_url(mut self, url: impl Into<String>) -> Self {
        self.index_url = Some(url.into());
        self
    }

    /// Moves the cache of ONNX Runtime's builds and of optimized graphs, which is in the user's cache folder by default.
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(dir.into());
        self
    }

    /// Opens graphs as stored, optimizing none ahead, if false.
    pub fn graph_cache(mut self, has_graph_cache: bool) -> Self {
        self.has_graph_cache = Some(has_graph_cache);
        self
    }

    /// Sets the size limit of the graph cache, instead of `LDM_ORT_GRAPH_CACHE_SIZE`.
    pub fn graph_cache_limit(mut self, limit: SizeLimit) -> Self {
        self.graph_cache_limit = Some(limit);
        self
    }

    /// Takes the settings of another environment, such as [`Environment::empty`].
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Makes the engine. Touches no file.
    ///
    /// # Errors
    /// [`Error::Runtime`] if the system names no cache folder and none is set.
    pub fn build(self) -> Result<Engine> {
        session::user_cache(&self.runtime_environment())?;
        Ok(Engine(Arc::new(self)))
    }

    fn runtime_environment(&self) -> session::Env {
        let mut environment = self.environment.runtime.clone();
        environment.index_url = self.index_url.clone().or(environment.index_url);
        environment.cache_dir = self.cache_dir.clone().or(environment.cache_dir);
        environment
    }
}

impl Default for Engine {
    /// Makes an engine with the settings of the process's environment.
    fn default() -> Self {
        Self(Arc::new(Self::builder()))
    }
}

impl Engine {
    /// Starts with the settings of the process's environment.
    pub fn builder() -> EngineBuilder {
        EngineBuilder {
            host: None,
            has_host_threads: false,
            runtime_path: None,
            provider_libraries: Vec::new(),
            index_url: None,
            is_offline: None,
            has_graph_cache: None,
            graph_cache_limit: None,
            cache_dir: None,
            environment: Environment::from_process(),
        }
    }

    /// Returns the cache of optimized graphs, if there is one.
    ///
    /// # Errors
    /// [`Error::Runtime`] if the system names no cache folder and none is set;
    /// [`Error::Input`] if `LDM_ORT_GRAPH_CACHE_SIZE` is not a size, or `LDM_ORT_INSTRUCTION_SET` no instruction set of this
    /// CPU.
    pub fn optimized_graphs(&self) -> Result<Option<GraphCache>> {
        self.0.environment.choose_instruction_set()?;
        if !self.0.has_graph_cache.unwrap_or(self.0.environment.optimize) {
            return Ok(None);
        }
        let limit = match self.0.graph_cache_limit {
            Some(limit) => limit,
            None => self.0.environment.graph_cache_limit()?,
        };
        let folder = session::user_cache(&self.0.runtime_environment())?.join("graphs");
        Ok(Some(GraphCache::new(folder).limited_to(limit)))
    }

    /// Takes the warnings about old names of environment variables. They are also events of the first pipeline that is
    /// opened.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        self.0.environment.take_warnings()
    }

    /// Returns the search for ONNX Runtime's library that this engine makes, for a preferred build.
    pub fn runtime_options(&self, flavor: Option<Flavor>) -> RuntimeOptions {
        RuntimeOptions {
            host: self.0.host.clone(),
            host_threads: self.0.has_host_threads,
            path: self.0.runtime_path.clone(),
            flavor,
            offline: self.0.is_offline.unwrap_or(self.0.environment.offline),
            env: self.0.runtime_environment(),
            ..RuntimeOptions::default()
        }
    }

    /// Finds ONNX Runtime, or fetches it, for the execution providers of a pipeline, and loads it.
    ///
    /// # Errors
    /// As [`Runtime::load`].
    pub fn load_runtime(&self, spec: &Spec, cancel: &Cancel, observer: &mut dyn FnMut(Event)) -> Result<Runtime> {
        let options = RuntimeOptions { cancel: cancel.clone(), ..self.runtime_options(flavor(spec)) };
        if session::search(&options).selected().is_none() {
            check_fetchable(spec)?;
        }
        let runtime =
            Runtime::load_with(&options, &mut |progress| observer(Event::Fetch { progress: progress.clone() }))?;
        register_libraries(&runtime, spec)?;
        Ok(runtime)
    }

    /// Adds this engine's provider libraries to those of a pipeline.
    fn add_provider_libraries(&self, spec: &mut Spec) {
        let devices =
            std::iter::once(&mut spec.device).chain(spec.stages.iter_mut().map(|stage| &mut stage.spec.device));
        for device in devices {
            let new = self.0.provider_libraries.iter().filter(|path| !device.provider_libraries.contains(path));
            let new: Vec<_> = new.cloned().collect();
            device.provider_libraries.extend(new);
        }
    }

    /// Returns the settings that this engine puts over those of the pipelines that it opens.
    pub(super) fn overrides(&self, overrides: &Overrides) -> Overrides {
        let mut own = overrides.clone();
        own.provider_libraries.extend(self.0.provider_libraries.iter().cloned());
        own
    }

    /// Checks a pipeline, loads ONNX Runtime for it, and fits the plan to that: providers that cannot be used are skipped,
    /// each with a warning.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub(crate) fn plan(
        &self,
        mut spec: Spec,
        sources: &ModelSources,
        cancel: &Cancel,
        observer: &mut dyn FnMut(Event),
    ) -> Result<(Plan, Runtime)> {
        self.take_warnings().into_iter().for_each(|text| observer(Event::Warning { text }));
        self.add_provider_libraries(&mut spec);
        let mut plan = Plan::from_sources(spec, sources)?;
        plan.set_graph_cache(self.optimized_graphs()?.as_ref());
        plan.require_cache()?;
        if self.0.has_host_threads && plan.executions().any(|own| own.device.threads.is_some()) {
            let problem = "graphs run on the threads of the host's environment (host_threads)";
            return Err(Error::input("device.threads", problem, "leave one of the two out"));
        }
        let runtime = self.load_runtime(&plan.spec, cancel, observer)?;
        for text in plan.fit_runtime(&runtime)? {
            observer(Event::Warning { text });
        }
        Ok((plan, runtime))
    }

    /// Opens every graph of a plan and closes them again.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn try_open(
        &self,
        plan: &Plan,
        runtime: &Runtime,
        cancel: &Cancel,
        observer: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let mut converter = Converter::new(observer, None);
        let mut notice = |event: ExecutionEvent<'_>| converter.notice(event);
        Execution::load(plan, runtime, cancel, &mut notice)?.open_all(plan, cancel, &mut notice)
    }

    /// Compares every component of a plan on its providers with ONNX Runtime's own operators on the CPU, one after the
    /// other; each is also an event. [`ComponentVerification::error`] is the error of one that is wrong.
    ///
    /// # Errors
    /// As [`Engine::open`], and those of running a graph on its provider.
    pub fn verify(
        &self,
        plan: &Plan,
        runtime: &Runtime,
        cancel: &Cancel,
        observer: &mut dyn FnMut(Event),
    ) -> Result<Vec<ComponentVerification>> {
        let mut converter = Converter::new(observer, None);
        Execution::verify(plan, runtime, cancel, &mut |event: ExecutionEvent<'_>| converter.notice(event))
    }

    /// Optimizes the graphs of a plan for this machine, and returns what the graph cache holds of them.
    ///
    /// # Errors
    /// As [`Engine::open`], and [`Error::Io`] if the cache cannot be written.
    pub fn optimize(
        &self,
        plan: &Plan,
        runtime: &Runtime,
        cancel: &Cancel,
        observer: &mut dyn FnMut(Event),
    ) -> Result<Vec<CachedGraph>> {
        let mut converter = Converter::new(observer, None);
        let mut graphs = Vec::new();
        for own in plan.executions() {
            graphs.extend(Execution::prepare(own, runtime, cancel, &mut |event: ExecutionEvent<'_>| {
                converter.notice(event)
            })?);
        }
        Ok(graphs)
    }

    /// Finds ONNX Runtime on this machine without fetching it, and loads it; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Runtime`] if a library that was named cannot be used.
    pub fn find_runtime(&self, spec: &Spec) -> Result<Option<Runtime>> {
        let options = RuntimeOptions { offline: true, ..self.runtime_options(flavor(spec)) };
        let search = session::search(&options);
        match (search.error(), search.selected()) {
            (Some(error), _) => Err(error),
            (None, None) => Ok(None),
            (None, Some(_)) => {
                let runtime = Runtime::load(&options)?;
                register_libraries(&runtime, spec)?;
                Ok(Some(runtime))
            }
        }
    }
}

/// The `[device]` of a pipeline and those of its stages.
fn devices(spec: &Spec) -> impl Iterator<Item = &DeviceSpec> {
    std::iter::once(&spec.device).chain(spec.stages.iter().map(|stage| &stage.spec.device))
}

/// The lists of providers of a pipeline.
fn provider_lists(spec: &Spec) -> impl Iterator<Item = &Vec<String>> {
    devices(spec).flat_map(|device| std::iter::once(&device.providers).chain(device.components.values()))
}

/// The build of ONNX Runtime that the providers of a pipeline need: the first that exists for this machine.
fn flavor(spec: &Spec) -> Option<Flavor> {
    let mut flavors = provider_lists(spec).flatten().filter_map(|name| session::find_provider(name).ok()?.flavor);
    flavors.find(|flavor| *flavor != Flavor::Cpu && !flavor.is_plugin() && flavor.is_built_here())
}

/// Requires, before ONNX Runtime is fetched, that of each list of providers a package for this machine has one. Libraries of
/// plugins may have any.
fn check_fetchable(spec: &Spec) -> Result<()> {
    let is_fetchable = |name: &String| match session::find_provider(name) {
        Ok(provider) => provider.exists_here() && provider.flavor.is_some_and(Flavor::is_built_here),
        Err(_) => true,
    };
    if devices(spec).any(|device| !device.provider_libraries.is_empty()) {
        return Ok(());
    }
    let Some(list) = provider_lists(spec).find(|list| !list.iter().any(is_fetchable)) else { return Ok(()) };
    let obtain = list.iter().filter_map(|name| Some(session::find_provider(name).ok()?.obtain));
    Err(Error::Provider {
        provider: list.join(", "),
        problem: "no ONNX Runtime was found, and none of the packages that can be fetched for this machine has it"
            .to_owned(),
        help: format!("get {}", obtain.collect::<Vec<_>>().join(", or ")),
    })
}

fn register_libraries(runtime: &Runtime, spec: &Spec) -> Result<()> {
    let libraries = devices(spec).flat_map(|device| &device.provider_libraries);
    libraries.into_iter().try_for_each(|path| runtime.register_provider_library(path).map(drop))
}
