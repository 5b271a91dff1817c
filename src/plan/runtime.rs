//! A plan on the machine that runs it: the providers of each list that can be used, and graphs that the loaded ONNX
//! Runtime can open.

use std::collections::{BTreeMap, BTreeSet};

use super::execution_plan::{ExecutionPlan, Sizes};
use super::pipeline_plan::Plan;
use super::problems::Problems;
use super::run_plan::RunPlan;
use crate::bundle::{ComponentKind, GraphFile, Operator, obstacles};
use crate::error::{Error, Result};
use crate::session::{PINNED_VERSION, ProviderChoice, Runtime, find_provider};
use crate::tensor::DType;

impl Plan {
    /// Fits the plan to this machine: each list of providers keeps those that can be used here, and every graph is one that
    /// `runtime` can open, as far as that is known without opening it. Returns a sentence for each provider that is
    /// skipped.
    ///
    /// # Errors
    /// [`Error::Provider`] if no provider of a list can be used; [`Error::Model`] for a graph in a newer format, or with an
    /// operator that ONNX Runtime or the CPU does not have; each within [`Error::Stage`] where it is about a `[[stage]]`,
    /// and [`Error::Several`] where there are several.
    pub fn fit_runtime(&mut self, runtime: &Runtime) -> Result<Vec<String>> {
        let mut problems = Problems::default();
        let mut notes = problems.unless(fit(&mut self.execution, &mut self.request, runtime)).unwrap_or_default();
        for stage in &mut self.stages {
            let fitted = fit(&mut stage.execution, &mut stage.request, runtime).map_err(|e| e.in_stage(&stage.key));
            let of_stage = problems.unless(fitted).unwrap_or_default();
            let new = of_stage.into_iter().filter(|note| !notes.contains(note)).collect::<Vec<_>>();
            notes.extend(new);
        }
        problems.check().map(|()| notes)
    }

    /// Requires that `runtime` defines ONNX's own operators in all graphs, in the versions that those ask for. Exporters
    /// write no others, so that only a check asks: it takes a millisecond or two for each operator.
    ///
    /// # Errors
    /// [`Error::Model`] naming the operators, otherwise as [`Plan::fit_runtime`].
    pub fn check_operators(&self, runtime: &Runtime) -> Result<()> {
        let mut problems = Problems::default();
        problems.unless(self.execution.check_definitions(runtime, |operator| operator.domain.is_empty()));
        for stage in &self.stages {
            let checked = stage.execution.check_definitions(runtime, |operator| operator.domain.is_empty());
            problems.unless(checked.map_err(|e| e.in_stage(&stage.key)));
        }
        problems.check()
    }

    /// Requires that the graphs that run on the CPU have no operator without a kernel there, which is all that is known
    /// while there is no ONNX Runtime on this machine.
    ///
    /// # Errors
    /// As [`Plan::fit_runtime`].
    pub fn fit_pinned_runtime(&self) -> Result<()> {
        let mut problems = Problems::default();
        problems.unless(self.execution.check_kernels());
        for stage in &self.stages {
            problems.unless(stage.execution.check_kernels().map_err(|e| e.in_stage(&stage.key)));
        }
        problems.check()
    }
}

fn fit(plan: &mut ExecutionPlan, request: &mut RunPlan, runtime: &Runtime) -> Result<Vec<String>> {
    let was_on_cpu = plan.denoises_on_cpu();
    let mut notes = plan.choose_providers(runtime)?;
    if plan.denoises_on_cpu() && !was_on_cpu {
        // The CPU is kept busy by one image.
        request.batch = 1;
        plan.sizes = Sizes::of(request, &plan.model.model);
    }
    plan.read_device_memory(runtime);
    plan.check_runtime(runtime)?;
    notes.extend(plan.check_precision()?);
    notes.extend(plan.unchecked_options());
    Ok(notes)
}

impl ExecutionPlan {
    /// Leaves in each list of providers those that can be used here, and returns a sentence for each that is skipped.
    ///
    /// # Errors
    /// [`Error::Provider`] if none of a list can be used.
    pub fn choose_providers(&mut self, runtime: &Runtime) -> Result<Vec<String>> {
        let kinds: BTreeSet<ComponentKind> = self.all_graphs().iter().map(|(kind, _)| *kind).collect();
        let mut known: BTreeMap<String, Result<()>> = BTreeMap::new();
        let mut notes = Vec::new();
        let mut lists: Vec<_> = self.device.components.iter_mut().filter(|(kind, _)| kinds.contains(kind)).collect();
        let is_general = kinds.len() > lists.len();
        let general = (is_general).then_some((None, &mut self.device.providers));
        let mut lists: Vec<_> =
            general.into_iter().chain(lists.drain(..).map(|(kind, list)| (Some(kind), list))).collect();
        for (kind, list) in &mut lists {
            let mut obstacles = Vec::new();
            let mut usable = Vec::new();
            for name in list.iter() {
                let options = self.device.options.get(name).cloned().unwrap_or_default();
                let choice = ProviderChoice { name: name.clone(), options };
                let tried = known.entry(name.clone()).or_insert_with(|| match name.as_str() {
                    "cpu" => Ok(()),
                    _ => runtime.try_provider(&choice),
                });
                match tried {
                    Ok(()) => usable.push(name.clone()),
                    Err(error) => obstacles.push((name.clone(), Obstacle::of(error))),
                }
            }
            let Some(first) = usable.first() else { return Err(none_usable(obstacles)) };
            let of = kind.map_or(String::new(), |kind| format!(" for {kind}"));
            notes.extend(obstacles.iter().map(|(name, obstacle)| {
                format!(
                    "provider {name} cannot be used and is skipped{of}, {first} is used instead: {}",
                    obstacle.problem
                )
            }));
            **list = usable;
        }
        Ok(notes)
    }

    /// Returns a sentence for each provider that may ignore options without a message.
    fn unchecked_options(&self) -> Vec<String> {
        let lists = std::iter::once(&self.device.providers).chain(self.device.components.values());
        let used: BTreeSet<&String> = lists.flatten().collect();
        let options = self.device.options.iter().filter(|(name, options)| used.contains(name) && !options.is_empty());
        let unchecked = options.filter(|(name, _)| find_provider(name).is_err());
        let note = |(name, _)| {
            format!(
                "[device.{name}]: a plugin provider ignores options that it does not know; these are passed on unchecked"
            )
        };
        unchecked.map(note).collect()
    }

    /// Requires that `runtime` takes the format of all graphs, and their operators that are not ONNX's own.
    ///
    /// # Errors
    /// [`Error::Model`] naming the versions or the operators.
    pub fn check_runtime(&self, runtime: &Runtime) -> Result<()> {
        let mut problems = Problems::default();
        for (_, graph) in self.all_graphs() {
            problems.unless(check_format(graph, runtime));
        }
        if problems.is_empty() {
            problems.unless(self.check_definitions(runtime, |operator| !operator.domain.is_empty()));
        }
        problems.unless(self.check_products(runtime));
        // A newer ONNX Runtime may have kernels that the table does not know of.
        if minor(runtime.version()) <= minor(PINNED_VERSION) {
            problems.unless(self.check_kernels());
        }
        problems.check()
    }

    /// Requires that the CPU multiplies by weights of the types in which the graphs store them, which it does not by
    /// 8-bit floating-point numbers for example.
    fn check_products(&self, runtime: &Runtime) -> Result<()> {
        let mut problems = Problems::default();
        for (kind, graph) in self.all_graphs() {
            if !self.device.is_on_cpu(kind) || self.is_widened(kind) {
                continue;
            }
            let others = graph.products.iter().filter(|(_, dtype)| ![DType::F32, DType::F16].contains(dtype));
            let refused = others.filter_map(|(operator, dtype)| {
                let reason = runtime.refuses_product(&graph.opsets, operator, *dtype)?;
                Some(format!("{operator} by {dtype}: {reason}"))
            });
            let refused: Vec<_> = refused.collect();
            if !refused.is_empty() {
                problems.push(Error::model(
                    &graph.path,
                    format!(
                        "{kind} is to run on the CPU, which cannot multiply by its weights: {}",
                        refused.join("; ")
                    ),
                    "export the model in float32 or float16, or choose a provider that can: [device] provider",
                ));
            }
        }
        problems.check()
    }

    /// Requires that `runtime` defines those of the graphs' operators that `of` picks.
    fn check_definitions(&self, runtime: &Runtime, of: impl Fn(&Operator) -> bool) -> Result<()> {
        let mut problems = Problems::default();
        let mut known = BTreeMap::new();
        // The operators within a file's own functions are of the versions that those name.
        for (_, graph) in self.all_graphs().into_iter().filter(|(_, graph)| !graph.has_functions) {
            let mut is_defined = |operator: &Operator| {
                let name = operator.name.split(' ').next().unwrap_or_default();
                let defines = || runtime.defines_operator(&graph.opsets, &operator.domain, name);
                *known.entry((&graph.opsets, operator.domain.clone(), name.to_owned())).or_insert_with(defines)
            };
            let unknown = graph.operators.keys().filter(|operator| of(operator) && !is_defined(operator));
            let unknown: Vec<_> = unknown.map(ToString::to_string).collect();
            if !unknown.is_empty() {
                problems.push(Error::model(
                    &graph.path,
                    format!(
                        "has operators that ONNX Runtime {} does not define in the graph's opset: {}",
                        runtime.version(),
                        unknown.join(", ")
                    ),
                    "export the model without them, or use the ONNX Runtime that it was exported for (--runtime)",
                ));
            }
        }
        problems.check()
    }

    /// Requires that the graphs that run on the CPU alone have no operator without a kernel there.
    fn check_kernels(&self) -> Result<()> {
        let mut problems = Problems::default();
        for (kind, graph) in self.all_graphs() {
            if !self.device.is_on_cpu(kind) {
                continue;
            }
            let fused: Vec<_> = obstacles(graph)
                .into_iter()
                .filter(|obstacle| obstacle.operator.domain == "com.microsoft" && obstacle.rules_out("cpu"))
                .map(|obstacle| obstacle.to_string())
                .collect();
            if !fused.is_empty() {
                problems.push(Error::model(
                    &graph.path,
                    format!("{kind} is to run on the CPU, which has no kernel for some of its operators: {}", fused.join("; ")),
                    "use the export that was not optimized for another provider, or choose that provider: [device] provider",
                ));
            }
        }
        problems.check()
    }

    /// The graphs that are opened, that of the previews among them, each once.
    pub(super) fn all_graphs(&self) -> Vec<(ComponentKind, &GraphFile)> {
        let preview = self.model.preview_decoder().map(|part| (part.kind, &part.graph));
        self.model.graphs().into_iter().chain(preview).collect()
    }
}

/// Requires that ONNX Runtime takes the version of a graph's format and operator sets.
fn check_format(graph: &GraphFile, runtime: &Runtime) -> Result<()> {
    let Some(reason) = runtime.refuses_format(graph.ir_version, &graph.opsets) else { return Ok(()) };
    let named = |domain: &str| if domain.is_empty() { "ai.onnx".to_owned() } else { domain.to_owned() };
    let opsets: Vec<_> = graph.opsets.iter().map(|(d, version)| format!("{} {version}", named(d))).collect();
    Err(Error::model(
        &graph.path,
        format!(
            "is of IR version {} with opset {}, and ONNX Runtime {} does not take it: {reason}",
            graph.ir_version,
            opsets.join(", "),
            runtime.version()
        ),
        "export the model with an older opset, or use a newer ONNX Runtime (--runtime)",
    ))
}

/// The reason why a provider cannot be used, and a hint.
struct Obstacle {
    problem: String,
    help: String,
}

impl Obstacle {
    fn of(error: &Error) -> Self {
        match error {
            Error::Provider { problem, help, .. } => Self { problem: problem.clone(), help: help.clone() },
            other => Self { problem: other.to_string(), help: String::new() },
        }
    }
}

/// The error for a list of which no provider can be used: that of its only one, or all of them in one.
fn none_usable(mut obstacles: Vec<(String, Obstacle)>) -> Error {
    if obstacles.len() == 1 {
        let (provider, Obstacle { problem, help }) = obstacles.remove(0);
        return Error::Provider { provider, problem, help };
    }
    let names: Vec<_> = obstacles.iter().map(|(name, _)| name.as_str()).collect();
    let problems: Vec<_> = obstacles.iter().map(|(name, o)| format!("{name} {}", o.problem)).collect();
    let mut helps: Vec<_> = obstacles.iter().map(|(_, o)| o.help.as_str()).filter(|help| !help.is_empty()).collect();
    helps.dedup();
    Error::Provider {
        provider: names.join(", "),
        problem: format!("none of the list can be used: {}", problems.join("; ")),
        help: format!("{}; or end the list in \"cpu\"", helps.join("; or ")),
    }
}

/// The minor version of a version `1.x.y`.
fn minor(version: &str) -> Option<u32> {
    version.split('.').nth(1)?.parse().ok()
}
