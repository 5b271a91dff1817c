//! The execution provider of each node, as ONNX Runtime 1.31 and newer tell it of an opened graph.

use std::ffi::{CStr, c_char};
use std::ptr::null;

use ort::AsPointer;
use ort::sys::OrtStatusPtr;

use super::library::AssignmentApi;
use super::placement::Placement;

/// ONNX Runtime's option that has it remember the assignments.
pub(super) const RECORD: &str = "session.record_ep_graph_assignment_info";

/// Reads the provider of each node of a graph that was opened with [`RECORD`].
pub(super) fn read_assignment(api: &AssignmentApi, session: &ort::session::Session) -> ort::Result<Placement> {
    let mut placement = Placement::default();
    let list = |places: &mut _, len: &mut _| {
        // SAFETY: the session is open, and both places can be written to.
        unsafe { (api.subgraphs)(session.ptr(), places, len) }
    };
    for subgraph in read_list(list)? {
        // SAFETY: the subgraph is one of the session's, and the place can be written to.
        let provider = read_name(|name| unsafe { (api.provider)(subgraph, name) })?;
        let list = |places: &mut _, len: &mut _| {
            // SAFETY: as above, for both places.
            unsafe { (api.nodes)(subgraph, places, len) }
        };
        for node in read_list(list)? {
            // SAFETY: the node is one of the subgraph's, and the place can be written to.
            let operator = read_name(|name| unsafe { (api.operator)(node, name) })?;
            placement.add(&provider, &operator);
        }
    }
    Ok(placement)
}

/// Reads a list of pointers that belongs to the session.
fn read_list<T>(get: impl FnOnce(&mut *const *const T, &mut usize) -> OrtStatusPtr) -> ort::Result<Vec<*const T>> {
    let (mut items, mut len) = (null(), 0);
    let status = get(&mut items, &mut len);
    // SAFETY: the status belongs to whoever called the function.
    unsafe { ort::Error::result_from_status(status) }?;
    if items.is_null() || len == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the function succeeded, so that there are as many pointers as it says.
    Ok(unsafe { std::slice::from_raw_parts(items, len) }.to_vec())
}

/// Reads a text that belongs to the session.
fn read_name(get: impl FnOnce(&mut *const c_char) -> OrtStatusPtr) -> ort::Result<String> {
    let mut name = null();
    let status = get(&mut name);
    // SAFETY: the status belongs to whoever called the function.
    unsafe { ort::Error::result_from_status(status) }?;
    if name.is_null() {
        return Ok(String::new());
    }
    // SAFETY: the function succeeded, so that this is a text that ends in NUL.
    Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}
