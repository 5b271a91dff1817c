//! A graph's external weight files.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::open_file::INCOMPLETE;
use super::tensors::tensor_bytes;
use super::{frame, proto};
use crate::error::{Error, Result};
use crate::files;

/// A weight file that a graph refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalFile {
    /// The name in the graph, relative to the graph's directory.
    pub location: String,
    /// The path of that name.
    pub path: PathBuf,
    /// True if the path is a link to a file outside of the graph's directory.
    pub is_linked: bool,
    /// Its size in bytes.
    pub bytes: u64,
    /// The number of bytes up to the end of the last tensor in it.
    pub needed: u64,
}

/// The requirements of a graph's tensors for one file.
struct FileRequirement {
    bytes: u64,
    tensor: String,
}

/// Finds the external weight files of `tensors`, and checks that they exist, are complete and are readable.
///
/// A location must be a relative path without `..`, so that an untrusted graph cannot refer to a file elsewhere on the
/// machine. The file may be a link to anywhere, as in the Hugging Face cache: the user created it, and it opens only
/// files that the user may read.
pub fn check<'a>(graph: &Path, tensors: impl Iterator<Item = &'a proto::TensorProto>) -> Result<Vec<ExternalFile>> {
    let mut needs: BTreeMap<String, FileRequirement> = BTreeMap::new();
    for tensor in tensors.filter(|t| t.data_location == proto::EXTERNAL || !t.external_data.is_empty()) {
        let reference = ExternalReference::read(graph, tensor)?;
        let need = needs
            .entry(reference.location)
            .or_insert_with(|| FileRequirement { bytes: 0, tensor: tensor.name.clone() });
        if reference.end > need.bytes {
            *need = FileRequirement { bytes: reference.end, tensor: tensor.name.clone() };
        }
    }
    needs.into_iter().map(|(location, need)| check_file(graph, location, &need)).collect()
}

/// The location of one tensor's values.
pub struct ExternalReference {
    /// The file, relative to the graph's directory.
    pub location: String,
    /// The offset of its first byte.
    pub offset: u64,
    /// The offset after its last byte.
    pub end: u64,
}

impl ExternalReference {
    /// Reads the location of the values of `tensor`. [`check`] decides if the file may be read.
    pub fn read(graph: &Path, tensor: &proto::TensorProto) -> Result<Self> {
        let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let bad =
            |what: String| Error::model(graph, format!("tensor {}: {what}", tensor.name), "export the model again");
        let location = entry("location").ok_or_else(|| bad("does not name its external file".into()))?;
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => {
                text.parse::<u64>().map(Some).map_err(|_| bad(format!("{key}: expected a number, found {text:?}")))
            }
        };
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or_else(|| tensor_bytes(tensor));
        let end =
            offset.checked_add(length).ok_or_else(|| bad(format!("offset {offset} + length {length} overflows")))?;
        Ok(Self { location: location.to_owned(), offset, end })
    }
}

fn check_file(graph: &Path, location: String, need: &FileRequirement) -> Result<ExternalFile> {
    let relative = Path::new(&location);
    let plain = !location.is_empty()
        && !location.contains('\\')
        && relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain {
        return Err(Error::model(
            graph,
            format!("has external weights at {location:?}, outside of its own directory"),
            "do not run this file unless you know where it comes from; export the model again",
        ));
    }
    let dir = graph.parent().unwrap_or(Path::new("."));
    let path = dir.join(relative);
    let metadata = std::fs::metadata(&path).map_err(|e| match (files::broken_link(&path), e.kind()) {
        (Some(reason), _) => Error::model(&path, reason, INCOMPLETE),
        (None, std::io::ErrorKind::NotFound) => Error::model(
            graph,
            format!("its weight file {location} is missing (expected at least {} bytes)", need.bytes),
            format!("copy {location} next to it, into {}", dir.display()),
        ),
        _ => Error::io(&path, "reading", e),
    })?;
    if !metadata.is_file() {
        return Err(Error::model(&path, "is the weight file of a graph but is not a file", "export the model again"));
    }
    if begins_as_pointer(&path)? {
        return Err(Error::model(
            &path,
            format!(
                "is a Git LFS pointer, not the weights of {} it points to",
                graph.file_name().unwrap_or_default().to_string_lossy()
            ),
            "fetch the file itself: `git lfs install`, then `git lfs pull` in the clone",
        ));
    }
    if metadata.len() < need.bytes {
        return Err(Error::model(
            &path,
            format!(
                "the file is truncated: tensor {} of {} needs {} bytes, it has {}",
                need.tensor,
                graph.file_name().unwrap_or_default().to_string_lossy(),
                need.bytes,
                metadata.len()
            ),
            format!("copy {location} again, from where the graph came from"),
        ));
    }
    let is_linked = is_linked(dir, relative, &path);
    Ok(ExternalFile { location, path, is_linked, bytes: metadata.len(), needed: need.bytes })
}

/// Returns true if a link points outside of the graph's directory.
fn is_linked(dir: &Path, location: &Path, path: &Path) -> bool {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let plain: PathBuf = location.components().filter(|part| *part != Component::CurDir).collect();
    !matches!((dir.canonicalize(), path.canonicalize()), (Ok(dir), Ok(path)) if dir.join(plain) == path)
}

/// Returns true if a file starts like the pointer that a clone without Git LFS has for a large file.
fn begins_as_pointer(path: &Path) -> Result<bool> {
    let mut head = Vec::with_capacity(64);
    let file = files::open(path).map_err(|e| Error::io(path, "opening", e))?;
    file.take(64).read_to_end(&mut head).map_err(|e| Error::io(path, "reading", e))?;
    Ok(frame::is_lfs_pointer(&head))
}
