//! Linear layers in int8.

use ort::operator::{KernelContext, OperatorInput};
use ort::value::TensorElementType;

use super::call::{Call, Compute, Stored, check, needed, values};
use super::columns::{Columns, EPILOGUE_INPUTS, EpilogueValues, batch_and_rows, rows_per_image};
use crate::kernels::{InstructionSet, Int8Product, OwnOperator, PanelShape};

/// The operator `Int8Product`, with its attributes.
pub struct Int8ProductKernel(Columns);

impl Compute for Int8ProductKernel {
    const OPERATOR: OwnOperator = OwnOperator::Int8Product;

    fn inputs<E: Stored>() -> Vec<OperatorInput> {
        let operands = [E::STORED, TensorElementType::Uint8].map(OperatorInput::required);
        operands.into_iter().chain(EPILOGUE_INPUTS).collect()
    }

    fn read(node: &KernelContext<'_>) -> ort::Result<Self> {
        Columns::read(node).map(Self)
    }

    fn compute<E: Stored, O: Stored>(&self, call: &Call<'_>) -> ort::Result<()> {
        let Self(columns) = self;
        let [left, packed] = [needed(call.value(0)?, "the left operand")?, needed(call.value(1)?, "the weights")?];
        let ((lengths, left), (_, packed)) = (values::<E>(&left)?, values::<u8>(&packed)?);
        let [before @ .., depth] = lengths.as_slice() else { return check(false, "the left operand") };
        let (batch, rows) = batch_and_rows(before);
        let after = EpilogueValues::of(call)?;
        let epilogue = columns.epilogue(&after, batch, rows)?;
        let shape = PanelShape { columns: columns.count, taps: 1, depth: *depth };
        check(*depth > 0, "the depth")?;
        check(packed.len() == shape.packed_len::<u8>(), "the weights")?;
        let product =
            Int8Product { left, rows_per_image: rows_per_image(&epilogue, batch, rows), packed, shape, epilogue };
        let out_shape = [before, &[columns.of_result()]].concat();
        call.write::<O>(0, &out_shape, |out| product.run(InstructionSet::used(), call, out))
    }
}
