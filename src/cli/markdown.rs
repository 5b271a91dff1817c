//! The pages of docs/reference, made from the tables that `ldm-ort list` prints.

use clap::CommandFactory;

use super::args::{Cli, Listing};
use super::keys::KEYS;
use crate::aliases::ALIASES;
use crate::family::Family;
use crate::scheduler::{self, AliasValue, SchedulerKey, SchedulerKeyKind};
use crate::session::PROVIDERS;
use crate::task::TASKS;

/// Makes the page of a table.
pub(super) fn page(what: Listing) -> String {
    let (title, name, body) = match what {
        Listing::Schedulers => ("Schedulers", "schedulers", schedulers()),
        Listing::Tasks => ("Tasks", "tasks", tasks()),
        Listing::Providers => ("Execution providers", "providers", providers()),
        Listing::Families => ("Model families", "families", families()),
        Listing::Keys => ("Keys of pipeline.toml", "keys", keys()),
        Listing::Commands => ("Command line", "commands", commands()),
        Listing::Aliases => ("Old names", "aliases", aliases()),
    };
    format!("<!-- Made by `ldm-ort list {name} --markdown`. -->\n\n# {title}\n\n{body}")
}

/// A table with these headings.
fn table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(headings.map(str::to_owned).to_vec());
    text += &line(vec!["---".into(); N]);
    rows.into_iter().for_each(|row| text += &line(row.map(|cell| cell.replace('|', "\\|")).to_vec()));
    text
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn codes<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().map(code).collect::<Vec<_>>().join(", ")
}

fn schedulers() -> String {
    let entries = scheduler::table();
    let yes = |is: bool| if is { "yes" } else { "" }.to_owned();
    let rows = entries.iter().map(|entry| {
        let lists =
            [("timesteps", entry.custom_schedules.timesteps), ("sigmas", entry.custom_schedules.sigmas.is_some())];
        let lists = codes(lists.iter().filter(|(_, takes)| *takes).map(|(name, _)| *name));
        [code(entry.name), code(entry.class), entry.order.to_string(), yes(entry.stochastic), lists, entry.about.into()]
    });
    let mut text = format!(
        "A scheduler is `[scheduler.NAME]` or `--scheduler NAME`. Keys and defaults are those of diffusers' class.\n\n{}",
        table(["name", "class", "evaluations per step", "draws noise", "custom lists", "about"], rows)
    );
    let names =
        entries.iter().flat_map(|entry| entry.aliases.iter().map(move |alias| (entry, alias))).map(|(entry, alias)| {
            let settings = alias.settings.iter().map(|(key, value)| format!("{key} = {}", value.value()));
            let settings: Vec<_> = settings.collect();
            [code(alias.name), code(entry.name), codes(settings.iter().map(String::as_str))]
        });
    text += "\n## Names in other programs\n\nCase, spaces, `-` and `_` do not matter. Class names work too.\n\n";
    text += &table(["name", "scheduler", "sets"], names);
    let suffix = |(suffix, (key, value)): &(&str, (&str, AliasValue))| {
        [code(suffix), code(&format!("{key} = {}", value.value()))]
    };
    text += "\nA name may end in one of these words, as in `Euler Karras`.\n\n";
    text += &table(["ending", "sets"], scheduler::SUFFIXES.iter().map(suffix));
    for entry in entries {
        text += &format!("\n## {}\n\n", entry.name);
        text += &table(["key", "default", "values"], entry.keys.iter().map(scheduler_key));
    }
    text
}

fn scheduler_key(key: &SchedulerKey) -> [String; 3] {
    let number = |value: f64| code(&format!("{value:?}"));
    let words = |words: &[&str]| codes(words.iter().copied());
    let (default, values) = match key.kind {
        SchedulerKeyKind::Count(default) => (code(&default.to_string()), "integer".into()),
        SchedulerKeyKind::Order { default, max, .. } => (code(&default.to_string()), format!("integer, 1 to {max}")),
        SchedulerKeyKind::Integer(default) => (code(&default.to_string()), "integer".into()),
        SchedulerKeyKind::MaybeInteger => (String::new(), "integer".into()),
        SchedulerKeyKind::Float(default) => (number(default), "number".into()),
        SchedulerKeyKind::MaybeFloat => (String::new(), "number".into()),
        SchedulerKeyKind::MaybeFloats => (String::new(), "array of numbers".into()),
        SchedulerKeyKind::Switch(default) => (code(&default.to_string()), "boolean".into()),
        SchedulerKeyKind::MaybeSwitch => (String::new(), "boolean".into()),
        SchedulerKeyKind::Choice { default, valid, .. } => (code(default), words(valid)),
        SchedulerKeyKind::MaybeChoice { valid, .. } => (String::new(), words(valid)),
        SchedulerKeyKind::MaybeScheduler => (String::new(), "table with `_class_name`".into()),
    };
    [code(key.name), default, values]
}

fn tasks() -> String {
    let rows = TASKS.iter().map(|entry| {
        let keys = entry.keys();
        [code(entry.name), entry.about.into(), codes(keys.iter().map(String::as_str))]
    });
    format!(
        "A pipeline has exactly one `[task.NAME]`. The types of the keys: [pipeline-keys.md](pipeline-keys.md).\n\n{}\n\
         `original_size` and `target_size` are `[width, height]`, and `crop` is `[left, top]`, where diffusers has (height, \
         width) and (top, left).\n",
        table(["task", "about", "keys"], rows)
    )
}

fn providers() -> String {
    let rows = PROVIDERS.iter().map(|provider| {
        let systems = if provider.systems.is_empty() { "all".into() } else { provider.systems.join(", ") };
        let name = [code(provider.name), codes(provider.aliases.iter().copied())];
        let [name, aliases] = name;
        [name, aliases, code(provider.ort_name), systems, provider.about.into(), provider.obtain.into()]
    });
    format!(
        "Names for `[device] provider` and `--provider`. `ldm-ort list providers` tells which can be used on a machine.\n\n{}",
        table(["name", "other names", "ONNX Runtime's name", "systems", "about", "how to get it"], rows)
    )
}

fn families() -> String {
    let rows = Family::all().map(|family| {
        let classes = family.classes().iter().map(|class| class.name);
        [code(family.name()), family.title().into(), codes(family.tasks()), codes(classes)]
    });
    format!(
        "A model's family follows from the class in its model_index.json, or else from its graphs. `[model] family = \"NAME\"` \
         sets it.\n\n{}",
        table(["name", "models", "tasks of its classes", "diffusers' classes"], rows)
    )
}

fn keys() -> String {
    let mut text = "Which keys each task takes: [tasks.md](tasks.md). The keys of `[scheduler.NAME]`: \
                    [schedulers.md](schedulers.md); of `[cache.NAME]`: [fewer evaluations](../fewer-evaluations.md). A \
                    `[[stage]]` has tables of the same names. Editors read [pipeline.schema.json](pipeline.schema.json).\n"
        .to_owned();
    let mut tables: Vec<&str> = KEYS.iter().map(|key| key.table).collect();
    tables.dedup();
    for name in tables {
        let heading = name.strip_suffix("[]").map_or(format!("[{name}]"), |name| format!("[[{name}]]"));
        let rows = KEYS.iter().filter(|key| key.table == name);
        let rows = rows.map(|key| [code(key.name), key.value.describe(), key.about.into()]);
        text += &format!("\n## `{heading}`\n\n{}", table(["key", "type", "about"], rows));
    }
    text
}

fn aliases() -> String {
    let rows =
        ALIASES.iter().map(|alias| [alias.kind.name().into(), code(alias.old), code(alias.new), alias.note.into()]);
    format!(
        "Old names work, with a warning except in the record of an image. `NAME` is any name, and `[]` any table of an array. \
         Keys and values are those of a `[[stage]]`, too.\n\n{}",
        table(["kind", "old", "new", "note"], rows)
    )
}

/// The help of every command, without the options that all share.
fn commands() -> String {
    let plain = Cli::command().term_width(100).styles(clap::builder::Styles::plain());
    let mut text = format!("```text\n{}```\n", trimmed(plain.clone().render_long_help()));
    let mut root = plain.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
    root.build();
    add_commands(&mut root, "ldm-ort", &mut text);
    text
}

fn add_commands(command: &mut clap::Command, name: &str, text: &mut String) {
    for child in command.get_subcommands_mut() {
        if child.is_hide_set() || child.get_name() == "help" {
            continue;
        }
        let name = format!("{name} {}", child.get_name());
        *text += &format!("\n## {name}\n\n```text\n{}```\n", trimmed(child.render_long_help()));
        add_commands(child, &name, text);
    }
}

/// Help without spaces at the end of lines.
fn trimmed(help: clap::builder::StyledStr) -> String {
    help.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
