//! `ldm-ort quantize`.

use std::io::Write;

use indicatif::HumanBytes;

use super::args::{Global, QuantizeArgs};
use super::interrupt::Interrupt;
use super::output;
use super::progress::Progress;
use crate::bundle::ComponentKind;
use crate::error::{Error, Result, count_of};
use crate::quantize::{self, ActivationFormat, GraphFormat, QuantizedGraph, WeightFormat};

/// Writes a model directory with weights in fewer bits, and prints what became of each graph.
///
/// # Errors
/// As [`quantize::quantize`]; [`Error::Input`] for a component or a form of weights that there is not.
pub fn quantize(args: &QuantizeArgs, global: &Global, out: &mut dyn Write) -> Result<()> {
    let weights = WeightFormat::from_name(&args.weights)?;
    let format = GraphFormat { weights, activations: ActivationFormat::from_name(&args.activations)? };
    let kinds = args.component.iter().map(|name| kind(name)).collect::<Result<Vec<_>>>()?;
    let interrupt = Interrupt::install()?;
    let mut progress = Progress::new(global.quiet);
    let outcomes = quantize::quantize(&args.model, &args.output, format, &kinds, &interrupt.cancel(), &mut |at| {
        progress.bytes(&format!("writing {}", at.component), at.done, at.total);
    })?;
    progress.clear();
    if args.json { output::json(out, &outcomes) } else { output::text(out, &text(&outcomes)) }
}

fn kind(name: &str) -> Result<ComponentKind> {
    let names = || ComponentKind::ALL.map(ComponentKind::name).join(", ");
    ComponentKind::from_name(name).ok_or_else(|| {
        Error::input("--component", format!("there is no component {name:?}"), format!("take one of {}", names()))
    })
}

fn text(outcomes: &[QuantizedGraph]) -> String {
    let line = |outcome: &QuantizedGraph| {
        let mut text = format!(
            "{:<16} {} -> {}  {}, weights changed by at most {:.1e}, by {:.1e} of their size on the whole\n",
            outcome.component,
            HumanBytes(outcome.bytes_before),
            HumanBytes(outcome.bytes_after),
            count_of(outcome.tensors, "tensor"),
            outcome.largest_error,
            outcome.relative_error,
        );
        if outcome.unknown > 0 {
            text += &format!(
                "    {} left as float32: other operators read them\n",
                count_of(outcome.unknown, "large tensor")
            );
        }
        if outcome.half_nodes > 0 {
            text += &format!("    {} in half precision\n", count_of(outcome.half_nodes, "node"));
        }
        for kept in &outcome.float32_nodes {
            text += &format!("    {} in float32: {}\n", count_of(kept.nodes, "node"), kept.reason);
        }
        for kept in &outcome.skipped {
            text += &format!("    {} stays float32: {}\n", kept.tensor, kept.reason);
        }
        text
    };
    outcomes.iter().map(line).collect()
}
