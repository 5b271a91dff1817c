//! The old names that a pipeline file uses.

use crate::aliases::Alias;

/// The warnings about old names that a pipeline was read from, one a name.
///
/// They are no part of what the pipeline means: any two are equal.
#[derive(Debug, Clone, Default)]
pub struct OldNames(Vec<(&'static Alias, String)>);

impl PartialEq for OldNames {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl OldNames {
    /// The warnings, such as "`device.prepare` is now `device.optimize`; the old name still works".
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, warning)| warning.as_str())
    }

    /// Adds the warning of an alias, unless there is one.
    pub(crate) fn add(&mut self, alias: &'static Alias, old: &str, new: &str) {
        if !self.0.iter().any(|(known, _)| *known == alias) {
            self.0.push((alias, alias.warning(old, new)));
        }
    }
}
