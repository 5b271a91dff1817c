//! Reads the values of stored weights.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use super::modules::WeightReader;
use super::open_file::open_file;
use super::tensors::tensor_bytes;
use super::{GraphFile, domain, external, frame, modules, proto};
use crate::error::{Error, Result};
use crate::tensor::{DType, Weight, WeightLocation, WeightValues};

/// A weight that a linear layer or a convolution multiplies by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleWeight {
    /// The module's path with dots, as exported: `model.down_blocks.1.attentions.0.proj_in`.
    pub module: String,
    /// The name of the stored weight in the graph.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The shape as stored: `[out, in]`, `[in, out]` if `transposed`, or `[out, in, height, width]`.
    pub shape: Vec<usize>,
    /// True if a linear layer's weight is stored as `[in, out]`.
    pub transposed: bool,
    at: ValueLocation,
}

/// The location of values.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ValueLocation {
    InternalValues(Range<usize>),
    Beside {
        location: String,
        bytes: Range<usize>,
    },
    /// Not readable, for this reason.
    Unreadable(&'static str),
}

/// A graph opened for its weights.
pub struct ModuleWeights<'g> {
    graph: &'g GraphFile,
    file: Mmap,
    beside: BTreeMap<&'g str, (&'g Path, Mmap)>,
    /// The weights, in the order in which the graph's nodes read them.
    pub modules: Vec<ModuleWeight>,
}

impl<'g> ModuleWeights<'g> {
    /// Finds the weights of a graph's modules. Their values are not read yet.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::Model`] if it changed since `graph` was opened.
    pub fn open(graph: &'g GraphFile) -> Result<Self> {
        let mut weights = Self::open_for(graph, modules::readers)?;
        weights.modules.retain(|w| w.shape.len() == 2 || (w.shape.len() > 2 && !w.transposed));
        Ok(weights)
    }

    /// Finds those of a graph's stored tensors that `readers` returns, in its order, as [`ModuleWeights::open`] does.
    pub(super) fn open_for(
        graph: &'g GraphFile,
        readers: impl FnOnce(&proto::GraphProto) -> Vec<WeightReader>,
    ) -> Result<Self> {
        let file = map(&graph.path)?;
        let beside = graph.external.iter().map(|e| Ok((e.location.as_str(), (e.path.as_path(), map(&e.path)?))));
        let beside = beside.collect::<Result<BTreeMap<_, _>>>()?;
        let damaged = |problem: String| Error::model(&graph.path, problem, "download or copy the file again");
        let model = proto::ModelProto::read(&file[..]).map_err(|e| damaged(format!("is damaged: {e}")))?;
        let parsed = model.graph.unwrap_or_default();
        let inside = initializers(&file)
            .filter(|found| found.len() == parsed.initializer.len())
            .ok_or_else(|| damaged("is damaged: its initializers cannot be parsed".into()))?;
        let modules = readers(&parsed)
            .into_iter()
            .filter_map(|reader| {
                let (tensor, place) = (parsed.initializer.get(reader.initializer)?, inside.get(reader.initializer)?);
                let shape = tensor.dims.iter().map(|&n| usize::try_from(n)).collect::<Result<Vec<_>, _>>().ok()?;
                Some(ModuleWeight {
                    module: reader.module,
                    name: tensor.name.clone(),
                    dtype: DType::from_onnx(tensor.data_type),
                    shape,
                    transposed: reader.transposed,
                    at: place_of(graph, tensor, place),
                })
            })
            .collect();
        Ok(Self { graph, file, beside, modules })
    }

    /// Returns the operators of this graph whose weights belong to no single module, with their number: attention with
    /// packed weights, and arithmetic on quantized ones.
    pub fn fused(graph: &GraphFile) -> Vec<(String, usize)> {
        const ATTENTION: &[&str] = &[
            "Attention",
            "MultiHeadAttention",
            "PackedAttention",
            "PackedMultiHeadAttention",
            "QAttention",
            "GroupQueryAttention",
            "NhwcConv",
        ];
        let is_fused = |operator: &super::Operator| {
            let name = operator.name.strip_suffix(super::PACKED).unwrap_or(&operator.name);
            let is_own = operator.domain == domain("");
            (!is_own && ATTENTION.contains(&name))
                || name.ends_with("QuantizeLinear")
                || name == "DequantizeLinear"
                || name.starts_with("QLinear")
                || (name.starts_with("MatMul") && name != "MatMul")
                || name == "ConvInteger"
        };
        graph.operators.iter().filter(|(o, _)| is_fused(o)).map(|(o, &n)| (o.to_string(), n)).collect()
    }

    /// Reads the values of a weight as `f32`, in the order in which they are stored.
    ///
    /// # Errors
    /// [`Error::Model`] if they have an unsupported type or encoding, or are truncated.
    pub fn read(&self, weight: &ModuleWeight) -> Result<Vec<f32>> {
        let unreadable = |path: &Path, problem: String| {
            Error::model(path, format!("weight {}: {problem}", weight.name), "use an export in float32 or float16")
        };
        let count = weight.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let (path, bytes) = match &weight.at {
            ValueLocation::InternalValues(range) => (self.graph.path.as_path(), self.file.get(range.clone())),
            ValueLocation::Beside { location, bytes } => match self.beside.get(location.as_str()) {
                Some((path, file)) => (*path, file.get(bytes.clone())),
                None => (self.graph.path.as_path(), None),
            },
            ValueLocation::Unreadable(how) => return Err(unreadable(&self.graph.path, (*how).to_owned())),
        };
        let bytes = bytes.ok_or_else(|| unreadable(path, "its values are truncated".into()))?;
        let values = WeightValues::widen(bytes, weight.dtype)
            .ok_or_else(|| unreadable(path, format!("expected floating-point values, found {}", weight.dtype)))?;
        if Some(values.len()) != count {
            let shape = &weight.shape;
            return Err(unreadable(path, format!("it has {} values, and its shape is {shape:?}", values.len())));
        }
        Ok(values)
    }
}

impl ModuleWeight {
    /// Creates the weight with which a session replaces the stored values by these, in the order in which the weight is
    /// stored. They are rounded to the stored type. `None` if that type is not supported either.
    pub fn replacement(&self, values: Vec<f32>) -> Option<Weight> {
        let place = match &self.at {
            ValueLocation::InternalValues(range) => WeightLocation::InGraph(range.start as u64),
            ValueLocation::Beside { .. } => WeightLocation::ExternalFile,
            ValueLocation::Unreadable(_) => return None,
        };
        let values = WeightValues::round(values, self.dtype)?;
        Some(Weight { name: self.name.clone(), shape: self.shape.clone(), values, location: place })
    }
}

/// Updates the locations of a graph's weights to a changed graph in `bytes`; weights that it no longer stores are
/// dropped. `None` if the bytes are not a whole graph, or if weights have to grow.
pub(crate) fn relocate(bytes: &[u8], weights: Vec<Weight>) -> Option<Vec<Weight>> {
    let stored = proto::ModelProto::read(bytes).ok()?.graph?.initializer;
    let inside = initializers(bytes).filter(|found| found.len() == stored.len())?;
    let places: BTreeMap<&str, &InternalValues> =
        stored.iter().map(|tensor| tensor.name.as_str()).zip(&inside).collect();
    let placed = |weight: Weight| {
        let inside = places.get(weight.name.as_str())?;
        Some(match (weight.location, inside) {
            (WeightLocation::InGraph(_), InternalValues::Bytes(range)) => {
                Some(Weight { location: WeightLocation::InGraph(range.start as u64), ..weight })
            }
            (WeightLocation::ExternalFile, _) => Some(weight),
            _ => None,
        })
    };
    weights.into_iter().filter_map(placed).collect()
}

pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let file = open_file(path)?;
    // SAFETY: the mapping is read-only. If another process shortens the file meanwhile, reading it ends this process,
    // as for every program that maps its models.
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, "mapping", e))
}

fn place_of(graph: &GraphFile, tensor: &proto::TensorProto, inside: &InternalValues) -> ValueLocation {
    if tensor.data_location == proto::EXTERNAL || !tensor.external_data.is_empty() {
        let Ok(reference) = external::ExternalReference::read(&graph.path, tensor) else {
            return ValueLocation::Unreadable("its external file name cannot be read");
        };
        let range = usize::try_from(reference.offset).ok().zip(usize::try_from(reference.end).ok());
        return match range {
            // An explicit length comes from the file, and may be longer than the values.
            Some((start, end)) if (end - start) as u64 >= tensor_bytes(tensor) => {
                let end = start + tensor_bytes(tensor) as usize;
                ValueLocation::Beside { location: reference.location, bytes: start..end }
            }
            _ => ValueLocation::Unreadable("its values have fewer bytes than its shape needs"),
        };
    }
    match inside {
        InternalValues::Bytes(range) => ValueLocation::InternalValues(range.clone()),
        InternalValues::Other => {
            ValueLocation::Unreadable("its values are stored as a list of numbers instead of bytes")
        }
    }
}

/// The location of an initializer's values in a file.
enum InternalValues {
    Bytes(Range<usize>),
    Other,
}

/// Finds the graph's initializers, whose values prost skips; `None` if the file changed.
fn initializers(file: &[u8]) -> Option<Vec<InternalValues>> {
    /// Field numbers of `ModelProto`, `GraphProto` and `TensorProto`.
    const GRAPH: u64 = 7;
    const INITIALIZER: u64 = 5;
    const FLOAT_DATA: u64 = 4;
    const RAW_DATA: u64 = 9;
    let mut graphs = Vec::new();
    frame::fields(file, 0..file.len(), |field, range| graphs.extend((field == GRAPH).then_some(range)))?;
    let [graph] = graphs.as_slice() else { return None };
    let mut tensors = Vec::new();
    frame::fields(file, graph.clone(), |field, range| tensors.extend((field == INITIALIZER).then_some(range)))?;
    let place = |tensor: Range<usize>| {
        let mut values = Vec::new();
        frame::fields(file, tensor, |field, range| {
            values.extend((field == RAW_DATA || field == FLOAT_DATA).then_some(range));
        })?;
        // Packed floats have the same bytes as raw ones, if they are in one piece.
        match <[_; 1]>::try_from(values) {
            Ok([range]) => Some(InternalValues::Bytes(range)),
            Err(_) => Some(InternalValues::Other),
        }
    };
    tensors.into_iter().map(place).collect()
}
