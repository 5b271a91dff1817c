//! Products and convolutions.

use ort::operator::{KernelContext, OperatorInput};

use super::call::{Call, Compute, OPTIONAL, Stored, activation, check, floats, needed, values, whole};
use crate::kernels::{
    Activation, Epilogue, FilteredConvolution, Filtering, ImageConvolution, InstructionSet, OwnOperator, PanelShape,
    Product, ProductRows,
};

/// The operator `Product`, with its attributes.
pub struct ProductKernel {
    columns: usize,
    kernel: usize,
    stride: usize,
    offset: usize,
    upsamples: bool,
    filtering: Option<Filtering>,
    pixels: usize,
    activation: Activation,
    is_gated: bool,
}

impl Compute for ProductKernel {
    const OPERATOR: OwnOperator = OwnOperator::Product;

    fn inputs<E: Stored>() -> Vec<OperatorInput> {
        let operand = || OperatorInput::required(E::STORED);
        vec![operand(), operand(), OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL]
    }

    fn read(node: &KernelContext<'_>) -> ort::Result<Self> {
        let upsamples = whole(node, "upsample", 0) != 0;
        Ok(Self {
            columns: whole(node, "columns", 0),
            kernel: whole(node, "kernel", 1),
            stride: whole(node, "stride", 1),
            offset: whole(node, "offset", 0),
            upsamples,
            filtering: match whole(node, "tile", 0) {
                0 => None,
                side => Some(needed(Filtering::of_tile(side, upsamples), "a filtering of this tile")?),
            },
            pixels: whole(node, "pixels", 1),
            activation: activation(node)?,
            is_gated: whole(node, "gated", 0) != 0,
        })
    }

    fn compute<E: Stored, O: Stored>(&self, call: &Call<'_>) -> ort::Result<()> {
        let [left, packed] = [needed(call.value(0)?, "the left operand")?, needed(call.value(1)?, "the weights")?];
        let (lengths, left) = values::<E>(&left)?;
        let (_, packed) = values::<E>(&packed)?;
        let [bias, added, gate, residual] = [call.value(2)?, call.value(3)?, call.value(4)?, call.value(5)?];
        let epilogue = Epilogue {
            bias: floats(&bias)?,
            added: floats(&added)?,
            activation: self.activation,
            is_gated: self.is_gated,
            gate: floats(&gate)?,
            residual: floats(&residual)?,
        };
        let (set, columns) = (InstructionSet::used(), self.columns);
        let [before @ .., depth] = lengths.as_slice() else { return check(false, "the left operand") };
        let batch = if before.len() > 1 { before[0] } else { 1 };
        let out_columns = if self.is_gated { columns / 2 } else { columns };
        let check_epilogue = |count: usize| {
            check(epilogue.bias.is_none_or(|v| v.len() == columns), "the bias")?;
            check(epilogue.added.is_none_or(|v| v.len() == batch * columns), "what is added")?;
            check(epilogue.gate.is_none_or(|v| v.len() == batch * out_columns), "the gate")?;
            check(epilogue.residual.is_none_or(|v| v.len() == count), "the residual")?;
            check(*depth > 0 && depth.is_multiple_of(E::STEP), "the depth")
        };
        if self.kernel == 1 {
            let count = before.iter().product::<usize>();
            let shape = PanelShape { columns, taps: 1, depth: *depth };
            check(packed.len() == shape.packed_len::<E>(), "the weights")?;
            check_epilogue(count * out_columns)?;
            let is_by_image = epilogue.added.is_some() || epilogue.gate.is_some();
            let per_image = if is_by_image { count / batch.max(1) } else { count };
            let product =
                Product { left, rows: ProductRows::of_matrix(count, per_image, *depth), packed, shape, epilogue };
            let out_shape = [before, &[out_columns]].concat();
            return call.write::<O>(0, &out_shape, |out| product.run(set, call, out));
        }
        let &[batch, height, width, channels] = lengths.as_slice() else { return check(false, "the image") };
        let (stride, offset, upsamples, pixels) = (self.stride, self.offset, self.upsamples, self.pixels);
        let convolution = ImageConvolution { batch, height, width, channels, stride, offset, upsamples, pixels };
        let (height, width) = needed(convolution.out_size(), "an image as large as a window")?;
        check_epilogue(batch * height * width * out_columns)?;
        if let Some(filtering) = self.filtering {
            let image = left;
            let filtered =
                FilteredConvolution { filtering, image, batch, height, width, channels, packed, columns, epilogue };
            check((stride, offset, pixels, self.is_gated) == (1, 0, 1, false), "the tile")?;
            check(packed.len() == filtered.weights().packed_len::<E>(), "the weights")?;
            return call.write::<O>(0, &[batch, height, width, columns], |out| filtered.run(set, call, out));
        }
        let is_plain = (stride, upsamples, epilogue.gate.is_some(), self.is_gated) == (1, false, false, false);
        check(columns > 0 && columns.checked_mul(pixels).is_some(), "the columns")?;
        check(pixels == 1 || (is_plain && pixels > 0 && width.is_multiple_of(pixels)), "the pixels side by side")?;
        check(packed.len() == convolution.packed_len::<E>(columns), "the weights")?;
        call.write::<O>(0, &[batch, height, width, out_columns], |out| {
            convolution.run((left, packed, columns), epilogue, set, call, out);
        })
    }
}
