//! The type in which graphs multiply.

use super::execution_plan::ExecutionPlan;
use crate::bundle::ComponentKind;
use crate::error::{Error, Result};
use crate::kernels::{InstructionSet, OperandType};
use crate::spec::Precision;

/// The precision of graphs that multiply as they are stored.
pub const FLOAT32: &str = "float32";

impl ExecutionPlan {
    /// Returns the type in which a component multiplies if it has operators of our own; `None` if it has ONNX Runtime's, in
    /// the type that the graph stores.
    ///
    /// Text encoders never do: they take little of the time, and all that follows depends on them.
    pub fn operands_of(&self, kind: ComponentKind) -> Option<OperandType> {
        let is_bf16 = match self.device.precision {
            Precision::Float32 => false,
            Precision::Bf16 => true,
            Precision::Auto => InstructionSet::best().has_bf16(),
        };
        (is_bf16 && self.graph_cache.is_some() && self.is_heavy(kind) && self.can_be_cached(kind))
            .then_some(OperandType::Bf16)
    }

    /// True for denoisers, ControlNets and VAEs.
    fn is_heavy(&self, kind: ComponentKind) -> bool {
        let model = &self.model;
        let encoder = model.encoder.as_ref().is_some_and(|part| part.kind == kind);
        let decoder = model.decoder.as_ref().is_some_and(|part| part.kind == kind);
        encoder || decoder || kind == model.denoiser.kind || model.controls.iter().any(|c| c.part.kind == kind)
    }

    /// The precision of the denoiser, such as `bf16 (amx_bf16)`: the type of its products, and the instructions that
    /// multiply it.
    pub fn precision(&self) -> String {
        match self.operands_of(self.model.denoiser.kind) {
            Some(operands) => format!("{} ({})", operands.name(), InstructionSet::best().name()),
            None => FLOAT32.to_owned(),
        }
    }

    /// Checks that `precision = "bf16"` can be kept to, and returns a sentence if some of the graphs stay in float32.
    ///
    /// # Errors
    /// [`Error::Input`] if this CPU does not multiply bf16, or no graph would.
    pub(super) fn check_precision(&self) -> Result<Option<String>> {
        if self.device.precision != Precision::Bf16 {
            return Ok(None);
        }
        let refused = |problem: &str, help: &str| Err(Error::input("device.precision", problem, help));
        if !InstructionSet::best().has_bf16() {
            return refused(
                "bf16 needs a CPU with AVX-512 BF16 or AMX, and this one has neither",
                "leave the key out, or write precision = \"auto\", which takes float32 here",
            );
        }
        if self.graph_cache.is_none() {
            return refused(
                "bf16 is made of graphs that are optimized ahead, and there is no cache to keep them in",
                "leave the key out, or unset LDM_ORT_OPTIMIZE (in a program, give the plan a cache)",
            );
        }
        let heavy = || self.all_graphs().into_iter().map(|(kind, _)| kind).filter(|kind| self.is_heavy(*kind));
        if heavy().all(|kind| !self.device.providers_of(kind).iter().all(|name| name == "cpu")) {
            return refused(
                "bf16 is of the CPU's own graphs, and all of them run on other providers",
                "leave the key out; providers have options of their own for their precision",
            );
        }
        let denoiser = self.model.denoiser.kind;
        let stays = self.operands_of(denoiser).is_none() && self.denoises_on_cpu();
        Ok(stays.then(|| format!("precision: {denoiser} runs in float32, since LoRAs change its weights")))
    }
}
