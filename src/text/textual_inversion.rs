//! Textual inversion: tokens with one or several trained embedding vectors (Gal et al. 2022, arXiv 2208.01618).

use std::io::Read;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, tensor};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::{self, hexadecimal};
use crate::guard::contain;
use crate::tensor::{DType, WeightValues};

/// A file of trained embeddings and their token.
#[derive(Debug, Clone, PartialEq)]
pub struct TextualInversion {
    /// The .safetensors file.
    pub path: PathBuf,
    /// The token that stands for the embeddings in prompts.
    pub token: String,
    /// The embeddings `[n, width]`, and the number of their text encoder, if the file states it.
    vectors: Vec<(Option<usize>, Array2<f32>)>,
    digest: String,
}

const AGAIN: &str = "download or copy the file again";

/// Tensor names that denote a text encoder and not the token.
const OF_ENCODERS: [(&str, Option<usize>); 3] = [("emb_params", None), ("clip_l", Some(1)), ("clip_g", Some(2))];

impl TextualInversion {
    /// Reads a file: in diffusers' form, a tensor named after the token; AUTOMATIC1111's, `emb_params`; or Stable
    /// Diffusion XL's, `clip_l` and `clip_g`. The token is `token`, or else the tensor's name, or else the file's name.
    ///
    /// # Errors
    /// [`Error::Model`] if the file does not exist or has none of these forms.
    pub fn open(path: &Path, token: Option<&str>) -> Result<Self> {
        let bytes = read(path)?;
        let file =
            contain(|| SafeTensors::deserialize(&bytes)).map_err(|e| Error::model(path, e.to_string(), AGAIN))?;
        let file = file.map_err(|e| not_safetensors(path, &bytes, &e))?;
        let mut vectors = Vec::new();
        let mut called = None;
        let tensors = file.tensors();
        for (name, view) in &tensors {
            match OF_ENCODERS.iter().find(|(known, _)| known == name) {
                Some((_, encoder)) => vectors.push((*encoder, rows(path, name, view)?)),
                None if tensors.len() == 1 => {
                    called = Some(name.clone());
                    vectors.push((None, rows(path, name, view)?));
                }
                None => {
                    let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).take(4).collect();
                    return Err(Error::model(
                        path,
                        format!(
                            "contains {} tensors ({}, …), which is not a textual inversion",
                            tensors.len(),
                            names.join(", ")
                        ),
                        "a [[textual_inversion]] file has one tensor named after its token, emb_params, or clip_l and clip_g",
                    ));
                }
            }
        }
        if vectors.is_empty() {
            return Err(Error::model(path, "contains no tensor", AGAIN));
        }
        let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let token = token.map(str::to_owned).or(called).unwrap_or_else(stem);
        if token.trim().is_empty() {
            return Err(Error::model(path, "names no token for its embeddings", "set token in [[textual_inversion]]"));
        }
        vectors.sort_by_key(|(encoder, _)| *encoder);
        let mut hash = Sha256::new();
        hash.update(&bytes);
        Ok(Self { path: path.to_path_buf(), token, vectors, digest: hexadecimal(hash) })
    }

    /// Returns the embeddings for text encoder number `encoder`, of `encoders` in total.
    ///
    /// # Errors
    /// [`Error::Model`] if the file has none for it.
    pub fn of_encoder(&self, encoder: usize, encoders: usize) -> Result<&Array2<f32>> {
        let found = match self.vectors.as_slice() {
            [(None, vectors)] if encoders == 1 => Some(vectors),
            several => several.iter().find(|(number, _)| *number == Some(encoder)).map(|(_, vectors)| vectors),
        };
        found.ok_or_else(|| {
            Error::model(
                &self.path,
                format!("contains no embeddings for text encoder {encoder} of the model's {encoders}"),
                "it is for another model family: Stable Diffusion XL has clip_l and clip_g, others one tensor",
            )
        })
    }

    /// Returns the file's sha256 in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let help = "set [[textual_inversion]] path to a .safetensors file";
    if path.is_dir() {
        return Err(Error::model(path, "is a directory", help));
    }
    let mut file = files::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::model(path, "no such file", help),
        _ => Error::io(path, "reading", e),
    })?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| Error::io(path, "reading", e))?;
    Ok(bytes)
}

fn rows(path: &Path, name: &str, view: &TensorView<'_>) -> Result<Array2<f32>> {
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::Bf16,
        other => {
            let problem = format!("tensor {name} is of type {other:?}; expected float32, float16 or bfloat16");
            return Err(Error::model(path, problem, "save it in one of these types"));
        }
    };
    let shape = match *view.shape() {
        [width] if width > 0 => Some((1, width)),
        [n, width] if n > 0 && width > 0 => Some((n, width)),
        _ => None,
    };
    let values = WeightValues::widen(view.data(), dtype).filter(|values| values.iter().all(|v| v.is_finite()));
    shape.zip(values).and_then(|(shape, values)| Array2::from_shape_vec(shape, values).ok()).ok_or_else(|| {
        let problem = format!("tensor {name} has shape {:?}; expected finite vectors, [n, width]", view.shape());
        Error::model(path, problem, "the file is damaged, or is not a textual inversion")
    })
}

fn not_safetensors(path: &Path, bytes: &[u8], error: &tensor::SafeTensorError) -> Error {
    let (problem, help) = if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        ("is a Git LFS pointer, not the file it points to".to_owned(), "fetch the file itself with `git lfs pull`")
    } else if bytes.trim_ascii_start().starts_with(b"<") {
        ("is a web page, not a safetensors file".to_owned(), "download the file itself")
    } else if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x80]) {
        (
            "is a PyTorch pickle, which runs code when it is read".to_owned(),
            "use its .safetensors file, or write one: safetensors.torch.save_file({\"emb_params\": vectors}, path)",
        )
    } else {
        (format!("is not a whole safetensors file: {error}"), AGAIN)
    };
    Error::model(path, problem, help)
}
