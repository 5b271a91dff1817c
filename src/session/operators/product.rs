//! Products and convolutions.

use ort::operator::{KernelContext, OperatorInput};

use super::call::{Call, Compute, Stored, check, needed, values, whole};
use super::columns::{Columns, EPILOGUE_INPUTS, EpilogueValues, batch_and_rows, rows_per_image};
use crate::kernels::{
    FilteredConvolution, Filtering, ImageConvolution, InstructionSet, OwnOperator, PanelShape, Product, ProductRows,
};

/// The operator `Product`, with its attributes.
pub struct ProductKernel {
    columns: Columns,
    kernel: usize,
    stride: usize,
    offset: usize,
    upsamples: bool,
    filtering: Option<Filtering>,
    pixels: usize,
}

impl Compute for ProductKernel {
    const OPERATOR: OwnOperator = OwnOperator::Product;

    fn inputs<E: Stored>() -> Vec<OperatorInput> {
        let operands = [E::STORED; 2].map(OperatorInput::required);
        operands.into_iter().chain(EPILOGUE_INPUTS).collect()
    }

    fn read(node: &KernelContext<'_>) -> ort::Result<Self> {
        let upsamples = whole(node, "upsample", 0) != 0;
        Ok(Self {
            columns: Columns::read(node)?,
            kernel: whole(node, "kernel", 1),
            stride: whole(node, "stride", 1),
            offset: whole(node, "offset", 0),
            upsamples,
            filtering: match whole(node, "tile", 0) {
                0 => None,
                side => Some(needed(Filtering::of_tile(side, upsamples), "a filtering of this tile")?),
            },
            pixels: whole(node, "pixels", 1),
        })
    }

    fn compute<E: Stored, O: Stored>(&self, call: &Call<'_>) -> ort::Result<()> {
        let [left, packed] = [needed(call.value(0)?, "the left operand")?, needed(call.value(1)?, "the weights")?];
        let (lengths, left) = values::<E>(&left)?;
        let (_, packed) = values::<E>(&packed)?;
        let (set, columns, out_columns) = (InstructionSet::used(), self.columns.count, self.columns.of_result());
        let after = EpilogueValues::of(call)?;
        let [before @ .., depth] = lengths.as_slice() else { return check(false, "the left operand") };
        check(*depth > 0 && depth.is_multiple_of(E::STEP), "the depth")?;
        if self.kernel == 1 {
            let (batch, count) = batch_and_rows(before);
            let shape = PanelShape { columns, taps: 1, depth: *depth };
            check(packed.len() == shape.packed_len::<E>(), "the weights")?;
            let epilogue = self.columns.epilogue(&after, batch, count)?;
            let rows = ProductRows::of_matrix(count, rows_per_image(&epilogue, batch, count), *depth);
            let product = Product { left, rows, packed, shape, epilogue };
            let out_shape = [before, &[out_columns]].concat();
            return call.write::<O>(0, &out_shape, |out| product.run(set, call, out));
        }
        let &[batch, height, width, channels] = lengths.as_slice() else { return check(false, "the image") };
        let (stride, offset, upsamples, pixels) = (self.stride, self.offset, self.upsamples, self.pixels);
        let convolution = ImageConvolution { batch, height, width, channels, stride, offset, upsamples, pixels };
        let (height, width) = needed(convolution.out_size(), "an image as large as a window")?;
        let epilogue = self.columns.epilogue(&after, batch, batch * height * width)?;
        if let Some(filtering) = self.filtering {
            let image = left;
            let filtered =
                FilteredConvolution { filtering, image, batch, height, width, channels, packed, columns, epilogue };
            check((stride, offset, pixels, self.columns.is_gated) == (1, 0, 1, false), "the tile")?;
            check(packed.len() == filtered.weights().packed_len::<E>(), "the weights")?;
            return call.write::<O>(0, &[batch, height, width, columns], |out| filtered.run(set, call, out));
        }
        let is_plain = (stride, upsamples, epilogue.gate.is_some(), self.columns.is_gated) == (1, false, false, false);
        check(columns > 0 && columns.checked_mul(pixels).is_some(), "the columns")?;
        check(pixels == 1 || (is_plain && pixels > 0 && width.is_multiple_of(pixels)), "the pixels side by side")?;
        check(packed.len() == convolution.packed_len::<E>(columns), "the weights")?;
        call.write::<O>(0, &[batch, height, width, out_columns], |out| {
            convolution.run((left, packed, columns), epilogue, set, call, out);
        })
    }
}
