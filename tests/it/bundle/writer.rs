//! Writes small ONNX files and model directories, so that each test shows its subject.

use std::path::{Path, PathBuf};

use ldm_ort::bundle::{Bundle, Component, DirectoryOverrides, GraphFile};

/// The values of ONNX's element types.
pub const F32: u64 = 1;
pub const I32: u64 = 6;
pub const I64: u64 = 7;
pub const BOOL: u64 = 9;
pub const F16: u64 = 10;
pub const F64: u64 = 11;
pub const BF16: u64 = 16;

/// An ONNX model under construction; each method adds one part, encoded as protobuf.
#[derive(Default, Clone)]
pub struct Model {
    graph: Vec<u8>,
    functions: Vec<u8>,
}

impl Model {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an input; the shape is written like `batch, 4, height, width`, and empty for a scalar.
    pub fn input(self, name: &str, dtype: u64, shape: &str) -> Self {
        self.value(11, name, dtype, shape)
    }

    pub fn output(self, name: &str, dtype: u64, shape: &str) -> Self {
        self.value(12, name, dtype, shape)
    }

    fn value(mut self, tag: u64, name: &str, dtype: u64, shape: &str) -> Self {
        let mut dims = Vec::new();
        for axis in shape.split(',').map(str::trim).filter(|a| !a.is_empty()) {
            let mut dim = Vec::new();
            match axis.parse() {
                Ok(n) => number(&mut dim, 1, n),
                Err(_) => bytes(&mut dim, 2, axis.as_bytes()),
            }
            bytes(&mut dims, 1, &dim);
        }
        let (mut tensor, mut kind, mut info) = (Vec::new(), Vec::new(), Vec::new());
        number(&mut tensor, 1, dtype);
        bytes(&mut tensor, 2, &dims);
        bytes(&mut kind, 1, &tensor);
        bytes(&mut info, 1, name.as_bytes());
        bytes(&mut info, 2, &kind);
        bytes(&mut self.graph, tag, &info);
        self
    }

    /// Adds an operator defined in the file, `domain:Name`, as another one.
    pub fn function(mut self, name: &str, operator: &str) -> Self {
        let (mut node, mut function) = (Vec::new(), Vec::new());
        bytes(&mut node, 4, operator.as_bytes());
        let (domain, name) = name.split_once(':').unwrap_or(("", name));
        bytes(&mut function, 1, name.as_bytes());
        bytes(&mut function, 7, &node);
        bytes(&mut function, 10, domain.as_bytes());
        bytes(&mut self.functions, 25, &function);
        self
    }

    /// Adds a node; the operator may have its domain, like `com.microsoft:GroupNorm`.
    pub fn node(mut self, operator: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        let mut node = Vec::new();
        inputs.iter().for_each(|name| bytes(&mut node, 1, name.as_bytes()));
        outputs.iter().for_each(|name| bytes(&mut node, 2, name.as_bytes()));
        let (domain, name) = operator.split_once(':').unwrap_or(("", operator));
        bytes(&mut node, 4, name.as_bytes());
        bytes(&mut node, 7, domain.as_bytes());
        bytes(&mut self.graph, 1, &node);
        self
    }

    /// Adds a stored float tensor of zeros.
    pub fn weight(self, name: &str, dims: &[u64]) -> Self {
        self.weight_of(name, F32, dims)
    }

    /// Adds a stored tensor of zeros with an element type of at most four bytes.
    pub fn weight_of(mut self, name: &str, dtype: u64, dims: &[u64]) -> Self {
        let mut tensor = tensor(name, dtype, dims);
        let values = vec![0u8; 4 * dims.iter().product::<u64>() as usize];
        bytes(&mut tensor, 9, &values);
        bytes(&mut self.graph, 5, &tensor);
        self
    }

    /// Adds a stored list of integers, or a single one without axes.
    pub fn whole(mut self, name: &str, values: &[i64], is_list: bool) -> Self {
        let mut tensor = Vec::new();
        if is_list {
            number(&mut tensor, 1, values.len() as u64);
        }
        number(&mut tensor, 2, I64);
        bytes(&mut tensor, 8, name.as_bytes());
        bytes(&mut tensor, 9, &values.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>());
        bytes(&mut self.graph, 5, &tensor);
        self
    }

    /// Adds an external float tensor.
    pub fn external(mut self, name: &str, dims: &[u64], location: &str, offset: u64) -> Self {
        let mut tensor = tensor(name, F32, dims);
        for (key, value) in [("location", location), ("offset", &offset.to_string())] {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, key.as_bytes());
            bytes(&mut entry, 2, value.as_bytes());
            bytes(&mut tensor, 13, &entry);
        }
        number(&mut tensor, 14, 1);
        bytes(&mut self.graph, 5, &tensor);
        self
    }

    pub fn build(&self) -> Vec<u8> {
        let (mut model, mut opset) = (Vec::new(), Vec::new());
        number(&mut model, 1, 8);
        bytes(&mut model, 2, b"writer");
        bytes(&mut model, 3, b"1.0");
        bytes(&mut model, 7, &self.graph);
        bytes(&mut opset, 1, b"");
        number(&mut opset, 2, 17);
        bytes(&mut model, 8, &opset);
        model.extend_from_slice(&self.functions);
        model
    }
}

fn tensor(name: &str, dtype: u64, dims: &[u64]) -> Vec<u8> {
    let mut tensor = Vec::new();
    dims.iter().for_each(|&d| number(&mut tensor, 1, d));
    number(&mut tensor, 2, dtype);
    bytes(&mut tensor, 8, name.as_bytes());
    tensor
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(out: &mut Vec<u8>, tag: u64, value: u64) {
    varint(out, tag << 3);
    varint(out, value);
}

fn bytes(out: &mut Vec<u8>, tag: u64, value: &[u8]) {
    varint(out, tag << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A model directory under construction; removed when dropped.
pub struct Dir {
    temporary: tempfile::TempDir,
}

impl Dir {
    pub fn new() -> Self {
        Self { temporary: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file.
    pub fn put(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
        self
    }

    /// Writes a graph.
    pub fn graph(self, name: &str, model: Model) -> Self {
        self.put(name, model.build())
    }

    pub fn open(&self) -> ldm_ort::Result<Bundle> {
        Bundle::open(self.path(), &DirectoryOverrides::default())
    }

    /// Returns the error message of opening it.
    pub fn error(&self) -> String {
        let error = self.open().unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    }

    /// Returns the only component of a directory.
    pub fn only_component(&self) -> Component {
        let bundle = self.open().unwrap();
        assert_eq!(bundle.components.len(), 1);
        bundle.components.into_values().next().unwrap()
    }
}

/// Writes only a graph and reads it.
pub fn read(model: Model) -> ldm_ort::Result<GraphFile> {
    let dir = Dir::new().graph("model.onnx", model);
    GraphFile::open(&dir.join("model.onnx"))
}

pub fn unet() -> Model {
    unet_with("batch, 4, height, width", F32, "")
}

pub fn unet_with(sample: &str, timestep: u64, timestep_shape: &str) -> Model {
    Model::new()
        .input("sample", F32, sample)
        .input("timestep", timestep, timestep_shape)
        .input("encoder_hidden_states", F32, "batch, sequence, 768")
        .output("out_sample", F32, "batch, 4, height, width")
}

pub fn decoder() -> Model {
    Model::new().input("latent_sample", F32, "batch, 4, height, width").output("sample", F32, "batch, 3, height, width")
}

pub fn encoder() -> Model {
    Model::new().input("sample", F32, "batch, 3, height, width").output(
        "latent_parameters",
        F32,
        "batch, 8, height, width",
    )
}

pub fn text_encoder() -> Model {
    Model::new()
        .input("input_ids", I64, "batch, sequence")
        .output("last_hidden_state", F32, "batch, sequence, 768")
        .output("pooler_output", F32, "batch, 768")
        .weight("table", &[50, 2])
        .node("Gather", &["table", "input_ids"], &["embedded"])
}

/// A complete model in diffusers' legacy layout.
pub fn legacy() -> Dir {
    Dir::new()
        .graph("unet/model.onnx", unet())
        .graph("text_encoder/model.onnx", text_encoder())
        .graph("vae_decoder/model.onnx", decoder())
        .graph("vae_encoder/model.onnx", encoder())
        .put("tokenizer/vocab.json", "{}")
        .put("scheduler/scheduler_config.json", r#"{"_class_name": "PNDMScheduler", "prediction_type": "epsilon"}"#)
        .put("model_index.json", r#"{"_class_name": "OnnxStableDiffusionPipeline"}"#)
}
