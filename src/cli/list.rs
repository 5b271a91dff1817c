//! `ldm-ort list`.

use std::io::Write;

use clap::CommandFactory;
use serde_json::{Value, json};

use super::args::{Cli, ListArgs, Listing};
use super::keys::{KEYS, json_schema};
use super::output;
use super::provider_list::{providers, providers_json};
use super::table::{LIST_WIDTH, heading, listed, wrapped};
use crate::aliases::{ALIASES, Alias};
use crate::error::Result;
use crate::family::Family;
use crate::scheduler::{self, AliasValue};
use crate::session::Runtime;
use crate::task::TASKS;

/// Prints the table of schedulers, tasks, providers or aliases. `load` loads ONNX Runtime, which alone knows its build; it
/// is called for providers only, and if it fails the list says why none can be used.
///
/// # Errors
///
/// [`Error::Io`](crate::Error::Io) where `out` cannot be written; [`Error::Runtime`](crate::Error::Runtime) where a provider
/// library cannot be registered.
pub fn list(args: &ListArgs, load: impl FnOnce() -> Result<Runtime>, out: &mut dyn Write) -> Result<()> {
    match (args.what, args.json) {
        (Listing::Schedulers, false) => output::text(out, &schedulers()),
        (Listing::Schedulers, true) => output::json(out, &schedulers_json()),
        (Listing::Tasks, false) => output::text(out, &tasks()),
        (Listing::Tasks, true) => output::json(out, &tasks_json()),
        (Listing::Aliases, false) => output::text(out, &aliases()),
        (Listing::Aliases, true) => output::json(out, &aliases_json()),
        (Listing::Families, false) => output::text(out, &families()),
        (Listing::Families, true) => output::json(out, &families_json()),
        (Listing::Keys, false) => output::text(out, &keys()),
        (Listing::Keys, true) => output::text(out, &format!("{}\n", json_schema())),
        (Listing::Commands, false) => output::text(out, &commands()),
        (Listing::Commands, true) => output::json(out, &commands_json()),
        (Listing::Providers, json) => {
            let runtime = load();
            if let Ok(runtime) = &runtime {
                args.provider_library.iter().try_for_each(|path| runtime.register_provider_library(path).map(drop))?;
            }
            if json { output::json(out, &providers_json(&runtime)) } else { output::text(out, &providers(&runtime)) }
        }
    }
}

/// Wraps a text below a table.
fn paragraphs(text: &str) -> String {
    text.lines().flat_map(|line| wrapped(line, LIST_WIDTH)).map(|line| line + "\n").collect()
}

fn schedulers() -> String {
    let mut rows = vec![heading(["name", "class", "calls", "noise", "about"])];
    let mut names = vec![heading(["also called", "is"])];
    let suffix = |(suffix, (key, value)): &(&str, (&str, AliasValue))| format!("{suffix} ({key} = {})", value.value());
    let suffixes: Vec<_> = scheduler::SUFFIXES.iter().map(suffix).collect();
    for entry in scheduler::table() {
        let noise = if entry.stochastic { "yes" } else { "no" };
        let calls = entry.order.to_string();
        rows.push([entry.name.into(), entry.class.into(), calls, noise.into(), entry.about.into()]);
        for alias in entry.aliases {
            let settings = alias.settings.iter().map(|(key, value)| format!("{key} = {}", value.value()));
            let settings: Vec<_> = settings.collect();
            let with = if settings.is_empty() { String::new() } else { format!(" with {}", settings.join(", ")) };
            names.push([alias.name.into(), format!("{}{with}", entry.name)]);
        }
    }
    let below = format!(
        "Names and classes of the first table are known too, in any case and with or without spaces, - and _. After a name \
         may stand {}.",
        suffixes.join(", ")
    );
    format!(
        "{}\ncalls: evaluations of the model in a step. noise: yes if steps draw noise.\n\n{}\n{}",
        listed(&rows),
        listed(&names),
        paragraphs(&below)
    )
}

fn schedulers_json() -> Value {
    let entry = |entry: &scheduler::SchedulerEntry| {
        json!({
            "name": entry.name,
            "class": entry.class,
            "aliases": entry.aliases.iter().map(|alias| alias.name).collect::<Vec<_>>(),
            "order": entry.order,
            "stochastic": entry.stochastic,
            "inverse": entry.inverse,
            "timesteps": entry.custom_schedules.timesteps,
            "sigmas": entry.custom_schedules.sigmas.is_some(),
            "keys": entry.keys.iter().map(|key| key.name).collect::<Vec<_>>(),
            "about": entry.about,
        })
    };
    scheduler::table().iter().map(entry).collect()
}

fn tasks() -> String {
    let mut rows = vec![heading(["name", "about", "keys"])];
    rows.extend(TASKS.iter().map(|entry| [entry.name.into(), entry.about.into(), entry.keys().join(", ")]));
    let below = "original_size and target_size are [width, height], and crop is [left, top], where diffusers has (height, \
                 width) and (top, left).";
    format!("{}\n{}", listed(&rows), paragraphs(below))
}

fn tasks_json() -> Value {
    TASKS.iter().map(|entry| json!({"name": entry.name, "about": entry.about, "keys": entry.keys()})).collect()
}

fn aliases() -> String {
    let mut rows = vec![heading(["kind", "old", "new", "note"])];
    rows.extend(ALIASES.iter().map(|alias| [alias.kind.name(), alias.old, alias.new, alias.note].map(str::to_owned)));
    let below = "NAME is any name, and [] any table of an array. Each key and value is one of a [[stage]] too. The new name is \
                 the one to write; an old one works with a warning, in the record of an image without.";
    format!("{}\n{}", listed(&rows), paragraphs(below))
}

fn aliases_json() -> Value {
    let row =
        |alias: &Alias| json!({"kind": alias.kind.name(), "old": alias.old, "new": alias.new, "note": alias.note});
    ALIASES.iter().map(row).collect()
}

fn families() -> String {
    let mut rows = vec![heading(["name", "title", "tasks"])];
    rows.extend(Family::all().map(|family| [family.name().into(), family.title().into(), family.tasks().join(", ")]));
    listed(&rows)
}

fn families_json() -> Value {
    let row = |family: Family| {
        json!({
            "name": family.name(),
            "title": family.title(),
            "tasks": family.tasks(),
            "classes": family.classes().iter().map(|class| class.name).collect::<Vec<_>>(),
        })
    };
    Family::all().map(row).collect()
}

fn keys() -> String {
    let mut rows = vec![heading(["table", "key", "type", "about"])];
    let cells = KEYS.iter().map(|key| [key.table.into(), key.name.into(), key.value.describe(), key.about.into()]);
    rows.extend(cells.map(|row: [String; 4]| row.map(|cell| cell.replace('`', ""))));
    format!(
        "{}\nThe keys of [task.NAME] that each task takes: ldm-ort list tasks. Those of [scheduler.NAME] and [cache.NAME]: \
         docs/reference/schedulers.md, docs/fewer-evaluations.md.\n",
        listed(&rows)
    )
}

fn commands() -> String {
    let mut rows = vec![heading(["name", "about"])];
    rows.extend(visible_commands());
    listed(&rows)
}

fn commands_json() -> Value {
    visible_commands().into_iter().map(|[name, about]| json!({"name": name, "about": about})).collect()
}

/// Name and summary of each command that help shows.
fn visible_commands() -> Vec<[String; 2]> {
    let root = Cli::command();
    let shown = root.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|c| [c.get_name().to_owned(), c.get_about().map(ToString::to_string).unwrap_or_default()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::session::PROVIDERS;

    fn print(what: Listing, json: bool) -> String {
        let load = || Err(Error::runtime("no library was found", "install one"));
        let mut out = Vec::new();
        list(&ListArgs { what, json, markdown: false, provider_library: Vec::new() }, load, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_row_of_the_tables_is_printed() {
        let text = print(Listing::Schedulers, false);
        assert!(
            scheduler::table().iter().all(|entry| text.contains(entry.name) && text.contains(entry.class)),
            "{text}"
        );
        let text = print(Listing::Tasks, false);
        assert!(TASKS.iter().all(|entry| text.contains(entry.name)), "{text}");
        assert!(text.contains("original_size and target_size are [width, height]"), "{text}");
        let text = print(Listing::Aliases, false);
        // A long value may be wrapped between its words.
        let names = ALIASES.iter().flat_map(|alias| [alias.old, alias.new]);
        assert!(names.flat_map(str::split_whitespace).all(|word| text.contains(word)), "{text}");
        let text = print(Listing::Families, false);
        assert!(Family::all().all(|family| text.contains(family.title())), "{text}");
        let text = print(Listing::Keys, false);
        assert!(KEYS.iter().all(|key| text.contains(key.name)), "{text}");
        let text = print(Listing::Commands, false);
        assert!(text.contains("optimize") && !text.contains("compile"), "{text}");
        let text = print(Listing::Providers, false);
        assert!(PROVIDERS.iter().all(|provider| text.contains(provider.name)), "{text}");
    }

    #[test]
    fn the_json_holds_a_row_for_each() {
        let rows = |what| serde_json::from_str::<Vec<Value>>(&print(what, true)).unwrap();
        assert_eq!(rows(Listing::Schedulers).len(), scheduler::table().len());
        assert_eq!(rows(Listing::Tasks).len(), TASKS.len());
        assert_eq!(rows(Listing::Providers).len(), PROVIDERS.len());
        assert_eq!(rows(Listing::Aliases).len(), ALIASES.len());
        assert_eq!(rows(Listing::Families).len(), Family::all().count());
        assert!(rows(Listing::Commands).len() > 5);
    }

    #[test]
    fn without_a_runtime_no_provider_is_usable_and_why_is_told_once() {
        let text = print(Listing::Providers, false);
        assert_eq!(text.matches("no library was found").count(), 1, "{text}");
        let rows: Vec<Value> = serde_json::from_str(&print(Listing::Providers, true)).unwrap();
        assert!(rows.iter().all(|row| row["usable"] == false), "{rows:?}");
    }
}
