//! The file with a graph's weights, packed for the operators.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::bf16;
use rayon::prelude::*;

use super::forms::padded;
use super::fused::FusedProduct;
use super::site::Site;
use crate::bundle::proto::{EXTERNAL, StringEntry, TensorProto};
use crate::error::{Error, Result};
use crate::kernels::{COLUMNS, Number, OperandType, PanelShape, merged, pack_int8, spread_weight};
use crate::rewrite::numbers::TensorValues;
use crate::tensor::{DType, Field};
use crate::threads::parallel;

/// The weights of a product in the order in which its operator reads them.
#[derive(Debug, Clone, Copy)]
pub struct PackedWeights<'p, 's> {
    /// The product.
    pub product: &'p FusedProduct<'s>,
    /// The type in which it multiplies.
    pub operands: OperandType,
    /// True if it multiplies int8 instead.
    pub in_int8: bool,
    /// True if the weights that meet the same pixel, where pixels are doubled, are added.
    pub is_merged: bool,
    /// The pixels of a convolution's result that are side by side in a panel.
    pub pixels: usize,
}

/// uint8 in ONNX's `TensorProto.DataType`.
const UINT8: DType = DType::Other(2);

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
    pub fn packed(&self, weights: &PackedWeights<'_, '_>) -> Option<&String> {
        self.packed.get(&weights.key())
    }

    /// Packs the weights of a product under a name.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written.
    pub fn pack(
        &mut self,
        site: Site<'_>,
        weights: &PackedWeights<'_, '_>,
        name: &str,
    ) -> Result<Option<TensorValues>> {
        let Some((tensor, place)) = site.source.stored_tensor(weights.product.weights) else { return Ok(None) };
        let Some(stored) = site.source.float_bytes(tensor, place) else { return Ok(None) };
        self.packed.insert(weights.key(), name.to_owned());
        let (bytes, dtype) = match weights.operands {
            _ if weights.in_int8 => (weights.pack_int8(stored), UINT8),
            OperandType::Float32 => {
                let packed = weights.pack::<f32>(stored);
                (packed.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>(), DType::F32)
            }
            OperandType::Bf16 => {
                let packed = weights.pack::<bf16>(stored);
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

impl PackedWeights<'_, '_> {
    /// A text of all that decides the packed weights.
    fn key(&self) -> String {
        let FusedProduct { weights, is_by_depth, is_gated, .. } = self.product;
        let Self { operands, in_int8, is_merged, pixels, .. } = self;
        let precision = if *in_int8 { "int8 of " } else { "" };
        let of_windows = format!("{is_merged} {pixels}");
        format!("{weights} {is_by_depth} {is_gated} {of_windows} {precision}{}", operands.name())
    }

    /// The value of a column, a tap and a depth of weights that are stored as float32.
    fn value(&self, stored: &[u8], column: usize, tap: usize, at: usize) -> f32 {
        let &FusedProduct { columns, depth, kernel, is_by_depth, .. } = self.product;
        let place = match is_by_depth {
            true => at * columns + column,
            false => (column * depth + at) * kernel * kernel + tap,
        };
        let bytes = stored.get(4 * place..4 * place + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        f32::from_le_bytes(bytes.unwrap_or_default())
    }

    fn pack_int8(&self, stored: &[u8]) -> Vec<u8> {
        let &FusedProduct { columns, depth, .. } = self.product;
        let pack_one = |panel: usize| {
            let first = panel * COLUMNS;
            // Operands are padded with zeros in their own type before.
            let shape =
                PanelShape { columns: COLUMNS.min(columns - first), taps: 1, depth: padded(self.operands, depth) };
            pack_int8(shape, |within, at| {
                if at < depth { self.value(stored, column(self.product, first + within), 0, at) } else { 0.0 }
            })
        };
        let panels = columns.div_ceil(COLUMNS);
        parallel(|| (0..panels).into_par_iter().flat_map_iter(pack_one).collect())
    }

    fn pack<E: Number>(&self, stored: &[u8]) -> Vec<E> {
        let FusedProduct { columns, depth, kernel, .. } = *self.product;
        let of = |column: usize, tap: usize, at: usize| self.value(stored, column, tap, at);
        let merges = self.is_merged.then_some(4);
        let taps = merges.unwrap_or(kernel * (kernel + self.pixels - 1));
        let shape = PanelShape { columns: columns * self.pixels, taps, depth };
        let panels = shape.panels();
        let pack_one = |number: usize| {
            let (phase, panel) = (number / panels, number % panels);
            let first = panel * COLUMNS;
            let one = PanelShape { columns: COLUMNS.min(shape.columns - first), ..shape };
            let column = |within: usize| column(self.product, first + within);
            if self.is_merged {
                return one.pack::<E>(|within, tap, at| merged(|place| of(column(within), place, at), phase, tap));
            }
            if self.pixels > 1 {
                let side_by_side = (columns, self.pixels);
                return one.pack::<E>(|within, tap, at| {
                    spread_weight(|column, tap| of(column, tap, at), side_by_side, first + within, tap)
                });
            }
            one.pack::<E>(|within, tap, at| of(column(within), tap, at))
        };
        let phases = merges.unwrap_or(1);
        parallel(|| (0..phases * panels).into_par_iter().flat_map_iter(pack_one).collect())
    }
}
