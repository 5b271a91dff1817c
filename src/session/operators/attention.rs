//! Attention.

use ort::operator::{KernelContext, OperatorInput};

use super::call::{Call, Compute, OPTIONAL, Stored, check, needed, values, whole};
use crate::kernels::{Attention, Heads, InstructionSet, KeyMask, OwnOperator};

/// The operator `Attention`, with its attributes.
pub struct AttentionKernel {
    heads: usize,
    scale: f32,
}

impl Compute for AttentionKernel {
    const OPERATOR: OwnOperator = OwnOperator::Attention;

    fn inputs<E: Stored>() -> Vec<OperatorInput> {
        (0..3).map(|_| OperatorInput::required(E::STORED)).chain([OPTIONAL]).collect()
    }

    fn read(node: &KernelContext<'_>) -> ort::Result<Self> {
        let scale = needed(node.get::<f32>("scale"), "the attribute scale")?;
        Ok(Self { heads: whole(node, "heads", 0), scale })
    }

    fn compute<E: Stored, O: Stored>(&self, call: &Call<'_>) -> ort::Result<()> {
        let given = [call.value(0)?, call.value(1)?, call.value(2)?];
        let [queries, keys, of_keys] = given.each_ref().map(|value| value.as_ref().map(values::<E>));
        let (lengths, queries) = needed(queries, "the queries")??;
        let (key_lengths, keys) = needed(keys, "the keys")??;
        let (value_lengths, of_keys) = needed(of_keys, "the values")??;
        let &[batch, rows, width] = lengths.as_slice() else { return check(false, "the queries") };
        let fits =
            matches!(*key_lengths, [b, n, w] if b == batch && w == width && n > 0) && key_lengths == value_lengths;
        check(fits, "the keys")?;
        check(self.heads > 0 && width > 0 && width.is_multiple_of(self.heads), "the number of heads")?;
        let stride = width;
        let mask = call.value(3)?;
        let mask = mask.as_ref().map(values::<f32>).transpose()?;
        let of_keys_mask = |(lengths, values): (Vec<usize>, _)| match *lengths {
            [b, h, 1, n] if [1, batch].contains(&b) && [1, self.heads].contains(&h) && n == key_lengths[1] => {
                Ok(KeyMask { values, batch: b, heads: h })
            }
            _ => Err(ort::Error::new("the mask does not fit the other inputs")),
        };
        let mask = mask.map(of_keys_mask).transpose()?;
        let attention = Attention {
            queries: Heads { values: queries, rows, stride },
            keys: Heads { values: keys, rows: key_lengths[1], stride },
            values: Heads { values: of_keys, rows: key_lengths[1], stride },
            mask,
            batch,
            heads: self.heads,
            width: width / self.heads,
            scale: self.scale,
        };
        call.write::<O>(0, &lengths, |out| attention.run(InstructionSet::used(), call, out))
    }
}
