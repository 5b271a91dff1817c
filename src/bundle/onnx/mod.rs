//! Reads the structure of a .onnx file, without its weights and without a runtime.

mod external;
pub(crate) mod frame;
mod limits;
mod module_weights;
mod modules;
mod norm;
mod open_file;
pub(crate) mod proto;
mod retype;
mod table;
mod tensors;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use external::ExternalFile;
pub(crate) use external::ExternalReference;
pub use module_weights::{ModuleWeight, ModuleWeights};
pub(crate) use module_weights::{map, relocate};
pub use norm::LayerNorm;
pub(super) use open_file::INCOMPLETE;
pub use table::TokenTable;

use crate::error::{Error, Result};
use crate::files;
use crate::tensor::{ByteEdit, DType, TensorInfo};
use open_file::open_file;
use tensors::{tensor_bytes, tensor_info};

/// An operator's name and domain (empty for ONNX's own).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operator {
    /// The domain, such as `com.microsoft`; empty for ONNX's own operators.
    pub domain: String,
    /// The name, such as `Conv`.
    pub name: String,
}

impl std::fmt::Display for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.domain.is_empty() { f.write_str(&self.name) } else { write!(f, "{}:{}", self.domain, self.name) }
    }
}

/// The number of upsampling operators in a graph, which determines the sizes that it supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upsamplings {
    /// Upsampling by a factor fixed in the graph (`Resize` by scales, `Upsample`, `ConvTranspose`).
    pub by_scale: usize,
    /// Upsampling to a size computed at run time (`Resize` by sizes).
    pub by_size: usize,
}

/// A graph's file and its structure.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphFile {
    /// The .onnx file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub file_bytes: u64,
    /// The version of the file format.
    pub ir_version: i64,
    /// The program that wrote it, with its version; may be empty.
    pub producer: String,
    /// The version of each operator set it uses, by domain (empty for ONNX's own).
    pub opsets: BTreeMap<String, i64>,
    /// The required inputs, in the graph's order (without those that have a stored value).
    pub inputs: Vec<TensorInfo>,
    /// The outputs, in the graph's order.
    pub outputs: Vec<TensorInfo>,
    /// The number of occurrences of each operator, including branches and functions.
    pub operators: BTreeMap<Operator, usize>,
    /// The standard ONNX operators that multiply by stored tensors, each with the types of those.
    pub products: BTreeSet<(String, DType)>,
    /// True if the file defines its own operators, as functions of others. Those are not counted as operators.
    pub has_functions: bool,
    /// The graph's upsampling operators.
    pub upsamplings: Upsamplings,
    /// The size of the internal and external weights in bytes.
    pub weight_bytes: u64,
    /// The weights' element types with the size of each in bytes, the largest first.
    pub weight_types: Vec<(DType, u64)>,
    /// The external weight files.
    pub external: Vec<ExternalFile>,
    /// The number of rows of each lookup table, by the integer input that indexes it.
    pub table_rows: BTreeMap<String, usize>,
    /// The byte to change for a float32 input, by each integer input that supports it.
    pub float_inputs: BTreeMap<String, ByteEdit>,
    /// The number of channels that the first convolution after each input expects.
    pub convolved_channels: BTreeMap<String, usize>,
}

impl GraphFile {
    /// Reads a graph's structure.
    ///
    /// The file is mapped, not loaded: only the pages with its structure are read, so that a file of several gigabytes
    /// takes milliseconds and almost no memory.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read; [`Error::Model`] if it is empty, a web page, a Git LFS pointer,
    /// truncated or not an ONNX graph, if it has no inputs, or if an external weight file is missing, too short or
    /// outside of the graph's directory.
    pub fn open(path: &Path) -> Result<Self> {
        let file = open_file(path)?;
        let file_bytes = file.metadata().map_err(|e| Error::io(path, "reading", e))?.len();
        let (model, float_inputs) = if file_bytes == 0 {
            frame::check(path, &[])?;
            (proto::ModelProto::default(), BTreeMap::new())
        } else {
            // SAFETY: the mapping is read-only and dropped before this block ends. If another process shortens the file
            // meanwhile, reading it ends this process, as for every program that maps its models.
            let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, "mapping", e))?;
            frame::check(path, &bytes)?;
            let model = proto::ModelProto::read(&bytes[..])
                .map_err(|e| Error::model(path, format!("is damaged: {e}"), "download or copy the file again"))?;
            let float_inputs = model.graph.as_ref().map(|graph| retype::as_float(&bytes, graph));
            (model, float_inputs.unwrap_or_default())
        };
        Ok(Self { float_inputs, ..Self::from_model(path, file_bytes, model)? })
    }

    fn from_model(path: &Path, file_bytes: u64, model: proto::ModelProto) -> Result<Self> {
        let graph = model
            .graph
            .ok_or_else(|| Error::model(path, "contains no graph", "use a .onnx file made by an exporter"))?;
        let stored: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        let inputs: Vec<TensorInfo> =
            graph.input.iter().filter(|v| !stored.contains(v.name.as_str())).map(tensor_info).collect();
        if inputs.is_empty() {
            return Err(Error::model(path, "the graph has no inputs", "export the model again"));
        }
        let mut contents = GraphContents::default();
        contents.visit_graph(&graph);
        for function in &model.functions {
            contents.visit_nodes(&function.node);
        }
        for function in &model.functions {
            contents.operators.remove(&Operator { domain: domain(&function.domain), name: function.name.clone() });
        }
        let outputs: Vec<TensorInfo> = graph.output.iter().map(tensor_info).collect();
        limits::check(path, file_bytes, inputs.iter().chain(&outputs), &contents.tensors)?;
        let external = external::check(path, contents.tensors.iter().copied())?;
        let mut weights: BTreeMap<i32, u64> = BTreeMap::new();
        for tensor in &contents.tensors {
            let bytes = weights.entry(tensor.data_type).or_default();
            *bytes = bytes.saturating_add(tensor_bytes(tensor));
        }
        let mut weight_types: Vec<(DType, u64)> =
            weights.iter().map(|(&code, &bytes)| (DType::from_onnx(code), bytes)).collect();
        weight_types.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        let trace = trace::Trace::new(&graph);
        let named = |name: &String, rows: Option<usize>| rows.map(|n| (name.clone(), n));
        Ok(Self {
            path: path.to_path_buf(),
            file_bytes,
            ir_version: model.ir_version,
            producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
            opsets: model.opset_import.iter().map(|o| (domain(&o.domain), o.version)).collect(),
            outputs,
            float_inputs: BTreeMap::new(),
            table_rows: inputs
                .iter()
                .filter(|i| i.dtype.is_integer())
                .filter_map(|i| named(&i.name, trace.table_rows(&i.name)))
                .collect(),
            convolved_channels: inputs
                .iter()
                .filter(|i| i.shape.len() == 4)
                .filter_map(|i| named(&i.name, trace.convolved_channels(&i.name)))
                .collect(),
            inputs,
            operators: contents.operators,
            products: contents.products,
            has_functions: !model.functions.is_empty(),
            upsamplings: contents.upsamplings,
            weight_bytes: weights.values().fold(0, |sum, &bytes| sum.saturating_add(bytes)),
            weight_types,
            external,
        })
    }

    /// Returns the [`GraphFile::float_inputs`] of a graph's bytes; empty if they are not a graph.
    pub(crate) fn float_inputs_of(bytes: &[u8]) -> BTreeMap<String, ByteEdit> {
        let graph = proto::ModelProto::read(bytes).ok().and_then(|model| model.graph);
        graph.map(|graph| retype::as_float(bytes, &graph)).unwrap_or_default()
    }

    /// Returns the input with this name.
    pub fn input(&self, name: &str) -> Option<&TensorInfo> {
        self.inputs.iter().find(|i| i.name == name)
    }

    /// Returns the output with this name.
    pub fn output(&self, name: &str) -> Option<&TensorInfo> {
        self.outputs.iter().find(|o| o.name == name)
    }

    /// Returns true if the graph draws random numbers itself, which a request's seed cannot control.
    pub fn draws_noise(&self) -> bool {
        self.operators.keys().any(|o| o.domain.is_empty() && o.name.starts_with("RandomNormal"))
    }

    /// Returns true if products of the graph multiply in half precision.
    pub fn multiplies_in_half(&self) -> bool {
        self.products.iter().any(|(_, dtype)| *dtype == DType::F16)
    }

    /// Returns true if the graph computes in bfloat16: by its products, or by its inputs and outputs.
    pub fn computes_in_bfloat16(&self) -> bool {
        let mut ports = self.inputs.iter().chain(&self.outputs);
        self.products.iter().any(|(_, dtype)| *dtype == DType::Bf16) || ports.any(|info| info.dtype == DType::Bf16)
    }

    /// Returns true if the graph uses 8-bit integer matrix products.
    pub fn multiplies_in_integers(&self) -> bool {
        let products = ["MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul"];
        self.operators.keys().any(|operator| products.contains(&operator.name.as_str()))
    }

    /// Returns the sha256 of the .onnx file followed by its external files, sorted by name, in hexadecimal.
    ///
    /// For a graph without external files, it is the output of `sha256sum`. All bytes are read: a second or two per
    /// gigabyte.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a file cannot be read.
    pub fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for path in std::iter::once(&self.path).chain(self.external.iter().map(|e| &e.path)) {
            files::digest_into(path, &mut hash)?;
        }
        Ok(files::hexadecimal(hash))
    }
}

/// The contents of a graph, including branches: operators, weights and upsampling.
#[derive(Default)]
struct GraphContents<'a> {
    operators: BTreeMap<Operator, usize>,
    tensors: Vec<&'a proto::TensorProto>,
    products: BTreeSet<(String, DType)>,
    upsamplings: Upsamplings,
}

impl<'a> GraphContents<'a> {
    fn visit_graph(&mut self, graph: &'a proto::GraphProto) {
        let types: BTreeMap<&str, i32> = graph.initializer.iter().map(|t| (t.name.as_str(), t.data_type)).collect();
        let multiplies = |node: &&proto::NodeProto| {
            domain(&node.domain).is_empty()
                && ["Conv", "ConvTranspose", "Gemm", "MatMul"].contains(&node.op_type.as_str())
        };
        for node in graph.node.iter().filter(multiplies) {
            let stored = node.input.iter().filter_map(|name| types.get(name.as_str()));
            self.products.extend(stored.map(|&code| (node.op_type.clone(), DType::from_onnx(code))));
        }
        self.tensors.extend(&graph.initializer);
        self.visit_nodes(&graph.node);
    }

    fn visit_nodes(&mut self, nodes: &'a [proto::NodeProto]) {
        for node in nodes {
            let mut name = node.op_type.clone();
            let domain = domain(&node.domain);
            if domain == "com.microsoft" && name == "MultiHeadAttention" && is_packed(node) {
                name.push_str(PACKED);
            }
            match (domain.as_str(), node.op_type.as_str()) {
                ("", "Resize") if node.input.get(3).is_some_and(|sizes| !sizes.is_empty()) => {
                    self.upsamplings.by_size += 1;
                }
                ("", "Resize" | "Upsample" | "ConvTranspose") => self.upsamplings.by_scale += 1,
                _ => {}
            }
            *self.operators.entry(Operator { domain, name }).or_default() += 1;
            for attribute in &node.attribute {
                self.tensors.extend(attribute.t.iter().chain(&attribute.tensors));
                for graph in attribute.g.iter().chain(&attribute.graphs) {
                    self.visit_graph(graph);
                }
            }
        }
    }
}

/// The suffix for the name of an attention operator with its queries, keys and values in one tensor: it has another
/// kernel than the operator with three inputs, which fewer providers have.
pub(crate) const PACKED: &str = " (packed)";

fn is_packed(node: &proto::NodeProto) -> bool {
    node.input.get(2).is_none_or(String::is_empty)
}

/// Normalizes ONNX's own domain, which has two spellings.
fn domain(name: &str) -> String {
    if name == "ai.onnx" { String::new() } else { name.to_owned() }
}
