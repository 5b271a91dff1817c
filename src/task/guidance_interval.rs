//! The key `guidance_interval`: the part of a run in which guidance is applied.

use crate::keys::{Table, Writer};

pub(super) const KEY: &str = "guidance_interval";

/// Reads `guidance_interval = [from, to]`, shares of the run.
pub(super) fn read(table: &mut Table<'_>) -> Option<[f64; 2]> {
    const EXPECTED: &str = "two shares of the run, [from, to], from 0 to 1 and the first the smaller one";
    let item = table.get(KEY)?;
    let numbers = item.numbers(EXPECTED)?;
    match <[f64; 2]>::try_from(numbers) {
        Ok([from, to]) if 0.0 <= from && from < to && to <= 1.0 => Some([from, to]),
        Ok(found) => {
            item.report(format!("expected {EXPECTED}, found {found:?}"));
            None
        }
        Err(found) => {
            item.report(format!("expected {EXPECTED}, found {found:?}"));
            None
        }
    }
}

/// Writes `guidance_interval`, if it is given.
pub(super) fn write(interval: Option<[f64; 2]>, writer: &mut Writer) {
    writer.key_if(KEY, interval.map(|interval| interval.to_vec()));
}
