//! The file with a graph's weights, packed for the operators.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::bf16;
use rayon::prelude::*;

use super::fused::FusedProduct;
use super::site::Site;
use crate::bundle::proto::{EXTERNAL, StringEntry, TensorProto};
use crate::error::{Error, Result};
use crate::kernels::{COLUMNS, Element, OperandType, PanelShape, merged};
use crate::rewrite::numbers::TensorValues;
use crate::tensor::{DType, Field};
use crate::threads::parallel;

/// Writes tensors to a file beside the graph, each at the beginning of a page.
pub struct WeightWriter<'p> {
    path: &'p Path,
    file: BufWriter<File>,
    end: u64,
    /// The packed weights of each product, by what decides them.
    packed: HashMap<String, String>,
}

impl<'p> WeightWriter<'p> {
    /// Creates the file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub fn create(path: &'p Path) -> Result<Self> {
        let file = File::create(path).map_err(|e| Error::io(path, "writing", e))?;
        Ok(Self { path, file: BufWriter::new(file), end: 0, packed: HashMap::new() })
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(|e| Error::io(self.path, "writing", e))
    }

    /// Writes a tensor, and returns its declaration.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn write(&mut self, name: &str, dims: Vec<i64>, data_type: i32, bytes: &[u8]) -> Result<TensorValues> {
        const PAGE: u64 = 4096;
        let start = self.end.next_multiple_of(PAGE);
        let gap = vec![0; usize::try_from(start - self.end).unwrap_or(0)];
        let written = self.file.write_all(&gap).and_then(|()| self.file.write_all(bytes));
        written.map_err(|e| Error::io(self.path, "writing", e))?;
        self.end = start + bytes.len() as u64;
        let location = self.path.file_name().unwrap_or_default().to_string_lossy();
        let entry = |key: &str, value: &str| StringEntry { key: key.to_owned(), value: value.to_owned() };
        let external_data = vec![
            entry("location", &location),
            entry("offset", &start.to_string()),
            entry("length", &bytes.len().to_string()),
        ];
        Ok(TensorValues {
            name: name.to_owned(),
            dims,
            data_type,
            external_data,
            data_location: EXTERNAL,
            ..TensorValues::default()
        })
    }

    /// The name under which equal weights were packed already.
    pub fn packed(&self, product: &FusedProduct<'_>, operands: OperandType) -> Option<&String> {
        self.packed.get(&key(product, operands))
    }

    /// Packs the weights of a product under a name.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written.
    pub fn pack(
        &mut self,
        site: Site<'_>,
        product: &FusedProduct<'_>,
        operands: OperandType,
        name: &str,
    ) -> Result<Option<TensorValues>> {
        let Some((tensor, place)) = site.source.stored_tensor(product.weights) else { return Ok(None) };
        let Some(weights) = site.source.float_bytes(tensor, place) else { return Ok(None) };
        self.packed.insert(key(product, operands), name.to_owned());
        let (bytes, dtype) = match operands {
            OperandType::Float32 => {
                let packed = pack::<f32>(product, weights);
                (packed.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>(), DType::F32)
            }
            OperandType::Bf16 => {
                let packed = pack::<bf16>(product, weights);
                (packed.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>(), DType::Bf16)
            }
        };
        let count = i64::try_from(bytes.len() / dtype.bytes().map_or(1, |n| n as usize)).unwrap_or(i64::MAX);
        self.write(name, vec![count], dtype.to_onnx(), &bytes).map(Some)
    }

    /// Moves a tensor of another file into this one.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn move_here(&mut self, site: Site<'_>, (tensor, _): (&TensorProto, Field)) -> Result<Option<TensorValues>> {
        let Some(bytes) = site.source.external_tensor_bytes(tensor) else { return Ok(None) };
        self.write(&tensor.name, tensor.dims.clone(), tensor.data_type, bytes).map(Some)
    }
}

fn key(product: &FusedProduct<'_>, operands: OperandType) -> String {
    let FusedProduct { weights, is_by_depth, is_gated, upsamples, .. } = product;
    format!("{weights} {is_by_depth} {is_gated} {upsamples} {}", operands.name())
}

/// The column of the weights that is in a place of the packed ones: of gated products, 16 values and their 16 gates are side
/// by side.
pub fn column(product: &FusedProduct<'_>, at: usize) -> usize {
    const HALF: usize = COLUMNS / 2;
    if !product.is_gated {
        return at;
    }
    let (panel, within) = (at / COLUMNS, at % COLUMNS);
    let half = if within < HALF { 0 } else { product.columns / 2 };
    half + panel * HALF + within % HALF
}

fn pack<E: Element>(product: &FusedProduct<'_>, weights: &[u8]) -> Vec<E> {
    let FusedProduct { columns, depth, kernel, is_by_depth, upsamples, .. } = *product;
    let value = |at: usize| {
        let bytes = weights.get(4 * at..4 * at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        f32::from_le_bytes(bytes.unwrap_or_default())
    };
    let size = kernel * kernel;
    let of = |column: usize, tap: usize, at: usize| match is_by_depth {
        true => value(at * columns + column),
        false => value((column * depth + at) * size + tap),
    };
    let shape = PanelShape { columns, taps: if upsamples { 4 } else { size }, depth };
    let phases = if upsamples { 4 } else { 1 };
    let panels = shape.panels();
    let pack_one = |number: usize| {
        let (phase, panel) = (number / panels, number % panels);
        let first = panel * COLUMNS;
        let one = PanelShape { columns: COLUMNS.min(columns - first), ..shape };
        one.pack::<E>(|within, tap, at| {
            let column = column(product, first + within);
            if upsamples { merged(|place| of(column, place, at), phase, tap) } else { of(column, tap, at) }
        })
    };
    parallel(|| (0..phases * panels).into_par_iter().flat_map_iter(pack_one).collect())
}
