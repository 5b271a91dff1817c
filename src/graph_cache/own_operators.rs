//! Graphs with operators of our own, and the precision in which those multiply.

use std::path::Path;

use super::cache_file::CacheFile;
use super::cache_folder::{FEW_PRODUCTS, GraphCache};
use super::rewritten;
use super::wanted::Wanted;
use crate::bundle::GraphFile;
use crate::error::{Error, Result};
use crate::rewrite::{self, OperatorChoice, Pass, Rewritten, rewrite};
use crate::session::{Optimization, Session, SessionOptions};

/// The key that errors of a graph's precision name.
const PRECISION: &str = "device.precision";

/// True for the error of a graph that cannot multiply in the precision that is asked for.
pub fn is_of_precision(error: &Error) -> bool {
    matches!(error, Error::Input { what, .. } if what == PRECISION)
}

/// Makes the graph with operators of our own, if `wanted` has those, and returns it. Its weights are in a file beside
/// `made`. `None`, without files, if less than half of the multiplications would be in them, as with quantized weights.
///
/// # Errors
/// [`Error::Input`] if the graph was to multiply in another type than the one that it stores, and cannot.
pub(super) fn make_with_operators(wanted: &Wanted<'_>, made: &Path) -> Result<Option<Vec<u8>>> {
    let Some(choice) = wanted.passes.iter().find_map(|pass| pass.operators()) else { return Ok(None) };
    let options = SessionOptions { optimization: Optimization::Basic, ..wanted.options.clone() };
    let before: Vec<Pass> = wanted.passes.iter().copied().filter(|pass| !pass.is_instead_of_operators()).collect();
    let bytes = rewritten::rewritten(wanted.graph, &before, wanted.options)?;
    let folded = made.with_file_name("folded.onnx");
    Session::save_optimized(wanted.runtime, &wanted.graph.path, bytes, &options, &folded)?;
    // Attention with masks, and that whose lengths only come of folding.
    if let Some(Rewritten { bytes, .. }) = rewrite(&GraphFile::open(&folded)?, &[Pass::MaskedAttention], &[])? {
        std::fs::write(&folded, bytes).map_err(|e| Error::io(&folded, "writing", e))?;
    }
    let graph = GraphFile::open(&folded)?;
    let weights = made.with_extension("weights");
    let with = rewrite::with_operators(&graph, choice, &weights)?;
    let remove = |path: &Path| std::fs::remove_file(path).map_err(|e| Error::io(path, "removing", e));
    remove(&folded)?;
    for file in &graph.external {
        remove(&file.path)?;
    }
    match with {
        Some(with) if with.coverage.is_most() => return Ok(Some(with.bytes)),
        Some(_) => remove(&weights)?,
        None => {}
    }
    if choice.precision() == OperatorChoice::FLOAT32 { Ok(None) } else { Err(few_products(wanted)) }
}

impl GraphCache {
    /// Refuses a graph that was found to have few products for its precision by an earlier attempt, which folded it.
    pub(super) fn require_products(&self, wanted: &Wanted<'_>) -> Result<()> {
        self.few_products(wanted).read().map_or(Ok(()), |()| Err(few_products(wanted)))
    }

    /// The file that remembers that a graph has few products for its precision.
    pub(super) fn few_products(&self, wanted: &Wanted<'_>) -> CacheFile<()> {
        self.file(FEW_PRODUCTS, [wanted.key.clone()])
    }
}

fn few_products(wanted: &Wanted<'_>) -> Error {
    let (component, path) = (&wanted.options.component, wanted.graph.path.display());
    let choice = wanted.passes.iter().find_map(|pass| pass.operators());
    let (precision, products) = match choice {
        Some(choice) if choice.linear_in_int8 => (choice.precision(), "linear layers of 96 channels"),
        _ => ("bf16", "those of 32 channels"),
    };
    let problem = format!(
        "{component} ({path}) has few products for {precision}: {products} or more, with stored float weights and lengths \
         that are the same in all calls"
    );
    let help = "write device.precision = \"auto\", which takes what fits the graph here, export the model with float32 \
                weights, or leave device.batching out";
    Error::input(PRECISION, problem, help)
}

/// Refuses a graph in bfloat16 that cannot be cached: as exported it would run in another precision.
///
/// # Errors
/// [`Error::Input`] with the `problem` of the cache.
pub fn require_own_precision(passes: &[Pass], problem: &str) -> Result<()> {
    if !passes.iter().any(|pass| pass.narrows()) {
        return Ok(());
    }
    let problem = format!("is kept in the graph cache, and {problem}");
    let help = "make the cache's folder writable, name another one (LDM_ORT_CACHE_DIR), or leave the key out";
    Err(Error::input(PRECISION, problem, help))
}
