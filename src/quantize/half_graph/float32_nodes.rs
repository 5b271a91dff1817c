//! Chooses the nodes of a half-precision graph that compute in float32.

mod divisions;
mod norms;
mod positions;
mod reason;
mod scores;
mod selection;
mod weights;
mod whole_numbers;

use serde_json::Value;

use crate::bundle::Component;

pub use selection::{Float32Selection, GraphView};

/// Chooses the nodes of a component's graph.
pub fn choose(view: &GraphView<'_>, component: &Component) -> Float32Selection {
    let mut selection = Float32Selection::of_operators(&view.source.nodes);
    let whole = whole_numbers::mark(view, &mut selection);
    positions::mark(view, &mut selection);
    norms::mark(view, component.kind, &mut selection);
    divisions::mark(view, &mut selection);
    if component.config.get("upcast_attention").and_then(Value::as_bool) == Some(true) {
        scores::mark(view, &mut selection);
    }
    weights::mark(view, &mut selection);
    weights::limit(view, &whole, &mut selection);
    selection
}
