//! `[cache.NAME]`: answering for the denoiser at some steps, from what it answered at others.

use std::ops::Bound::Included;

use crate::denoise::StepCache;
use crate::denoise::cache::{self, CacheParameterType, CacheParameterValue};
use crate::keys::{Table, Writer, integer};

/// Reads `[cache]`; `None` where there is none.
pub(super) fn read(table: Table<'_>) -> Option<StepCache> {
    let names = cache::table().iter().map(|entry| entry.name);
    let find = |name: &str| cache::table().iter().find(|entry| entry.name == name);
    let found = table.named_tables("cache", names, std::iter::empty(), find);
    let mut caches = found.into_iter().map(|(entry, mut table)| {
        let read = StepCache::new(entry, |key| match key.kind {
            CacheParameterType::Number { low, high, .. } => {
                table.number(key.name, Included(low), Included(high)).map(CacheParameterValue::Number)
            }
            CacheParameterType::Integer { low, high, .. } => {
                table.integer(key.name, low, high).map(CacheParameterValue::Integer)
            }
            CacheParameterType::Switch { .. } => {
                table.get(key.name).and_then(|item| item.switch()).map(CacheParameterValue::Switch)
            }
        });
        require_order(&read, &mut table);
        table.finish();
        read
    });
    // All of them are read, so that what is wrong in any of them is told.
    let first = caches.next();
    caches.for_each(drop);
    first
}

/// Requires that a range ends after it begins.
fn require_order(cache: &StepCache, table: &mut Table<'_>) {
    let number = |name: &str| match cache.parameters().find(|(key, _)| *key == name)?.1 {
        CacheParameterValue::Number(value) => Some(value),
        _ => None,
    };
    if let (Some(start), Some(end)) = (number("start"), number("end"))
        && start >= end
    {
        table.report_at("end", format!("expected more than start = {start}, found {end}"));
    }
}

pub(super) fn write(cache: &StepCache, writer: &mut Writer) {
    writer.table(&["cache", cache.entry().name]);
    for (name, value) in cache.parameters() {
        match value {
            CacheParameterValue::Number(value) => writer.key(name, value),
            CacheParameterValue::Integer(value) => writer.key(name, integer(value)),
            CacheParameterValue::Switch(value) => writer.key(name, value),
        }
    }
}
