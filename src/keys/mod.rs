//! Reads and writes the keys of pipeline.toml: tables that know what they were asked for, values that know where they were
//! written, and a writer.

mod item;
mod nearest;
mod old_names;
mod reading;
mod record_path;
mod table;
mod tree;
mod writer;

pub(crate) use item::Item;
pub use old_names::OldNames;
pub(crate) use reading::{Reading, join, unknown_name};
pub use record_path::RecordNames;
pub(crate) use record_path::{absolute, reaches_outside, without_parents};
pub(crate) use table::Table;
pub(crate) use tree::{Entries, Node, Origin, SyntaxError, Value, parse_document, parse_key, parse_value, quote};
pub use writer::Writer;
pub(crate) use writer::integer;
