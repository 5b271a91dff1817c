//! The store and the pipeline of a batch, from the names that a user gives.

use std::path::Path;
use std::sync::Arc;

use super::local_store::LocalStore;
#[cfg(feature = "s3")]
use super::s3_store::S3Store;
use super::store::Store;
use crate::engine::model_spec;
use crate::error::{Error, Result};
use crate::files;
use crate::spec::{Overrides, Spec};

/// Makes the store of a folder, or of a bucket's `s3://bucket/prefix`. `variables` are those of the process's environment, of
/// which a bucket needs those that begin with `AWS_`. Touches no file, and sends nothing.
///
/// # Errors
/// [`Error::Input`] naming `--out` for an address without a store.
#[cfg_attr(not(feature = "s3"), expect(unused_variables, reason = "buckets need the feature s3"))]
pub fn open_store(out: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Arc<dyn Store>> {
    match out.split_once("://") {
        #[cfg(feature = "s3")]
        Some(("s3", _)) => {
            let own = variables.into_iter().filter(|(name, _)| name.starts_with("AWS_"));
            Ok(Arc::new(S3Store::new(out, own)?))
        }
        #[cfg(not(feature = "s3"))]
        Some(("s3", _)) => {
            let hint = "build the command with cargo build --features s3, the wheel with maturin build --features s3, or \
                        name a folder";
            Err(Error::input("--out", "this program was built without the feature s3", hint))
        }
        Some((scheme, _)) => {
            let problem = format!("there is no store for {scheme}://");
            Err(Error::input("--out", problem, "name a folder, or a bucket as s3://bucket/prefix"))
        }
        None => {
            let invalid = |error: String| Error::input("--out", error, "name the folder in full");
            Ok(Arc::new(LocalStore::new(files::expand_home(Path::new(out)).map_err(invalid)?)))
        }
    }
}

/// Reads the pipeline of a batch: a pipeline file, or a model directory, whose sample prompt and seed are left out, since
/// each request has a prompt, and a seed of its own.
///
/// # Errors
/// [`Error::Spec`] and [`Error::Model`] for what is wrong with it.
pub fn batch_spec(path: &Path, mut overrides: Overrides) -> Result<Spec> {
    if !path.is_dir() {
        return Spec::load(path, &overrides);
    }
    if overrides.prompts.is_empty() {
        overrides.prompts.push(String::new());
    }
    let has_seed = overrides.seed.is_some() || overrides.set.iter().any(|set| set.starts_with("run.seed="));
    let mut spec = model_spec(path, &overrides)?;
    spec.run.seed = spec.run.seed.filter(|_| has_seed);
    Ok(spec)
}
