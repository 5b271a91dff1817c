//! Tensors in fewer bits.

use std::io::Write;

use prost::Message;

use super::{Writer, beside, cast, framed, number, value_info};
use crate::bundle::proto::Tensor;
use crate::error::Result;
use crate::quantize::Kept;
use crate::quantize::narrow::{self, BLOCK};
use crate::quantize::select::Form;
use crate::rewrite::edits::{int, node};
use crate::rewrite::numbers::TensorValues;
use crate::tensor::{DType, Field};

/// Number of int8 in ONNX's `TensorProto.DataType`.
const INT8: DType = DType::Other(3);

impl Writer<'_> {
    /// What stands in the place of a stored tensor.
    pub(super) fn stored(&mut self, tensor: &Tensor, place: Field) -> Result<Vec<u8>> {
        if let Some(form) = self.selection.forms.get(&tensor.name).copied()
            && let Some(bytes) = self.source.float_bytes(tensor, place)
        {
            let written = match form {
                Form::Half | Form::Table => self.half(tensor, bytes, form)?,
                Form::Int8 => self.blocks(tensor, bytes)?,
                Form::Columns => self.columns(tensor, bytes)?,
            };
            match written {
                Ok(written) => {
                    self.outcome.tensors += 1;
                    return Ok(written);
                }
                Err(because) => self.outcome.kept.push(Kept { tensor: tensor.name.clone(), because }),
            }
        }
        let as_it_stands = || self.source.bytes().get(place.start..place.end).unwrap_or_default().to_vec();
        let as_it_stands = as_it_stands();
        Ok(self.moved_tensor(number::GRAPH_INITIALIZER, place)?.unwrap_or(as_it_stands))
    }

    fn half(&mut self, tensor: &Tensor, bytes: &[u8], form: Form) -> Result<Result<Vec<u8>, String>> {
        let errors = match narrow::check_half(bytes) {
            Ok(errors) => errors,
            Err(because) => return Ok(Err(because)),
        };
        self.errors.add(&errors);
        let name = self.free_name(&tensor.name, "half");
        let entries = self.data.append(bytes.len() as u64 / 2, |file| narrow::write_half(bytes, file))?;
        if form == Form::Table {
            self.widened.tables.insert(tensor.name.clone(), name.clone());
        } else {
            self.widened.nodes.push(cast(&name, &tensor.name));
            self.widened.inputs.push(value_info(&name, DType::F16, &tensor.dims));
        }
        Ok(Ok(beside(name, &tensor.dims, DType::F16, entries)))
    }

    fn blocks(&mut self, tensor: &Tensor, bytes: &[u8]) -> Result<Result<Vec<u8>, String>> {
        let (errors, scales) = match narrow::check_blocks(bytes) {
            Ok(checked) => checked,
            Err(because) => return Ok(Err(because)),
        };
        self.errors.add(&errors);
        let [name, scale, shape, wide] =
            ["int8", "scale", "shape", "blocks"].map(|what| self.free_name(&tensor.name, what));
        let count = scales.len() as i64;
        let entries = self.data.append(bytes.len() as u64 / 4, |file| narrow::write_blocks(bytes, file))?;
        let mut written = beside(name.clone(), &[count, BLOCK as i64], INT8, entries);
        written.extend(self.scales(&scale, &scales)?);
        let dims = TensorValues {
            dims: vec![tensor.dims.len() as i64],
            data_type: DType::I64.to_onnx(),
            name: shape.clone(),
            raw_data: tensor.dims.iter().flat_map(|n| n.to_le_bytes()).collect(),
            ..TensorValues::default()
        };
        written.extend(framed(number::GRAPH_INITIALIZER, &dims.encode_to_vec()));
        self.widened.nodes.push(node("DequantizeLinear", &[&name, &scale], &wide, vec![int("axis", 0)]));
        self.widened.nodes.push(node("Reshape", &[&wide, &shape], &tensor.name, Vec::new()));
        Ok(Ok(written))
    }

    /// Stores a matrix as 8-bit numbers and the scales of its columns.
    fn columns(&mut self, tensor: &Tensor, bytes: &[u8]) -> Result<Result<Vec<u8>, String>> {
        let columns = tensor.dims.last().and_then(|&n| usize::try_from(n).ok()).unwrap_or_default();
        let (errors, scales) = match narrow::check_columns(bytes, columns) {
            Ok(checked) => checked,
            Err(because) => return Ok(Err(because)),
        };
        self.errors.add(&errors);
        let names = ["int8", "scale"].map(|what| self.free_name(&tensor.name, what));
        let [name, scale] = &names;
        let entries = self.data.append(bytes.len() as u64 / 4, |file| narrow::write_columns(bytes, &scales, file))?;
        let mut written = beside(name.clone(), &tensor.dims, INT8, entries);
        written.extend(self.scales(scale, &scales)?);
        self.widened.columns.insert(tensor.name.clone(), names);
        Ok(Ok(written))
    }

    /// Stores the scales of 8-bit numbers under a name of their own.
    fn scales(&mut self, name: &str, scales: &[f32]) -> Result<Vec<u8>> {
        let entries = self.data.append(4 * scales.len() as u64, |file| {
            scales.iter().try_for_each(|scale| file.write_all(&scale.to_le_bytes()))
        })?;
        Ok(beside(name.to_owned(), &[scales.len() as i64], DType::F32, entries))
    }
}
