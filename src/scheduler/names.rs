//! Finding schedulers by their names: this crate's, diffusers' classes, and those of other programs.

use super::alias::{AliasValue, SUFFIXES};
use super::config::nearest;
use super::entry::SchedulerEntry;
use super::table::table;

/// Finds a scheduler by name, class (with or without `Scheduler` at its end) or alias. Case, spaces, `-` and `_` do not
/// matter.
pub fn find(name: &str) -> Option<&'static SchedulerEntry> {
    find_alias(name).map(|(entry, _)| entry)
}

/// Finds a scheduler like [`find`] and returns the keys that the name implies, such as `use_karras_sigmas` for
/// `DPM++ 2M Karras`.
///
/// A name may end in one of [`SUFFIXES`] if the class has the key.
pub fn find_alias(name: &str) -> Option<(&'static SchedulerEntry, Vec<(&'static str, AliasValue)>)> {
    let wanted = plain(name);
    let exact = |wanted: &str| {
        let direct = table().iter().find(|entry| {
            let class = plain(entry.class);
            plain(entry.name) == wanted || class == wanted || class.strip_suffix("scheduler") == Some(wanted)
        });
        if let Some(entry) = direct {
            return Some((entry, Vec::new()));
        }
        table().iter().find_map(|entry| {
            let alias = entry.aliases.iter().find(|alias| plain(alias.name) == wanted)?;
            Some((entry, alias.settings.to_vec()))
        })
    };
    exact(&wanted).or_else(|| {
        SUFFIXES.iter().find_map(|(suffix, setting)| {
            let (entry, mut settings) = exact(wanted.strip_suffix(&plain(suffix))?)?;
            settings.push(*setting);
            entry.has_key(setting.0).then_some((entry, settings))
        })
    })
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// Suggests at most three names similar to an unknown one; may be empty.
pub fn suggest(name: &str) -> Vec<&'static str> {
    let names = table()
        .iter()
        .flat_map(|entry| [entry.name, entry.class].into_iter().chain(entry.aliases.iter().map(|alias| alias.name)));
    nearest(name, names)
}
