//! The output shapes of operators whose output may be larger than all of their inputs.

use super::tensor_fact::{KnownValue, TensorFact};
use crate::bundle::proto::NodeProto;
use crate::rewrite::indexed_graph::{int, ints, text};
use crate::rewrite::length::{Length, Unknowns};

/// Returns the shape of a node's first output.
pub fn shape(node: &NodeProto, inputs: &[TensorFact], unknowns: &mut Unknowns) -> Option<Vec<Length>> {
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

/// Returns the number of values of a `Range`.
fn steps(inputs: &[TensorFact]) -> Option<Length> {
    let numbers: Vec<f64> = inputs.iter().map(|fact| fact.value.as_ref()?.number()).collect::<Option<_>>()?;
    let [start, limit, delta] = <[f64; 3]>::try_from(numbers).ok()?;
    let count = ((limit - start) / delta).ceil().max(0.0);
    (count.is_finite() && count < 9e18).then(|| Length::from(count as i64))
}

/// Returns the only value of an integer or floating-point tensor, as an integer.
fn single(value: &KnownValue) -> Option<Length> {
    match value {
        KnownValue::Whole(one) => <&[Length; 1]>::try_from(one.as_slice()).ok().map(|[one]| one.clone()),
        KnownValue::Real(_) => value.number().map(|number| Length::from(number as i64)),
    }
}

/// Returns the output lengths of a `ConvTranspose`.
fn transposed(node: &NodeProto, lengths: &[Length], kernel: &[Length]) -> Option<Vec<Length>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::edits::{int as attribute, ints as list};

    fn shaped(shape: &[i64]) -> TensorFact {
        TensorFact { shape: Some(shape.iter().map(|&n| Length::from(n)).collect()), ..TensorFact::default() }
    }

    fn whole(values: &[i64]) -> TensorFact {
        let numbers = values.iter().map(|&n| Length::from(n)).collect();
        TensorFact { value: Some(KnownValue::Whole(numbers)), ..shaped(&[values.len() as i64]) }
    }

    #[test]
    fn shapes_are_those_of_onnx() {
        let real = |value: f32| TensorFact { value: Some(KnownValue::Real(vec![value])), ..shaped(&[]) };
        let cases = [
            ("Range", vec![], vec![whole(&[2]), whole(&[11]), whole(&[3])], Some(vec![3])),
            ("Range", vec![], vec![whole(&[5]), whole(&[1]), whole(&[-2])], Some(vec![2])),
            ("Range", vec![], vec![whole(&[5]), whole(&[1]), whole(&[1])], Some(vec![0])),
            ("Range", vec![], vec![real(0.0), real(1.0), real(0.25)], Some(vec![4])),
            ("Tile", vec![], vec![shaped(&[2, 3]), whole(&[4, 1])], Some(vec![8, 3])),
            ("Tile", vec![], vec![shaped(&[1 << 40]), whole(&[1 << 40])], None),
            ("ConstantOfShape", vec![], vec![whole(&[1 << 40, 2])], Some(vec![1 << 40, 2])),
            ("RandomNormal", vec![list("shape", &[7, 8])], vec![], Some(vec![7, 8])),
            ("OneHot", vec![], vec![shaped(&[2, 3]), whole(&[9]), shaped(&[2])], Some(vec![2, 3, 9])),
            ("OneHot", vec![attribute("axis", 0)], vec![shaped(&[2]), real(9.0), shaped(&[2])], Some(vec![9, 2])),
            ("GatherElements", vec![], vec![shaped(&[2, 3]), shaped(&[5, 3])], Some(vec![5, 3])),
            ("GatherND", vec![], vec![shaped(&[2, 3, 4]), shaped(&[7, 1])], Some(vec![7, 3, 4])),
            ("DepthToSpace", vec![attribute("blocksize", 2)], vec![shaped(&[1, 8, 3, 5])], Some(vec![1, 2, 6, 10])),
            ("SpaceToDepth", vec![attribute("blocksize", 2)], vec![shaped(&[1, 2, 6, 10])], Some(vec![1, 8, 3, 5])),
            (
                "ConvTranspose",
                vec![list("strides", &[2, 2]), list("pads", &[1, 1, 1, 1])],
                vec![shaped(&[1, 8, 10, 10]), shaped(&[8, 4, 4, 4])],
                Some(vec![1, 4, 20, 20]),
            ),
            ("GlobalAveragePool", vec![], vec![shaped(&[1, 8, 3, 5])], Some(vec![1, 8, 1, 1])),
        ];
        for (operator, attribute, inputs, want) in cases {
            let node = NodeProto { op_type: operator.into(), attribute, ..NodeProto::default() };
            let made = shape(&node, &inputs, &mut Unknowns::default());
            let made = made.map(|shape| shape.iter().map(|n| n.number().expect("a number")).collect::<Vec<_>>());
            assert_eq!(made, want, "{operator} {inputs:?}");
        }
    }
}
