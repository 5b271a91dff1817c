//! Reading the values of stored weights.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use super::modules::Reader;
use super::{GraphFile, domain, external, frame, modules, open_file, proto, tensor_bytes};
use crate::error::{Error, Result};
use crate::tensor::{DType, Weight, WeightLocation, WeightValues};

/// A weight that a linear layer or a convolution multiplies by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleWeight {
    /// The module's path with dots, as the exporter saw it: `model.down_blocks.1.attentions.0.proj_in`.
    pub module: String,
    /// The name under which the graph stores the weight.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The shape as stored: `[out, in]`, `[in, out]` where `transposed`, or `[out, in, height, width]`.
    pub shape: Vec<usize>,
    /// Whether a linear layer's weight is stored as `[in, out]`.
    pub transposed: bool,
    at: At,
}

/// Where values lie.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Inside(Range<usize>),
    Beside {
        location: String,
        bytes: Range<usize>,
    },
    /// In a form that cannot be read, which this names.
    Unreadable(&'static str),
}

/// A graph opened for its weights.
pub struct Weights<'g> {
    graph: &'g GraphFile,
    file: Mmap,
    beside: BTreeMap<&'g str, (&'g Path, Mmap)>,
    /// The weights, in the order in which the graph's nodes read them.
    pub of_modules: Vec<ModuleWeight>,
}

impl<'g> Weights<'g> {
    /// Finds the weights of a graph's modules. Nothing of their values is read yet.
    ///
    /// # Errors
    /// [`Error::Io`] where a file cannot be read, [`Error::Model`] where it has changed into something else than it was
    /// when `graph` was opened.
    pub fn open(graph: &'g GraphFile) -> Result<Self> {
        let mut weights = Self::open_for(graph, modules::readers)?;
        weights.of_modules.retain(|w| w.shape.len() == 2 || (w.shape.len() > 2 && !w.transposed));
        Ok(weights)
    }

    /// Finds those of a graph's stored tensors that `readers` names, in its order, as [`Weights::open`] does.
    pub(super) fn open_for(graph: &'g GraphFile, readers: impl FnOnce(&proto::Graph) -> Vec<Reader>) -> Result<Self> {
        let file = map(&graph.path)?;
        let beside = graph.external.iter().map(|e| Ok((e.location.as_str(), (e.path.as_path(), map(&e.path)?))));
        let beside = beside.collect::<Result<BTreeMap<_, _>>>()?;
        let damaged = |problem: String| Error::model(&graph.path, problem, "download or copy the file again");
        let model = proto::Model::read(&file[..]).map_err(|e| damaged(format!("is damaged: {e}")))?;
        let parsed = model.graph.unwrap_or_default();
        let inside = initializers(&file)
            .filter(|found| found.len() == parsed.initializer.len())
            .ok_or_else(|| damaged("is damaged: its initializers cannot be told apart".into()))?;
        let of_modules = readers(&parsed)
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
        Ok(Self { graph, file, beside, of_modules })
    }

    /// How often each operator of this graph occurs whose weights are no module's alone: attention that packs several
    /// into one, and arithmetic on quantised ones.
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
    /// [`Error::Model`] where they are of a type or in a form that cannot be read, or cut off.
    pub fn read(&self, weight: &ModuleWeight) -> Result<Vec<f32>> {
        let unreadable = |path: &Path, problem: String| {
            Error::model(path, format!("weight {}: {problem}", weight.name), "use an export in float32 or float16")
        };
        let count = weight.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let (path, bytes) = match &weight.at {
            At::Inside(range) => (self.graph.path.as_path(), self.file.get(range.clone())),
            At::Beside { location, bytes } => match self.beside.get(location.as_str()) {
                Some((path, file)) => (*path, file.get(bytes.clone())),
                None => (self.graph.path.as_path(), None),
            },
            At::Unreadable(how) => return Err(unreadable(&self.graph.path, (*how).to_owned())),
        };
        let bytes = bytes.ok_or_else(|| unreadable(path, "its values are cut off".into()))?;
        let values = WeightValues::widen(bytes, weight.dtype)
            .ok_or_else(|| unreadable(path, format!("its values are {}, not floating point", weight.dtype)))?;
        if Some(values.len()) != count {
            let shape = &weight.shape;
            return Err(unreadable(path, format!("it holds {} values, and its shape is {shape:?}", values.len())));
        }
        Ok(values)
    }
}

impl ModuleWeight {
    /// What a session is opened with so that it runs on these values, in the order in which the weight is stored, in
    /// the place of those that are stored. They are rounded to the type of those. `None` where that is not a type that
    /// can be read either.
    pub fn replaced_by(&self, values: Vec<f32>) -> Option<Weight> {
        let place = match &self.at {
            At::Inside(range) => WeightLocation::InGraph(range.start as u64),
            At::Beside { .. } => WeightLocation::ExternalFile,
            At::Unreadable(_) => return None,
        };
        let values = WeightValues::round(values, self.dtype)?;
        Some(Weight { name: self.name.clone(), shape: self.shape.clone(), values, location: place })
    }
}

/// Weights of a graph, placed where `bytes` store them, which are that graph changed; those that they no longer store are
/// left out. `None` where the bytes are no whole graph, or weights are to grow.
pub(crate) fn placed_in(bytes: &[u8], weights: Vec<Weight>) -> Option<Vec<Weight>> {
    let stored = proto::Model::read(bytes).ok()?.graph?.initializer;
    let inside = initializers(bytes).filter(|found| found.len() == stored.len())?;
    let places: BTreeMap<&str, &Inside> = stored.iter().map(|tensor| tensor.name.as_str()).zip(&inside).collect();
    let placed = |weight: Weight| {
        let inside = places.get(weight.name.as_str())?;
        Some(match (weight.location, inside) {
            (WeightLocation::InGraph(_), Inside::Bytes(range)) => {
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
    // SAFETY: the mapping is read-only. Should another process shorten the file meanwhile, reading it ends the process,
    // as it would for every program that maps its models.
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, "mapping", e))
}

fn place_of(graph: &GraphFile, tensor: &proto::Tensor, inside: &Inside) -> At {
    if tensor.data_location == proto::EXTERNAL || !tensor.external_data.is_empty() {
        let Ok(reference) = external::Reference::read(&graph.path, tensor) else {
            return At::Unreadable("its values lie in a file that is named in no way that can be read");
        };
        let range = usize::try_from(reference.offset).ok().zip(usize::try_from(reference.end).ok());
        return match range {
            // A length of its own is taken from the file, and may be longer than the values are.
            Some((start, end)) if (end - start) as u64 >= tensor_bytes(tensor) => {
                let end = start + tensor_bytes(tensor) as usize;
                At::Beside { location: reference.location, bytes: start..end }
            }
            _ => At::Unreadable("fewer bytes are named for its values than its shape needs"),
        };
    }
    match inside {
        Inside::Bytes(range) => At::Inside(range.clone()),
        Inside::Other => At::Unreadable("its values are stored as a list of numbers and not as bytes"),
    }
}

/// Where in a file the bytes of one initializer's values lie.
enum Inside {
    Bytes(Range<usize>),
    Other,
}

/// Walks to the graph's initializers, which prost reads without their values; `None` where the file is not as it was.
fn initializers(file: &[u8]) -> Option<Vec<Inside>> {
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
        // Packed floats are the same bytes as raw ones, where they come in one piece.
        match <[_; 1]>::try_from(values) {
            Ok([range]) => Some(Inside::Bytes(range)),
            Err(_) => Some(Inside::Other),
        }
    };
    tensors.into_iter().map(place).collect()
}
