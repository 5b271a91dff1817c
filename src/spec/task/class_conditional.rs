//! `[task.class-conditional]`: an image of a class.

use std::ops::Bound::{Included, Unbounded};
use std::path::PathBuf;

use super::interval;
use crate::spec::reader::{Item, Table};
use crate::spec::tree::Value;
use crate::spec::writer::{Writer, integer};

/// `[task.class-conditional]`: an image of a class.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassConditional {
    /// `class`, required: an id, a name, or a list of them.
    pub classes: Vec<Class>,
    /// `class_names`: a text file with the name of each class on a line of its own, the first that of class 0. Absent:
    /// the model directory's classes.txt, or `id2label` of its model_index.json.
    pub class_names: Option<PathBuf>,
    /// `guidance_scale = 1.0`: the weight of classifier-free guidance away from the null class, 0 or more; up to 1
    /// there is no guidance.
    pub guidance_scale: f64,
    /// `guidance_interval = [0.2, 0.8]`: the shares of the run from which and to which guidance is at work, as in
    /// [`Prompting::guidance_interval`](super::Prompting::guidance_interval).
    pub guidance_interval: Option<[f64; 2]>,
    /// `null_class`: the class that stands for none, where the model directory does not say which.
    pub null_class: Option<usize>,
}

/// A class, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Its id, counted from 0.
    Id(usize),
    /// Its name.
    Name(String),
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "class {id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

const LAST: u64 = 1_000_000;

impl ClassConditional {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        table.require("class", "an id, a name, or an array of them");
        let classes = table.get("class").map(|item| item.one_or_more("an id, a name, or an array of them"));
        Self {
            classes: classes.unwrap_or_default().iter().filter_map(class).collect(),
            class_names: table.file_path("class_names"),
            guidance_scale: table.number("guidance_scale", Included(0.0), Unbounded).unwrap_or(1.0),
            guidance_interval: interval::read(table),
            null_class: table.integer("null_class", 0, LAST as usize),
        }
    }

    pub(super) fn keep_only(&mut self, index: usize) {
        self.classes = self.classes.get(index).cloned().into_iter().collect();
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let value = |class: &Class| match class {
            Class::Id(id) => integer(*id),
            Class::Name(name) => toml::Value::from(name.clone()),
        };
        writer.key("class", toml::Value::Array(self.classes.iter().map(value).collect()));
        if let Some(path) = &self.class_names {
            writer.path("class_names", path);
        }
        writer.key("guidance_scale", self.guidance_scale);
        writer.key_if(interval::KEY, self.guidance_interval.map(|interval| interval.to_vec()));
        writer.key_if("null_class", self.null_class.map(integer));
    }
}

fn class(item: &Item<'_>) -> Option<Class> {
    match item.value() {
        Value::String(name) => Some(Class::Name(name.clone())),
        _ => item.integer(0, LAST).map(|id| Class::Id(id as usize)),
    }
}
