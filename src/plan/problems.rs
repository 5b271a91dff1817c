//! Several problems of one pipeline.

use crate::error::{Error, Result};

/// The problems found so far, so that all of them are reported at once.
#[derive(Default)]
pub(super) struct Problems(Vec<Error>);

impl Problems {
    /// Returns the value of a result, or notes its error.
    pub(super) fn unless<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    pub(super) fn push(&mut self, error: Error) {
        self.0.push(error);
    }

    /// Returns all problems as one error, if there is any.
    pub(super) fn check(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(self.into_error()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_error(self) -> Error {
        let mut flat = Vec::new();
        for error in self.0 {
            match error {
                Error::Several(errors) => flat.extend(errors),
                one => flat.push(one),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { Error::Several(flat) }
    }
}
