//! Classes, as they are requested and as a model numbers them.

use std::fmt;
use std::path::Path;

/// A class, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Its id, counted from 0.
    Id(usize),
    /// Its name.
    Name(String),
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "class {id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The classes that a task requests, to be looked up in the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassRequest<'a> {
    /// The class of each group of images.
    pub classes: &'a [Class],
    /// The file with the names of the classes, if one is given.
    pub class_names: Option<&'a Path>,
    /// The null class, if it is given.
    pub null_class: Option<usize>,
    /// The guidance scale; above 1 the null class is needed.
    pub guidance_scale: f64,
}

/// Classes as the model numbers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The id of each group of images.
    pub ids: Vec<i64>,
    /// The null class, for guidance.
    pub null: i64,
}
