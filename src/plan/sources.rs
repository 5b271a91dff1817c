//! The files that plans are made from, each read once for any number of plans.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::problems::Problems;
use super::text::{EncoderRequest, PreparedEncoder};
use crate::bundle::{
    Bundle, Component, ComponentKind, DirectoryOverrides, GraphFile, open_conditioner, open_controlnet,
};
use crate::error::{Error, Result};
use crate::lora::Lora;
use crate::rewrite::{self, Footprint, Pass, SkipBranch};
use crate::spec::Spec;
use crate::text::TextualInversion;
use crate::text::tokenizer::{Cleaning, Tokenizer};

/// The model directories, and the files beside them, that plans are made from.
///
/// Each is read when a plan first needs it, and not again: a change on disk shows in new sources only. Plans of different
/// requests made from the same sources share their tokenizers, and an [`Execution`](crate::execution::Execution) runs all
/// of them on the graphs that are open already.
#[derive(Debug, Default)]
pub struct ModelSources {
    directories: Memo<(PathBuf, DirectoryOverrides), ModelDirectory>,
    tokenizers: Memo<(PathBuf, Option<Cleaning>), Tokenizer>,
    encoders: Memo<EncoderRequest, PreparedEncoder>,
    inversions: Memo<(PathBuf, Option<String>), TextualInversion>,
    loras: Memo<LoraKey, Vec<String>>,
    controls: Memo<(PathBuf, BTreeMap<String, String>), Component>,
    conditioners: Memo<PathBuf, Component>,
    class_names: Memo<PathBuf, Vec<String>>,
    branches: Memo<PathBuf, Vec<SkipBranch>>,
    footprints: Memo<(PathBuf, Vec<Pass>, Axes), Option<Footprint>>,
    shapes: Memo<(PathBuf, String, Axes), Option<KnownShape>>,
}

/// A LoRA file, and the graphs that it is checked against.
type LoraKey = (PathBuf, Vec<(ComponentKind, PathBuf)>);

/// The lengths of a shape, as far as they are known.
type KnownShape = Vec<Option<usize>>;

/// The lengths of a graph's free axes, by name.
type Axes = Vec<(String, usize)>;

/// A model directory, with the paths of its configuration files.
#[derive(Debug)]
pub(super) struct ModelDirectory {
    pub(super) bundle: Bundle,
    /// As [`Bundle::configuration`].
    pub(super) configuration: Vec<(String, PathBuf)>,
}

impl ModelSources {
    /// Opens the model directories of a pipeline and of its stages. What else a plan needs is read when it needs it.
    ///
    /// # Errors
    /// As [`Bundle::open`], within [`Error::Stage`] for a `[[stage]]`; [`Error::Several`] if several directories are problems.
    pub fn open(spec: &Spec) -> Result<Self> {
        let sources = Self::default();
        let mut problems = Problems::default();
        problems.unless(sources.directory(spec));
        for (at, stage) in spec.stages.iter().enumerate() {
            problems.unless(sources.directory(&stage.spec).map_err(|error| error.in_stage(&format!("stage[{at}]"))));
        }
        problems.check().map(|()| sources)
    }

    /// The model directory that a pipeline names.
    pub(super) fn directory(&self, spec: &Spec) -> Result<Arc<ModelDirectory>> {
        let key = (spec.model.path.clone(), spec.model.overrides());
        self.directories.get(key, |(path, overrides)| {
            let bundle = Bundle::open(path, overrides)?;
            Ok(ModelDirectory { configuration: bundle.configuration(), bundle })
        })
    }

    /// The tokenizer in a directory, which cleans prompts in this way.
    pub(super) fn tokenizer(&self, dir: &Path, cleaning: Option<Cleaning>) -> Result<Arc<Tokenizer>> {
        self.tokenizers.get((dir.to_path_buf(), cleaning), |(dir, cleaning)| match cleaning {
            None => Tokenizer::open(dir)?.with_cleaning(Cleaning::default()),
            Some(cleaning) => Tokenizer::clone(&*self.tokenizer(dir, None)?).with_cleaning(*cleaning),
        })
    }

    /// A text encoder's tokenizer and signature as a request needs them.
    pub(super) fn encoder(
        &self,
        request: EncoderRequest,
        prepare: impl FnOnce(&EncoderRequest) -> Result<PreparedEncoder>,
    ) -> Result<Arc<PreparedEncoder>> {
        self.encoders.get(request, prepare)
    }

    /// A textual inversion and the token it stands for.
    pub(super) fn inversion(&self, path: &Path, token: Option<&str>) -> Result<Arc<TextualInversion>> {
        let key = (path.to_path_buf(), token.map(str::to_owned));
        self.inversions.get(key, |(path, token)| TextualInversion::open(path, token.as_deref()))
    }

    /// As [`Lora::check`].
    pub(super) fn check_lora(&self, lora: &Lora, graphs: &[(ComponentKind, &GraphFile)]) -> Result<Arc<Vec<String>>> {
        let of_graphs = graphs.iter().map(|(kind, graph)| (*kind, graph.path.clone())).collect();
        self.loras.get((lora.path.clone(), of_graphs), |_| lora.check(graphs))
    }

    /// The control network at a path, with the roles of its inputs.
    pub(super) fn controlnet(&self, path: &Path, roles: &BTreeMap<String, String>) -> Result<Arc<Component>> {
        self.controls.get((path.to_path_buf(), roles.clone()), |(path, roles)| open_controlnet(path, roles))
    }

    /// The graph at the path of `[[condition]]` number `at`.
    pub(super) fn conditioner(&self, at: usize, path: PathBuf) -> Result<Arc<Component>> {
        self.conditioners.get(path, |path| match path.exists() {
            true => open_conditioner(path),
            false => Err(Error::input(
                format!("condition[{at}].graph"),
                format!("there is no {}", path.display()),
                "name a folder of the model directory that holds a graph, or the path of one, such as ./encoder",
            )),
        })
    }

    /// The lines of a file of class names, as `read` reads them.
    pub(super) fn class_names(
        &self,
        path: &Path,
        read: impl FnOnce(&PathBuf) -> Result<Vec<String>>,
    ) -> Result<Arc<Vec<String>>> {
        self.class_names.get(path.to_path_buf(), read)
    }

    /// As [`rewrite::branches`].
    pub(super) fn branches(&self, graph: &GraphFile) -> Result<Arc<Vec<SkipBranch>>> {
        self.branches.get(graph.path.clone(), |_| rewrite::branches(graph))
    }

    /// As [`rewrite::footprint`].
    pub(super) fn footprint(&self, graph: &GraphFile, passes: &[Pass], axes: &Axes) -> Result<Option<Footprint>> {
        let key = (graph.path.clone(), passes.to_vec(), axes.clone());
        Ok(*self.footprints.get(key, |_| rewrite::footprint(graph, passes, axes))?)
    }

    /// As [`rewrite::output_shape`].
    pub(super) fn output_shape(
        &self,
        graph: &GraphFile,
        output: &str,
        axes: &Axes,
    ) -> Result<Option<Vec<Option<usize>>>> {
        let key = (graph.path.clone(), output.to_owned(), axes.clone());
        let shape = self.shapes.get(key, |_| rewrite::output_shape(graph, output, axes))?;
        Ok(Option::clone(&shape))
    }
}

/// Values by their keys, each made once. What fails is made again.
struct Memo<K, V>(Mutex<Vec<(K, Arc<V>)>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, V> std::fmt::Debug for Memo<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memo").field("len", &self.known().len()).finish_non_exhaustive()
    }
}

impl<K: PartialEq, V> Memo<K, V> {
    fn get(&self, key: K, make: impl FnOnce(&K) -> Result<V>) -> Result<Arc<V>> {
        if let Some((_, value)) = self.known().iter().find(|(known, _)| *known == key) {
            return Ok(Arc::clone(value));
        }
        // Made without the lock: values may be made of others of the same kind.
        let value = Arc::new(make(&key)?);
        self.known().push((key, Arc::clone(&value)));
        Ok(value)
    }
}

impl<K, V> Memo<K, V> {
    fn known(&self) -> MutexGuard<'_, Vec<(K, Arc<V>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_and_a_failure_again() {
        let memo = Memo::default();
        let fails = |_: &usize| Err::<usize, _>(Error::input("a", "b", "c"));
        assert!(memo.get(1, fails).is_err());
        assert_eq!(*memo.get(1, |key| Ok(key + 1)).unwrap(), 2);
        assert_eq!(*memo.get(1, fails).unwrap(), 2);
        assert!(memo.get(2, fails).is_err());
    }
}
