//! The type in which graphs multiply.

use std::path::PathBuf;

use super::execution_plan::ExecutionPlan;
use super::{openvino, tensorrt};
use crate::bundle::{ComponentKind, GraphFile};
use crate::error::{Error, Result};
use crate::kernels::{Filtering, InstructionSet, OperandType};
use crate::rewrite::{OperatorChoice, can_widen};
use crate::session::{Provider, find_provider};
use crate::spec::{Options, Precision};
use crate::tensor::DType;

/// The precision of graphs that multiply as they are stored.
pub const FLOAT32: &str = "float32";

impl ExecutionPlan {
    /// Returns the type in which a component multiplies if it has operators of our own; `None` if it has ONNX Runtime's, in
    /// the type that the graph stores.
    ///
    /// Text encoders never do: they take little of the time, and all that follows depends on them.
    pub fn operands_of(&self, kind: ComponentKind) -> Option<OperandType> {
        let is_bf16 = self.is_bf16(kind);
        let operands = if is_bf16 { OperandType::Bf16 } else { OperandType::Float32 };
        let fits = InstructionSet::used().has_operators(operands)
            && self.is_optimized_ahead()
            && self.is_heavy(kind)
            && self.can_be_cached(kind);
        let takes_half = self.takes_half(kind) || self.is_widened(kind);
        (fits && self.narrow_weights(kind, takes_half).is_none()).then_some(operands)
    }

    /// True if graphs are kept in a cache. A memory budget is planned before the plan has one, and no run goes without.
    fn is_optimized_ahead(&self) -> bool {
        self.graph_cache.is_some() || self.is_bounded()
    }

    /// True if a component's graph is rewritten to compute in float32 on the weights that it stores.
    pub fn is_widened(&self, kind: ComponentKind) -> bool {
        self.model.upcast.contains(&kind) || self.is_widened_from_bfloat16(kind) || self.is_widened_from_half(kind)
    }

    /// True for a graph in bfloat16 that is to run on a provider without it.
    fn is_widened_from_bfloat16(&self, kind: ComponentKind) -> bool {
        let takes = |name: &String| find_provider(name).is_ok_and(Provider::takes_bfloat16);
        let has = self.device.providers_of(kind).first().is_some_and(takes);
        !has && self.graphs_of(kind).any(GraphFile::computes_in_bfloat16)
    }

    /// True for a graph in half precision that is optimized for an x86-64 CPU, of which ONNX Runtime has hardly an operator in
    /// half precision: as exported, most nodes would be between casts. In float32 its weights are twice as large, so that large
    /// graphs and those under a memory budget stay as they are; in bf16 they are as large as before.
    fn is_widened_from_half(&self, kind: ComponentKind) -> bool {
        /// Of weights in half precision: those of SDXL's UNet are 5.
        const MOST: u64 = 6 << 30;
        let has_room = |graph: &GraphFile| !self.is_bounded() && graph.weight_bytes <= MOST;
        let has_room = || self.graphs_of(kind).all(has_room);
        cfg!(target_arch = "x86_64")
            && self.is_optimized_ahead()
            && self.can_be_cached(kind)
            && self.graphs_of(kind).any(GraphFile::multiplies_in_half)
            && self.graphs_of(kind).all(can_widen)
            && (self.takes_half(kind) && self.is_heavy(kind) || has_room())
    }

    /// The graphs of a component: several ControlNets are of one kind.
    fn graphs_of(&self, kind: ComponentKind) -> impl Iterator<Item = &GraphFile> {
        self.all_graphs().into_iter().filter(move |(own, _)| *own == kind).map(|(_, graph)| graph)
    }

    /// Returns a sentence about each type of graphs that compute in float32 instead.
    pub fn widening_remarks(&self) -> Vec<String> {
        let mut kinds: Vec<_> = self.all_graphs().into_iter().map(|(kind, _)| kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let remark = |is_of_type: &dyn Fn(ComponentKind) -> bool, instead: &str| {
            let names: Vec<_> = kinds.iter().filter(|kind| is_of_type(**kind)).map(ToString::to_string).collect();
            let verb = if names.len() == 1 { "computes" } else { "compute" };
            (!names.is_empty()).then(|| format!("{} {verb} in float32, not in {instead}", names.join(", ")))
        };
        let from_half = |kind| self.is_widened_from_half(kind) && !self.model.upcast.contains(&kind);
        let from_bfloat16 = |kind| self.is_widened_from_bfloat16(kind);
        let remarks = [
            remark(&from_bfloat16, "bfloat16, which the provider does not have"),
            remark(&from_half, "half precision, in which this CPU is slower"),
        ];
        remarks.into_iter().flatten().collect()
    }

    /// True if bf16 is chosen, or `auto` on a CPU on which it is faster, which is what `int8` means for all that it leaves.
    /// `auto` has no component in bf16 if the denoiser cannot be, since the denoiser's precision is the one that summaries and
    /// records name.
    fn is_bf16(&self, kind: ComponentKind) -> bool {
        let stays = |kind| self.float32_components.contains(&kind);
        match self.device.precision {
            Precision::Float32 => false,
            Precision::Bf16 => true,
            Precision::Auto | Precision::Int8 => {
                InstructionSet::used().is_faster_in_bf16() && !stays(kind) && !stays(self.model.denoiser.kind)
            }
        }
    }

    /// True if int8 is chosen for the linear layers of a component.
    fn is_int8(&self, kind: ComponentKind) -> bool {
        let is_chosen = self.device.precision == Precision::Int8 && InstructionSet::used().has_int8_operators();
        is_chosen && self.is_heavy(kind) && !self.rounds_once(kind)
    }

    /// True if the linear layers of a component multiply int8.
    pub fn has_int8(&self, kind: ComponentKind) -> bool {
        self.is_int8(kind) && self.operands_of(kind).is_some()
    }

    /// True for a component whose weights of half precision need not be widened to float32.
    fn takes_half(&self, kind: ComponentKind) -> bool {
        self.is_bf16(kind) || self.is_int8(kind)
    }

    /// Returns the components for which `auto` or `int8` chooses operators of our own in bf16, the denoiser first.
    pub fn automatic_bf16(&self) -> Vec<ComponentKind> {
        let denoiser = self.model.denoiser.kind;
        let mut kinds: Vec<_> = self.all_graphs().into_iter().map(|(kind, _)| kind).collect();
        kinds.retain(|kind| self.operands_of(*kind) == Some(OperandType::Bf16));
        kinds.sort_by_key(|kind| (*kind != denoiser, *kind));
        kinds.dedup();
        if self.chooses_bf16() { kinds } else { Vec::new() }
    }

    /// True if the precision names bf16 of no component, and has it where it is faster.
    fn chooses_bf16(&self) -> bool {
        matches!(self.device.precision, Precision::Auto | Precision::Int8)
    }

    /// Has `auto` or `int8` choose float32 for a component, and for all if it is the denoiser.
    ///
    /// # Errors
    /// [`Error::Input`] if a memory budget was planned with its weights in bf16.
    pub fn leave_in_float32(&mut self, kind: ComponentKind) -> Result<()> {
        if self.memory_budget.is_some() {
            return Err(Error::input(
                "device.memory_budget",
                format!("is planned with {kind} in bf16, and it does not run in that"),
                "write precision = \"float32\", for which the budget is planned then",
            ));
        }
        self.float32_components.insert(kind);
        Ok(())
    }

    /// True if a component's first provider is OpenVINO, and computes it in bf16.
    fn is_bf16_on_openvino(&self, kind: ComponentKind) -> bool {
        self.openvino_options(kind).is_some_and(|options| options.is_ok())
    }

    /// Returns the options of a component that OpenVINO is to compute in bf16, or the key that contradicts it and a sentence.
    fn openvino_options(&self, kind: ComponentKind) -> Option<Result<Options, (&'static str, String)>> {
        let is_first = self.device.providers_of(kind).first().is_some_and(|name| name == openvino::PROVIDER);
        let options = || self.device.options.get(openvino::PROVIDER).cloned().unwrap_or_default();
        (is_first && self.is_bf16(kind) && self.is_heavy(kind)).then(|| openvino::with_bf16(options()))
    }

    /// Returns a component's options of a provider: those of the pipeline file, `precision` for OpenVINO, and a cache of
    /// timings for TensorRT.
    pub(super) fn provider_options(&self, kind: ComponentKind, provider: &str) -> Options {
        let own = self.openvino_options(kind).filter(|_| provider == openvino::PROVIDER).and_then(|own| own.ok());
        let options = own.unwrap_or_else(|| self.device.options.get(provider).cloned().unwrap_or_default());
        match self.tensorrt_folder().filter(|folder| provider == tensorrt::PROVIDER && folder.is_dir()) {
            Some(folder) => tensorrt::with_timing_cache(options, &folder),
            None => options,
        }
    }

    /// The folder of TensorRT's timings, beside the graph cache.
    fn tensorrt_folder(&self) -> Option<PathBuf> {
        Some(self.graph_cache.as_ref()?.folder().with_file_name(tensorrt::PROVIDER))
    }

    /// Creates the folders in which providers keep timings. Where that is not possible they measure each time.
    pub fn create_provider_folders(&self) {
        let is_tensorrt = |kind| self.device.providers_of(kind).iter().any(|name| name == tensorrt::PROVIDER);
        let kinds = self.all_graphs().into_iter().map(|(kind, _)| kind);
        if let Some(folder) = self.tensorrt_folder().filter(|_| kinds.into_iter().any(is_tensorrt)) {
            let _ = std::fs::create_dir_all(folder);
        }
    }

    /// The type of a component's weights that are narrower than float32: it has operators of ONNX Runtime's. Weights of half
    /// precision are so if they are the most, and not with `takes_half`.
    fn narrow_weights(&self, kind: ComponentKind, takes_half: bool) -> Option<DType> {
        let narrow = |graph: &GraphFile| {
            let all: u64 = graph.weight_types.iter().map(|(_, bytes)| bytes).sum();
            let is_narrow = |(dtype, bytes): &&(DType, u64)| match dtype {
                DType::F32 | DType::F64 | DType::I32 | DType::I64 | DType::Bool => false,
                DType::F16 | DType::Bf16 => !takes_half && *bytes > all / 2,
                _ => true,
            };
            graph.weight_types.iter().find(is_narrow).map(|(dtype, _)| *dtype)
        };
        self.graphs_of(kind).find_map(narrow)
    }

    /// Returns how a component's operators of our own compute, if it has those.
    ///
    /// Minimal filtering of large tiles rounds three times as much as that of small ones. In float32 other sums round more, so
    /// that latents after 20 steps are as near to ONNX Runtime's with either. In bf16 denoisers the rounding of operands is
    /// most of the error; the images of a VAE would have too much of it (docs/performance.md has figures).
    pub(super) fn operator_choice(&self, kind: ComponentKind) -> Option<OperatorChoice> {
        let operands = self.operands_of(kind)?;
        let linear_in_int8 = self.has_int8(kind);
        let choice = |filtering| OperatorChoice { linear_in_int8, ..OperatorChoice::new(operands, filtering) };
        Some(match operands {
            // Tiles of AMX multiply faster than windows can be transformed.
            OperandType::Bf16 if InstructionSet::used() == InstructionSet::Amx => choice(None),
            OperandType::Float32 if self.device.exact => choice(None),
            OperandType::Bf16 if self.rounds_once(kind) => {
                OperatorChoice { narrow_filtering: Some(Filtering::Four), ..choice(Some(Filtering::Three)) }
            }
            OperandType::Float32 | OperandType::Bf16 => choice(Some(Filtering::Four)),
        })
    }

    /// True for a decoder that is to take less memory.
    pub(super) fn decodes_plainly(&self, kind: ComponentKind) -> bool {
        let is_decoder = self.model.decoder.as_ref().is_some_and(|part| part.kind == kind);
        is_decoder && self.memory_budget.is_some_and(|memory_budget| memory_budget.decodes_plainly)
    }

    /// True for VAEs, whose rounding errors are not carried from step to step.
    pub(super) fn rounds_once(&self, kind: ComponentKind) -> bool {
        let encoder = self.model.encoder.as_ref().map(|part| part.kind);
        let decoder = self.model.decoder.as_ref().map(|part| part.kind);
        [encoder, decoder].contains(&Some(kind))
    }

    /// True for denoisers, ControlNets and VAEs.
    pub(super) fn is_heavy(&self, kind: ComponentKind) -> bool {
        let model = &self.model;
        self.rounds_once(kind) || kind == model.denoiser.kind || model.controls.iter().any(|c| c.part.kind == kind)
    }

    /// The precision of the denoiser, such as `bf16 (amx_bf16)`: the type of its products, and the instructions that
    /// multiply it.
    pub fn precision(&self) -> String {
        match self.operands_of(self.model.denoiser.kind) {
            Some(operands) if self.has_int8(self.model.denoiser.kind) => {
                format!("int8 and {} ({})", operands.name(), InstructionSet::used().name())
            }
            Some(OperandType::Bf16) => format!("bf16 ({})", InstructionSet::used().name()),
            None if self.is_bf16_on_openvino(self.model.denoiser.kind) => format!("bf16 ({})", openvino::PROVIDER),
            _ => FLOAT32.to_owned(),
        }
    }

    /// Checks that `precision = "bf16"` or `"int8"` can be kept to, and returns a sentence if some of the graphs stay in a
    /// higher one.
    ///
    /// # Errors
    /// [`Error::Input`] if this CPU does not multiply it, or no graph would.
    pub(super) fn check_precision(&self) -> Result<Option<String>> {
        let set = InstructionSet::used();
        let (name, needs, is_there) = match self.device.precision {
            Precision::Float32 | Precision::Auto => return Ok(None),
            Precision::Bf16 => ("bf16", "AVX-512 BF16 or AMX", set.has_operators(OperandType::Bf16)),
            Precision::Int8 => ("int8", "AVX-512 VNNI", set.has_int8_operators()),
        };
        let refused = |problem: &str, help: &str| Err(Error::input("device.precision", problem, help));
        if !is_there {
            let problem = match InstructionSet::chosen() {
                Some(set) => format!("{name} needs {needs}, and {} is chosen", set.name()),
                None => format!("{name} needs a CPU with {needs}, and this one does not have that"),
            };
            return refused(
                &problem,
                "leave the key out, or write precision = \"auto\", which takes what is faster here",
            );
        }
        let heavy = || self.all_graphs().into_iter().map(|(kind, _)| kind).filter(|kind| self.is_heavy(*kind));
        if self.device.precision == Precision::Bf16 {
            if let Some((key, problem)) = heavy().find_map(|kind| self.openvino_options(kind)?.err()) {
                let help = "leave out one of this key and device.precision";
                return Err(Error::input(format!("device.openvino.{key}"), problem, help));
            }
            if heavy().all(|kind| self.is_bf16_on_openvino(kind)) {
                return Ok(None);
            }
        }
        if self.graph_cache.is_none() {
            return refused(
                &format!("{name} is made of graphs that are optimized ahead, and there is no cache to keep them in"),
                "leave the key out, or unset LDM_ORT_OPTIMIZE (in a program, give the plan a cache)",
            );
        }
        let is_elsewhere = match self.device.precision {
            Precision::Int8 => !self.denoises_on_cpu(),
            _ => heavy().all(|kind| !self.device.is_on_cpu(kind)),
        };
        if is_elsewhere {
            return refused(
                &format!("{name} is of the CPU's own graphs, and those that could be in it run on other providers"),
                "leave the key out; providers have options of their own for their precision",
            );
        }
        let denoiser = self.model.denoiser.kind;
        if self.operands_of(denoiser).is_some() || !self.denoises_on_cpu() {
            let is_slower = self.has_int8(denoiser) && set == InstructionSet::Amx;
            let remark = "precision: int8 is slower than bf16 on this CPU, whose AMX multiplies bf16";
            return Ok(is_slower.then(|| remark.to_owned()));
        }
        let reason = match self.narrow_weights(denoiser, true) {
            Some(dtype) => format!("since it stores {dtype} weights"),
            None => "since LoRAs change its weights".to_owned(),
        };
        Ok(Some(format!("precision: {denoiser} does not multiply in {name}, {reason}")))
    }
}
