//! Small graphs beside a large one.

use std::path::Path;

use super::Session;
use super::opening::{Opening, open};
use crate::error::Result;
use crate::session::library::Runtime;
use crate::session::provider::{ProviderChoice, captures_runs, find_provider};
use crate::session::{Cancel, SessionOptions};

/// Opens small graphs, such as that of a scheduler's step, on the providers of a session.
#[derive(Clone)]
pub struct SmallGraphs {
    runtime: Runtime,
    providers: Vec<ProviderChoice>,
}

/// Parts of the names of options that are of the large graph alone, in lower case: they lower its precision, or replay its
/// runs at fixed addresses.
const OF_LARGE_GRAPHS: [&str; 7] = ["fp16", "bf16", "fp8", "int8", "precision", "load_config", "graph"];

impl Session {
    /// Returns the providers of this session for small graphs beside it.
    pub fn small_graphs(&self) -> SmallGraphs {
        SmallGraphs::new(&self.runtime, &self.providers)
    }

    /// Returns true if a provider replays runs at fixed addresses, as its options say.
    pub fn captures_runs(&self) -> bool {
        self.providers.iter().any(captures_runs)
    }
}

impl SmallGraphs {
    fn new(runtime: &Runtime, providers: &[ProviderChoice]) -> Self {
        let is_named = |choice: &ProviderChoice, name: &str| find_provider(&choice.name).is_ok_and(|p| p.name == name);
        // TensorRT takes seconds to compile what CUDA runs at once.
        let has_cuda = providers.iter().any(|choice| is_named(choice, "cuda"));
        let providers = providers.iter().filter(|choice| !(has_cuda && is_named(choice, "tensorrt"))).cloned();
        let providers = providers.map(|mut choice| {
            choice.options.retain(|key, _| !is_of_large_graph(key));
            choice
        });
        Self { runtime: runtime.clone(), providers: providers.collect() }
    }

    /// Opens the graph in `bytes`, whose work is elementwise, on one thread.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open(&self, name: &str, bytes: Vec<u8>, cancel: &Cancel) -> Result<Session> {
        let options = SessionOptions {
            component: name.into(),
            providers: self.providers.clone(),
            threads: Some(1),
            cancel: cancel.clone(),
            ..SessionOptions::default()
        };
        let opening = Opening { bytes: Some(bytes), ..Opening::shared(&options, 1) };
        let (graph, placement) = open(&self.runtime, Path::new(name), &options, Vec::new(), opening)?;
        Ok(Session::of_graph(graph, placement, options.providers, &self.runtime))
    }
}

fn is_of_large_graph(option: &str) -> bool {
    let option = option.to_ascii_lowercase();
    OF_LARGE_GRAPHS.iter().any(|part| option.contains(part))
}
