//! `[task.conditional]`: an image of what the `[[condition]]` tables say.

use std::ops::Bound::{Included, Unbounded};

use super::interval;
use crate::spec::reader::Table;
use crate::spec::writer::Writer;

/// `[task.conditional]`: an image of what the `[[condition]]` tables say.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditional {
    /// `guidance_scale = 1.0`: the weight of classifier-free guidance away from zeros in the conditions' place, 0 or
    /// more; up to 1 there is no guidance.
    pub guidance_scale: f64,
    /// `guidance_interval = [0.2, 0.8]`: the shares of the run from which and to which guidance is at work, as in
    /// [`Prompting::guidance_interval`](super::Prompting::guidance_interval).
    pub guidance_interval: Option<[f64; 2]>,
}

impl Conditional {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self {
            guidance_scale: table.number("guidance_scale", Included(0.0), Unbounded).unwrap_or(1.0),
            guidance_interval: interval::read(table),
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.key("guidance_scale", self.guidance_scale);
        writer.key_if(interval::KEY, self.guidance_interval.map(|interval| interval.to_vec()));
    }
}
