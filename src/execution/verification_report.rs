//! The outcome of comparing a component's provider with the CPU.

use std::path::PathBuf;

use serde_json::json;

use crate::error::Error;
use crate::graph_cache::Difference;
use crate::plan::ComputePrecision;

/// The comparison of a component's provider with ONNX Runtime's own operators on the CPU.
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentVerification {
    /// The component, such as `unet`.
    pub component: String,
    /// The graph's file.
    pub path: PathBuf,
    /// Its providers, such as `webgpu`.
    pub provider: String,
    /// The precision in which it computes.
    pub precision: ComputePrecision,
    /// The result.
    pub outcome: VerificationOutcome,
}

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum VerificationOutcome {
    /// Both were run.
    Compared {
        /// The difference of the outputs.
        difference: Difference,
        /// True if an earlier run compared them.
        is_remembered: bool,
    },
    /// They could not be compared.
    Skipped {
        /// The reason, as a sentence without its full stop.
        reason: String,
    },
}

impl ComponentVerification {
    /// True if the difference is larger than the precision explains; infinite and undefined differences are.
    pub fn is_wrong(&self) -> bool {
        let tolerance = self.precision.tolerance();
        match &self.outcome {
            VerificationOutcome::Compared { difference, .. } => {
                // Negated, so that a difference that is not a number is wrong.
                !(difference.relative_l2 <= tolerance.relative_l2 && difference.largest <= tolerance.largest)
            }
            VerificationOutcome::Skipped { .. } => false,
        }
    }

    /// True if both are of one graph, on whatever providers.
    pub fn is_same_graph(&self, other: &Self) -> bool {
        (&self.component, &self.path) == (&other.component, &other.path)
    }

    /// Returns the error of a component that is wrong.
    pub fn error(&self) -> Option<Error> {
        let VerificationOutcome::Compared { difference, .. } = &self.outcome else { return None };
        let tolerance = self.precision.tolerance();
        let help = match self.provider.as_str() {
            "cpu" => {
                "set device.optimize = false, which runs ONNX Runtime's own operators, and report the model to the project"
            }
            _ => {
                "run the component on the CPU ([device.COMPONENT] provider = \"cpu\"), try another version of the provider, or set \
                 device.verify = false to use it all the same; docs/known-issues.md lists known faults"
            }
        };
        self.is_wrong().then(|| Error::Provider {
            provider: self.provider.clone(),
            problem: format!(
                "computes {} wrongly: relative to the CPU's output it differs by {:.1e} (L2; at most {:.0e} in {}) and at most \
                 by {:.1e} of the largest value (at most {:.0e})",
                self.component,
                difference.relative_l2,
                tolerance.relative_l2,
                self.precision.name(),
                difference.largest,
                tolerance.largest,
            ),
            help: help.to_owned(),
        })
    }

    /// Returns the comparison as one line, such as `unet on webgpu: right, 2.1e-6 from the CPU (float32, at most 1e-3)`.
    pub fn to_line(&self) -> String {
        let Self { component, provider, precision, outcome, .. } = self;
        match outcome {
            VerificationOutcome::Skipped { reason } => format!("{component} on {provider}: not verified: {reason}"),
            VerificationOutcome::Compared { difference, .. } => format!(
                "{component} on {provider}: {}, {:.1e} from the CPU (relative L2, {} allows {:.0e}), at most {:.1e} of the \
                 largest value ({:.0e})",
                if self.is_wrong() { "wrong" } else { "right" },
                difference.relative_l2,
                precision.name(),
                precision.tolerance().relative_l2,
                difference.largest,
                precision.tolerance().largest,
            ),
        }
    }

    /// Returns the comparison as a JSON object: `component`, `graph`, `provider`, `precision`, `tolerance`, `verified` (null if they
    /// were not compared), and the differences or the `reason`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = json!({
            "component": self.component, "graph": self.path, "provider": self.provider,
            "precision": self.precision, "tolerance": self.precision.tolerance(),
        });
        let more = match &self.outcome {
            VerificationOutcome::Compared { difference, .. } => json!({
                "verified": !self.is_wrong(), "relative_l2": finite(difference.relative_l2),
                "largest_difference": finite(difference.largest),
            }),
            VerificationOutcome::Skipped { reason } => json!({ "verified": null, "reason": reason }),
        };
        if let (Some(object), serde_json::Value::Object(more)) = (object.as_object_mut(), more) {
            object.extend(more);
        }
        object
    }
}

impl serde::Serialize for ComponentVerification {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// A number, or none where it is infinite or undefined, which JSON does not have.
fn finite(number: f64) -> Option<f64> {
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(relative_l2: f64, largest: f64) -> ComponentVerification {
        ComponentVerification {
            component: "unet".into(),
            path: "unet/model.onnx".into(),
            provider: "webgpu".into(),
            precision: ComputePrecision::Float32,
            outcome: VerificationOutcome::Compared {
                difference: Difference { relative_l2, largest },
                is_remembered: false,
            },
        }
    }

    #[test]
    fn a_difference_beyond_either_bound_is_an_error_that_names_the_component() {
        let allowed = ComputePrecision::Float32.tolerance();
        assert!(compared(allowed.relative_l2, allowed.largest).error().is_none());
        for wrong in [(2.0 * allowed.relative_l2, 0.0), (0.0, 2.0 * allowed.largest), (f64::NAN, 0.0), (0.0, f64::NAN)]
        {
            let error = compared(wrong.0, wrong.1).error().expect("an error");
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            assert!(
                text.contains("webgpu") && text.contains("unet") && text.contains("hint: run the component"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_undefined_difference_is_null_in_json() {
        let json = compared(f64::NAN, 1.0).to_json();
        assert_eq!((&json["verified"], &json["relative_l2"]), (&false.into(), &serde_json::Value::Null));
    }
}
