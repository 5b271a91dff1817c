//! Weights that a graph keeps in files beside it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::{frame, proto};
use crate::error::{Error, Result};
use crate::files;

/// A file of weights that a graph names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalFile {
    /// The name as it stands in the graph, relative to the graph's directory.
    pub location: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// How many of its bytes the graph's tensors reach up to.
    pub needed: u64,
}

/// What the tensors of a graph ask of one file.
struct Need {
    bytes: u64,
    tensor: String,
}

/// Finds the files in which `tensors` keep their values, and checks that they are there, whole, and inside `root`.
///
/// A location must be a relative path without `..`. The file may be a symbolic link, since that is how the Hugging
/// Face cache keeps files, but what it points to must lie inside `root` or, where `root` is a snapshot of such a
/// cache (`…/snapshots/<revision>`), in the `blobs` directory beside the snapshots. So a graph from a stranger cannot
/// make the runtime read a file elsewhere on the machine.
pub fn check<'a>(
    graph: &Path,
    root: &Path,
    tensors: impl Iterator<Item = &'a proto::Tensor>,
) -> Result<Vec<ExternalFile>> {
    let mut needs: BTreeMap<String, Need> = BTreeMap::new();
    for tensor in tensors.filter(|t| t.data_location == proto::EXTERNAL || !t.external_data.is_empty()) {
        let reference = Reference::read(graph, tensor)?;
        let need = needs.entry(reference.location).or_insert_with(|| Need { bytes: 0, tensor: tensor.name.clone() });
        if reference.end > need.bytes {
            *need = Need { bytes: reference.end, tensor: tensor.name.clone() };
        }
    }
    needs.into_iter().map(|(location, need)| check_file(graph, root, location, &need)).collect()
}

/// Where one tensor's values lie.
pub struct Reference {
    /// The file, relative to the graph's directory.
    pub location: String,
    /// The first of its bytes.
    pub offset: u64,
    /// The byte after its last.
    pub end: u64,
}

impl Reference {
    /// Reads where the values of `tensor` lie. Whether the file is one to be read is for [`check`] to say.
    pub fn read(graph: &Path, tensor: &proto::Tensor) -> Result<Self> {
        let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let bad =
            |what: String| Error::model(graph, format!("tensor {}: {what}", tensor.name), "export the model again");
        let location =
            entry("location").ok_or_else(|| bad("keeps its values in a file that it does not name".into()))?;
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| bad(format!("{key} is {text:?}, no number"))),
        };
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or_else(|| super::tensor_bytes(tensor));
        let end =
            offset.checked_add(length).ok_or_else(|| bad(format!("offset {offset} + length {length} overflows")))?;
        Ok(Self { location: location.to_owned(), offset, end })
    }
}

fn check_file(graph: &Path, root: &Path, location: String, need: &Need) -> Result<ExternalFile> {
    let relative = Path::new(&location);
    let plain = !location.is_empty()
        && !location.contains('\\')
        && relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain {
        return Err(Error::model(
            graph,
            format!("keeps weights at {location:?}, outside of its own directory"),
            "do not run this file unless you know where it comes from; export the model again",
        ));
    }
    let dir = graph.parent().unwrap_or(Path::new("."));
    let path = dir.join(relative);
    let metadata = std::fs::metadata(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::model(
            graph,
            format!("its weights are in {location}, which is missing ({} bytes or more are needed)", need.bytes),
            format!("copy {location} beside it, into {}", dir.display()),
        ),
        _ => Error::io(&path, "reading", e),
    })?;
    if !metadata.is_file() {
        return Err(Error::model(
            &path,
            "is to hold the weights of a graph but is not a file",
            "export the model again",
        ));
    }
    if !is_inside(root, &path)? {
        return Err(Error::model(
            graph,
            format!("keeps weights at {location:?}, a link that leads out of {}", root.display()),
            "replace the link by the file it points to",
        ));
    }
    if metadata.len() < need.bytes {
        let help = if begins_as_pointer(&path) {
            "it is a Git LFS pointer: fetch the file itself with `git lfs pull`".to_owned()
        } else {
            format!("copy {location} again, from where the graph came from")
        };
        return Err(Error::model(
            &path,
            format!(
                "the file is cut off: tensor {} of {} needs {} bytes, it has {}",
                need.tensor,
                graph.file_name().unwrap_or_default().to_string_lossy(),
                need.bytes,
                metadata.len()
            ),
            help,
        ));
    }
    Ok(ExternalFile { location, path, bytes: metadata.len(), needed: need.bytes })
}

fn is_inside(root: &Path, path: &Path) -> Result<bool> {
    let canonical = |p: &Path| p.canonicalize().map_err(|e| Error::io(p, "resolving", e));
    let (root, path) = (canonical(root)?, canonical(path)?);
    if path.starts_with(&root) {
        return Ok(true);
    }
    let snapshots = root.ancestors().find(|a| a.file_name().is_some_and(|n| n == "snapshots"));
    let blobs = snapshots.and_then(Path::parent).map(|repo| repo.join("blobs"));
    Ok(blobs.and_then(|b| b.canonicalize().ok()).is_some_and(|blobs| path.starts_with(blobs)))
}

fn begins_as_pointer(path: &Path) -> bool {
    let mut head = [0u8; 64];
    files::open(path).and_then(|mut f| f.read(&mut head)).is_ok_and(|n| frame::is_lfs_pointer(&head[..n]))
}
