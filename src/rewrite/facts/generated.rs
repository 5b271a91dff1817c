//! The shapes of what operators make whose output may be larger than all of their inputs.

use super::{Fact, Value};
use crate::bundle::proto::Node;
use crate::rewrite::source::{int, ints, text};
use crate::rewrite::symbol::{Length, Unknowns};

/// The shape of a node's first output.
pub fn shape(node: &Node, inputs: &[Fact], unknowns: &mut Unknowns) -> Option<Vec<Length>> {
    let of = |at: usize| inputs.get(at)?.shape.as_deref();
    let whole = |at: usize| inputs.get(at)?.value.as_ref()?.whole();
    match node.op_type.as_str() {
        "Range" => Some(vec![steps(inputs).unwrap_or_else(|| unknowns.fresh())]),
        "Tile" => of(0)?.iter().zip(whole(1)?).map(|(length, times)| length.times(times)).collect(),
        "ConstantOfShape" => Some(whole(0)?.to_vec()),
        "RandomNormal" | "RandomUniform" => Some(ints(node, "shape")?.iter().map(|&n| Length::from(n)).collect()),
        "OneHot" => {
            let mut shape = of(0)?.to_vec();
            let depth = single(inputs.get(1)?.value.as_ref()?)?;
            let at = int(node, "axis").unwrap_or(-1);
            let at = if at < 0 { at.checked_add(i64::try_from(shape.len()).ok()?)?.checked_add(1)? } else { at };
            shape.insert(usize::try_from(at).ok().filter(|&at| at <= shape.len())?, depth);
            Some(shape)
        }
        "GatherElements" => Some(of(1)?.to_vec()),
        "GatherND" => {
            let ([before @ .., last], batch) = (of(1)?, int(node, "batch_dims").unwrap_or(0)) else { return None };
            let taken = usize::try_from(batch.checked_add(last.number()?)?).ok()?;
            Some([before, of(0)?.get(taken..)?].concat())
        }
        "DepthToSpace" | "SpaceToDepth" => {
            let (shape, block) = (of(0)?, Length::from(int(node, "blocksize")?));
            let [batch, channels, height, width] = shape else { return None };
            let area = block.times(&block)?;
            Some(match node.op_type.as_str() {
                "DepthToSpace" => {
                    vec![batch.clone(), channels.over(&area)?, height.times(&block)?, width.times(&block)?]
                }
                _ => vec![batch.clone(), channels.times(&area)?, height.over(&block)?, width.over(&block)?],
            })
        }
        "ConvTranspose" => {
            let [batch, _, lengths @ ..] = of(0)? else { return None };
            let [_, channels, kernel @ ..] = of(1)? else { return None };
            let channels = channels.times(&Length::from(int(node, "group").unwrap_or(1)))?;
            Some([[batch.clone(), channels].to_vec(), transposed(node, lengths, kernel)?].concat())
        }
        "GlobalAveragePool" | "GlobalMaxPool" => {
            let ones = of(0)?.iter().skip(2).map(|_| Length::from(1));
            Some(of(0)?.iter().take(2).cloned().chain(ones).collect())
        }
        _ => None,
    }
}

/// How many numbers a `Range` makes.
fn steps(inputs: &[Fact]) -> Option<Length> {
    let numbers: Vec<f64> = inputs.iter().map(|fact| fact.value.as_ref()?.number()).collect::<Option<_>>()?;
    let [start, limit, delta] = <[f64; 3]>::try_from(numbers).ok()?;
    let count = ((limit - start) / delta).ceil().max(0.0);
    (count.is_finite() && count < 9e18).then(|| Length::from(count as i64))
}

/// The one whole number of a value, of floating point or not.
fn single(value: &Value) -> Option<Length> {
    match value {
        Value::Whole(one) => <&[Length; 1]>::try_from(one.as_slice()).ok().map(|[one]| one.clone()),
        Value::Real(_) => value.number().map(|number| Length::from(number as i64)),
    }
}

/// The lengths that a `ConvTranspose` makes of these.
fn transposed(node: &Node, lengths: &[Length], kernel: &[Length]) -> Option<Vec<Length>> {
    if !matches!(text(node, "auto_pad"), None | Some("" | "NOTSET")) || ints(node, "output_shape").is_some() {
        return None;
    }
    let axes = lengths.len();
    let at = |name: &str, at: usize, default: i64| ints(node, name).map_or(Some(default), |list| list.get(at).copied());
    let made = |(axis, (length, kernel)): (usize, (&Length, &Length))| {
        let pads = at("pads", axis, 0)?.checked_add(at("pads", axis + axes, 0)?)?;
        let reach = kernel.number()?.checked_sub(1)?.checked_mul(at("dilations", axis, 1)?)?.checked_add(1)?;
        let more = at("output_padding", axis, 0)?.checked_add(reach)?.checked_sub(pads)?;
        let steps = length.plus(&Length::from(-1))?.times(&Length::from(at("strides", axis, 1)?))?;
        steps.plus(&Length::from(more))
    };
    lengths.iter().zip(kernel).enumerate().map(made).collect()
}
