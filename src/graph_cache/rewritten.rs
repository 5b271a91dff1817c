//! Graphs that are rewritten before they are opened, with the cache or without.

use crate::bundle::{GraphFile, relocate};
use crate::error::{Error, Result};
use crate::rewrite::{Pass, Rewritten, rewrite};
use crate::session::{Runtime, Session, SessionOptions};
use crate::tensor::Weight;

/// The graph rewritten with `passes` and with the edits of `options` in it; `None` where nothing is to be gained.
///
/// # Errors
/// As [`rewrite`]; [`Error::Model`] too where a graph that has to be rewritten cannot be edited.
pub(super) fn rewritten(graph: &GraphFile, passes: &[Pass], options: &SessionOptions) -> Result<Option<Vec<u8>>> {
    let Some(Rewritten { mut bytes, .. }) = rewrite(graph, passes, &options.axes)? else {
        return Ok(None);
    };
    let wanted = graph.float_inputs.iter().filter(|(_, edit)| options.edits.contains(edit));
    let there = GraphFile::float_inputs_of(&bytes);
    for (name, _) in wanted {
        let byte = there.get(name).and_then(|edit| Some((bytes.get_mut(usize::try_from(edit.at).ok()?)?, edit.to)));
        match byte {
            Some((byte, to)) => *byte = to,
            None if passes.iter().any(|pass| pass.is_required()) => {
                let problem = format!("input {name} cannot be made a float input once the graph is rewritten");
                return Err(Error::model(&graph.path, problem, "export it with a float timestep"));
            }
            None => return Ok(None),
        }
    }
    Ok(Some(bytes))
}

/// Opens a graph without the cache: as exported, or only with those of `passes` that it needs to run
/// ([`Pass::is_required`]), on `weights` in the place of those of their names that it stores.
///
/// # Errors
/// As [`Session::open_with`] and [`rewrite`].
pub fn open_uncached(
    runtime: &Runtime,
    graph: &GraphFile,
    passes: &[Pass],
    options: &SessionOptions,
    weights: Vec<Weight>,
) -> Result<Session> {
    let required: Vec<Pass> = passes.iter().copied().filter(|pass| pass.is_required()).collect();
    let Some(bytes) = (if required.is_empty() { None } else { rewritten(graph, &required, options)? }) else {
        return Session::open_with(runtime, &graph.path, options, weights);
    };
    let weights = relocate(&bytes, weights).ok_or_else(|| {
        let problem = "its weights cannot be told apart once it is rewritten";
        Error::model(&graph.path, problem, "leave [cache.deepcache] out, or what changes the weights")
    })?;
    Session::open_bytes(runtime, &graph.path, bytes, options, weights)
}
