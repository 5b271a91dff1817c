//! The execution provider of each node of a graph.
//!
//! ONNX Runtime silently falls back to the CPU for nodes that no other provider takes, so "ran on the GPU" can mean
//! three nodes of three thousand. Its option against that (`session.disable_cpu_ep_fallback`) rejects every graph with
//! a node on the CPU, and ONNX Runtime itself puts the shape arithmetic of a graph with dynamic shapes there because
//! that is faster: with the option, practically no exported diffusion graph opens on CUDA. So this module judges the
//! placement. ONNX Runtime 1.31 and newer tell it of an opened graph (`session/assignment.rs`); from older versions it is
//! read from the log of opening a graph at the verbose level.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;

use super::library::Runtime;
use super::provider::{self, CPU, ProviderChoice};
use crate::error::{Error, Result};

/// Operators whose placement decides how fast a graph runs. All others are arithmetic on shapes or on single tensors.
const HEAVY: &[&str] = &[
    "Attention",
    "Conv",
    "ConvTranspose",
    "DynamicQuantizeMatMul",
    "Einsum",
    "FusedConv",
    "FusedMatMul",
    "Gemm",
    "GroupQueryAttention",
    "MatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MultiHeadAttention",
    "NhwcConv",
    "PackedMultiHeadAttention",
    "QLinearConv",
    "QLinearMatMul",
];

/// The number of nodes of a graph that each execution provider took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// ONNX Runtime's name of each provider that took nodes, and their number. From ONNX Runtime 1.31 on, the nodes are those
    /// that were assigned, before a provider fused or compiled them. Before, a compiled subgraph counts as one, and the list is
    /// empty if the CPU is the only provider.
    pub nodes: Vec<(String, usize)>,
    /// The heavy operators placed on the CPU, one entry per node.
    pub heavy_on_cpu: Vec<String>,
}

impl Placement {
    /// Adds a node.
    pub(super) fn add(&mut self, provider: &str, operator: &str) {
        match self.nodes.iter_mut().find(|(known, _)| known == provider) {
            Some((_, count)) => *count += 1,
            None => self.nodes.push((provider.to_owned(), 1)),
        }
        if provider == CPU && HEAVY.contains(&operator) {
            self.heavy_on_cpu.push(operator.to_owned());
        }
    }

    /// Returns the number of nodes by the provider's name in pipeline.toml, or a plugin's own.
    pub fn by_provider(&self) -> BTreeMap<String, usize> {
        let name = |name: &str| provider::find_provider(name).map_or(name.to_owned(), |known| known.name.to_owned());
        self.nodes.iter().map(|(provider, count)| (name(provider), *count)).collect()
    }

    /// Reads one line of ONNX Runtime's log.
    fn read_line(&mut self, line: &str) {
        let line = line.trim();
        if let Some((_, rest)) = line.split_once("placed on [")
            && let Some((provider, rest)) = rest.split_once("]. Number of nodes: ")
            && let Ok(count) = rest.trim().parse()
        {
            self.nodes.push((provider.to_string(), count));
        } else if self.nodes.last().is_some_and(|(provider, _)| provider == CPU)
            && let Some((op, _)) = line.split_once(" (")
            && HEAVY.contains(&op)
        {
            self.heavy_on_cpu.push(op.to_string());
        }
    }

    /// Checks that the graph runs on `providers`.
    pub(super) fn check(&self, providers: &[ProviderChoice], component: &str, path: &Path) -> Result<()> {
        let asked: Vec<_> = providers.iter().map(|p| (p.name.as_str(), provider::ort_name(&p.name))).collect();
        let Some((first, _)) = asked.iter().find(|(_, ort_name)| *ort_name != CPU) else { return Ok(()) };
        if self.nodes.is_empty() {
            tracing::debug!(component, "ONNX Runtime did not tell the nodes' placement");
            return Ok(());
        }
        let names: Vec<_> = asked.iter().map(|(name, _)| *name).collect();
        let allowed =
            |help: &str| format!("{help}; [\"{}\", \"cpu\"] lets the CPU run the other nodes", names.join("\", \""));
        let error = |problem: String, help: String| Error::Provider { provider: (*first).to_owned(), problem, help };

        let is_asked = |name: &str| asked.iter().any(|(_, ort_name)| *ort_name == name);
        let cpu_allowed = is_asked(CPU);
        let took = self.nodes.iter().any(|(name, _)| name != CPU && is_asked(name));
        if !took && !cpu_allowed {
            return Err(error(
                format!("took no node of {component} ({})", path.display()),
                allowed("the provider supports none of the graph's operators or element types"),
            ));
        }
        if !took {
            tracing::warn!(component, provider = first, "the provider took no node; the graph runs on the CPU");
        }
        if !self.heavy_on_cpu.is_empty() && !cpu_allowed {
            let mut kinds = self.heavy_on_cpu.clone();
            kinds.sort();
            kinds.dedup();
            return Err(error(
                format!(
                    "did not take {} heavy nodes ({}) of {component} ({}), which would run on the CPU",
                    self.heavy_on_cpu.len(),
                    kinds.join(", "),
                    path.display()
                ),
                allowed("use a graph exported for this provider"),
            ));
        }
        Ok(())
    }
}

/// Records ONNX Runtime's log while it opens a graph, for versions before 1.31.
pub(super) struct PlacementRecorder(Option<Arc<Mutex<Placement>>>);

impl PlacementRecorder {
    /// Creates a recorder that is active if any provider other than the CPU is in the list.
    pub(super) fn for_providers(providers: &[ProviderChoice], runtime: &Runtime) -> Self {
        let only_cpu = providers.iter().all(|p| provider::ort_name(&p.name) == CPU);
        Self((!only_cpu && runtime.assignment_api().is_none()).then(Arc::default))
    }

    /// Sets the session's log level and log function.
    pub(super) fn attach(&self, builder: SessionBuilder) -> ort::Result<SessionBuilder> {
        let Some(placement) = self.0.clone() else { return Ok(builder.with_log_level(LogLevel::Warning)?) };
        let logger = move |level: LogLevel, category: &str, id: &str, location: &str, message: &str| {
            if level == LogLevel::Verbose {
                placement.lock().unwrap_or_else(PoisonError::into_inner).read_line(message);
            } else {
                super::library::log(level, category, id, location, message);
            }
        };
        Ok(builder.with_log_level(LogLevel::Verbose)?.with_logger(Arc::new(logger))?)
    }

    /// Returns the recorded placement.
    pub(super) fn placement(&self) -> Placement {
        match &self.0 {
            Some(placement) => placement.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            None => Placement::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(names: &[&str]) -> Vec<ProviderChoice> {
        names.iter().map(|name| ProviderChoice::new(*name)).collect()
    }

    fn placement(lines: &[&str]) -> Placement {
        let mut placement = Placement::default();
        lines.iter().for_each(|line| placement.read_line(line));
        placement
    }

    const MIXED: &[&str] = &[
        "Node placements",
        " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 3",
        "  Shape (/Shape)",
        "  Gather (/Gather)",
        "  Conv (/conv_in/Conv)",
        " Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 2",
        "  Conv (/conv_out/Conv)",
        "  Add (/Add)",
    ];

    #[test]
    fn counts_nodes_and_finds_the_heavy_ones_on_the_processor() {
        let placement = placement(MIXED);
        assert_eq!(placement.nodes, [(CPU.to_string(), 3), ("CUDAExecutionProvider".to_string(), 2)]);
        assert_eq!(placement.heavy_on_cpu, ["Conv"]);
    }

    #[test]
    fn refuses_heavy_nodes_on_the_processor_unless_the_list_allows_them() {
        let path = Path::new("unet.onnx");
        let placement = placement(MIXED);
        let error = placement.check(&choices(&["cuda"]), "unet", path).unwrap_err().to_string();
        assert!(error.contains("1 heavy nodes (Conv)") && error.contains(r#"["cuda", "cpu"]"#), "{error}");
        placement.check(&choices(&["cuda", "cpu"]), "unet", path).unwrap();
        placement.check(&choices(&["cpu"]), "unet", path).unwrap();
    }

    #[test]
    fn refuses_a_provider_that_took_nothing() {
        let placement = placement(&[" All nodes placed on [CPUExecutionProvider]. Number of nodes: 7"]);
        let error = placement.check(&choices(&["cuda"]), "unet", Path::new("unet.onnx")).unwrap_err().to_string();
        assert!(error.contains("took no node of unet"), "{error}");
    }
}
