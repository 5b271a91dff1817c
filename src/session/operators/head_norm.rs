//! Queries and keys before attention.

use ort::operator::{KernelContext, OperatorInput};

use super::call::{Call, Compute, FLOAT, OPTIONAL, Stored, check, floats, needed, values, whole};
use crate::kernels::{HeadNorm, HeadRows, InstructionSet, OwnOperator, Rotary, RotaryPairs};

/// The operator `HeadNorm`, with its attributes.
pub struct HeadNormKernel {
    epsilon: Option<f32>,
    pairs: Option<RotaryPairs>,
    is_by_pair: bool,
}

impl Compute for HeadNormKernel {
    const OPERATOR: OwnOperator = OwnOperator::HeadNorm;

    fn inputs<E: Stored>() -> Vec<OperatorInput> {
        vec![FLOAT, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL]
    }

    fn read(node: &KernelContext<'_>) -> ort::Result<Self> {
        let epsilon = needed(node.get::<f32>("epsilon"), "the attribute epsilon")?;
        let pairs = match node.get::<String>("pairs").unwrap_or_default().as_str() {
            "" => None,
            name => Some(needed(RotaryPairs::from_name(name), "a kind of pairs of this name")?),
        };
        Ok(Self {
            epsilon: (whole(node, "normalizes", 0) != 0).then_some(epsilon),
            pairs,
            is_by_pair: whole(node, "by_pair", 0) != 0,
        })
    }

    fn compute<E: Stored, O: Stored>(&self, call: &Call<'_>) -> ort::Result<()> {
        let given = [call.value(0)?, call.value(1)?];
        let scales = [call.value(2)?, call.value(3)?];
        let (first, second) = (needed(given[0].as_ref(), "the rows")?, given[1].as_ref());
        let (lengths, first) = values::<f32>(first)?;
        let &[batch, rows, heads, width] = lengths.as_slice() else { return check(false, "the rows") };
        let (more, second) = match second.map(values::<f32>).transpose()? {
            Some((more, second)) => {
                check(matches!(*more, [b, _, h, w] if (b, h, w) == (batch, heads, width)), "the second rows")?;
                (more[1], second)
            }
            None => (0, &[][..]),
        };
        let [scale, second_scale] = [floats(&scales[0])?, floats(&scales[1])?];
        let fits = |scale: Option<&[f32]>| scale.is_none_or(|scale| scale.len() == width);
        check(fits(scale) && fits(second_scale) && width > 0 && heads > 0, "a scale")?;
        let (cosines, sines) = (call.value(4)?, call.value(5)?);
        let rotary = match (self.pairs, floats(&cosines)?, floats(&sines)?) {
            (Some(pairs), Some(cosines), Some(sines)) => {
                let is_by_pair = self.is_by_pair;
                let of_one = (rows + more) * if is_by_pair { width / 2 } else { width };
                let fits = |values: &[f32]| values.len() == of_one || values.len() == batch * of_one;
                let is_right = fits(cosines) && cosines.len() == sines.len() && width.is_multiple_of(2);
                check(is_right, "cosines or sines")?;
                Some(Rotary { cosines, sines, pairs, is_by_pair })
            }
            (None, None, None) => None,
            _ => return check(false, "cosines or sines"),
        };
        let sequences =
            [HeadRows { values: first, rows, scale }, HeadRows { values: second, rows: more, scale: second_scale }];
        let norm = HeadNorm { sequences, batch, heads, width, epsilon: self.epsilon, rotary };
        call.write::<O>(0, &[batch, rows + more, heads * width], |out| norm.run(InstructionSet::used(), call, out))
    }
}
