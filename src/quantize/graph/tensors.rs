//! Quantized tensors.

use std::fs::File;
use std::io::{BufWriter, Write};

use prost::Message;

use super::{Writer, cast, value_info};
use crate::bundle::proto::TensorProto;
use crate::error::Result;
use crate::quantize::half_precision::{self, BLOCK, ScaleGroup};
use crate::quantize::outcome::SkippedTensor;
use crate::quantize::output::{external_tensor, framed, number};
use crate::quantize::selection::TensorFormat;
use crate::rewrite::edits::{int, node};
use crate::rewrite::numbers::TensorValues;
use crate::tensor::{DType, Field};

/// The value of int8 in ONNX's `TensorProto.DataType`.
const INT8: DType = DType::Other(3);

impl Writer<'_> {
    /// Encodes the replacement for a stored tensor.
    pub(super) fn encode_tensor(&mut self, tensor: &TensorProto, place: Field) -> Result<Vec<u8>> {
        if let Some(form) = self.selection.forms.get(&tensor.name).copied()
            && let Some(bytes) = self.output.source.float_bytes(tensor, place)
        {
            let written = match form {
                TensorFormat::Half | TensorFormat::Table => self.half(tensor, bytes, form)?,
                TensorFormat::Int8 | TensorFormat::Columns => self.integers(tensor, bytes, form)?,
            };
            match written {
                Ok(written) => {
                    self.output.outcome.tensors += 1;
                    return Ok(written);
                }
                Err(reason) => self.output.outcome.skipped.push(SkippedTensor { tensor: tensor.name.clone(), reason }),
            }
        }
        self.output.unchanged_tensor(place)
    }

    fn half(&mut self, tensor: &TensorProto, bytes: &[u8], form: TensorFormat) -> Result<Result<Vec<u8>, String>> {
        let errors = match half_precision::check_half(bytes) {
            Ok(errors) => errors,
            Err(because) => return Ok(Err(because)),
        };
        self.output.errors.add(&errors);
        let name = self.free_name(&tensor.name, "half");
        let entries = self.output.append(bytes.len() as u64 / 2, |file| half_precision::write_half(bytes, file))?;
        if form == TensorFormat::Table {
            self.widened.tables.insert(tensor.name.clone(), name.clone());
        } else {
            self.widened.nodes.push(cast(&name, &tensor.name));
            self.widened.inputs.push(value_info(&name, DType::F16, &tensor.dims));
        }
        Ok(Ok(external_tensor(name, &tensor.dims, DType::F16, entries)))
    }

    fn integers(&mut self, tensor: &TensorProto, bytes: &[u8], form: TensorFormat) -> Result<Result<Vec<u8>, String>> {
        let shared = match form {
            TensorFormat::Columns => {
                ScaleGroup::Column(tensor.dims.last().and_then(|&n| usize::try_from(n).ok()).unwrap_or(0))
            }
            _ => ScaleGroup::Block,
        };
        let (errors, scales) = match half_precision::check_scaled(bytes, shared) {
            Ok(checked) => checked,
            Err(because) => return Ok(Err(because)),
        };
        self.output.errors.add(&errors);
        let [name, scale, shape, wide] =
            ["int8", "scale", "shape", "blocks"].map(|what| self.free_name(&tensor.name, what));
        let (count, of_columns) = (scales.len() as i64, form == TensorFormat::Columns);
        let write = |file: &mut BufWriter<File>| half_precision::write_scaled(bytes, shared, &scales, file);
        let entries = self.output.append(bytes.len() as u64 / 4, write)?;
        let blocks = [count, BLOCK as i64];
        let mut written =
            external_tensor(name.clone(), if of_columns { tensor.dims.as_slice() } else { &blocks }, INT8, entries);
        let entries = self.output.append(4 * scales.len() as u64, |file| {
            scales.iter().try_for_each(|scale| file.write_all(&scale.to_le_bytes()))
        })?;
        written.extend(external_tensor(scale.clone(), &[count], DType::F32, entries));
        if of_columns {
            self.widened.columns.insert(tensor.name.clone(), [name, scale]);
            return Ok(Ok(written));
        }
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
}
