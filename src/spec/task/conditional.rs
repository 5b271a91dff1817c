//! `[task.conditional]`: a picture of what the `[[condition]]` tables say.

use std::ops::Bound::{Included, Unbounded};

use crate::spec::reader::Table;
use crate::spec::writer::Writer;

/// `[task.conditional]`: a picture of what the `[[condition]]` tables say.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditional {
    /// `guidance_scale = 1.0`: the weight of classifier-free guidance away from zeros in the conditions' place, 0 or
    /// more; up to 1 there is no guidance.
    pub guidance_scale: f64,
}

impl Conditional {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self { guidance_scale: table.number("guidance_scale", Included(0.0), Unbounded).unwrap_or(1.0) }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.key("guidance_scale", self.guidance_scale);
    }
}
