//! `[task.NAME]`: the one task table of a pipeline.

use crate::keys::{Table, Writer};
use crate::task::{TASKS, Task, find};

/// Reads `[task]`; `None` if there is no task in it.
pub(super) fn read(table: Table<'_>) -> Option<Box<dyn Task>> {
    let names = TASKS.iter().map(|entry| entry.name);
    let found = table.named_tables("task", names.clone(), std::iter::empty(), find);
    if !table.holds_anything() {
        let names: Vec<_> = names.collect();
        let within = if table.is_in_stage() { "stage." } else { "" };
        let names = names.join(", ");
        table.report(format!("missing; expected one task table, [{within}task.NAME] with a name of {names}"));
    }
    let mut tasks = found.into_iter().map(|(entry, mut table)| {
        let task = (entry.read)(&mut table);
        table.finish();
        task
    });
    // All of them are read, so that the problems of each are reported.
    let first = tasks.next();
    tasks.for_each(drop);
    first
}

/// Writes the table of a task.
pub(super) fn write(task: &dyn Task, writer: &mut Writer) {
    writer.table(&["task", task.name()]);
    task.write(writer);
}
