//! A pipeline file checked against its model directory: every choice made.
//!
//! [`Plan::new`] joins a [`Spec`](crate::spec::Spec) with the [`Bundle`](crate::bundle::Bundle) it names. What comes out holds no option that means "not checked
//! yet": sizes are known and fit the graphs, the scheduler builds, the signature of every graph the task needs is
//! resolved. `ldm-ort check` stops here; [`Execution::load`](crate::execution::Execution::load) goes on.

mod classes;
mod compute_precision;
mod conditions;
mod control;
mod default_value;
mod defaults;
mod evaluations;
mod execution_plan;
mod free_memory;
mod inputs;
mod memory_budget;
mod model;
mod offloading;
mod opening;
mod openvino;
mod output_sizes;
mod packed;
mod part;
mod pipeline_plan;
mod precision;
mod preview;
mod probe;
mod problems;
mod requirements;
mod resolve;
mod run_plan;
mod runtime;
mod scheduler;
mod scheduler_config;
mod settings;
mod shallow;
mod shapes;
mod size;
mod sizes;
mod sources;
mod stage_input;
mod stages;
mod tensorrt;
mod text;

pub use compute_precision::{ComputePrecision, Tolerance};
pub use conditions::ConditionPart;
pub use control::ControlPart;
pub use default_value::DefaultValue;
pub use execution_plan::{DeviceMemory, ExecutionPlan, MemoryBudget, Sizes};
pub(crate) use free_memory::CountedMemory;
pub use free_memory::MemoryNeed;
pub use model::ModelPlan;
pub use opening::Opening;
pub(crate) use opening::{fastest, name};
pub use part::Part;
pub use pipeline_plan::{Plan, StagePlan};
pub use precision::FLOAT32;
pub use preview::{PreviewPlan, PreviewSource};
pub use probe::{Probe, ProbeValues};
pub use run_plan::RunPlan;
pub use scheduler::SchedulerChoice;
pub use scheduler_config::AppliedCorrection;
pub(crate) use settings::PlannedSettings;
pub use settings::RunSettings;
pub use shallow::ShallowPlan;
pub use sources::ModelSources;
pub use text::{TextPart, TextPlan};
