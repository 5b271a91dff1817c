//! `[task.class-conditional]`: an image of a class.

use std::ops::Bound::{Included, Unbounded};
use std::path::{Path, PathBuf};

use ndarray::Array1;

use super::classes::{Class, ClassRequest};
use super::context::{Start, TaskContext, TaskModel};
use super::contract::{Task, TaskEntry};
use super::evidence::ModelEvidence;
use super::guidance_interval;
use crate::bundle::Role;
use crate::denoise::{Condition, Guidance};
use crate::error::{Error, Result};
use crate::family::Defaults;
use crate::keys::{Item, Table, Value, Writer, integer};
use crate::tensor::Tensor;

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
    /// `guidance_interval = [0.2, 0.8]`: the shares of the run between which guidance is applied, as in
    /// [`Prompting::guidance_interval`](super::Prompting::guidance_interval).
    pub guidance_interval: Option<[f64; 2]>,
    /// `null_class`: the class for the unconditional branch, if the model directory does not state it.
    pub null_class: Option<usize>,
}

pub(super) static ENTRY: TaskEntry = TaskEntry {
    name: "class-conditional",
    about: "An image of a class.",
    read: |table| Box::new(ClassConditional::read(table)),
    fit,
    sample: |_| {
        vec![
            "class = 0    # an id, a name, or a list of them".to_owned(),
            "# guidance_scale = 3.0    # where the model knows a null class".to_owned(),
        ]
    },
    own_models: None,
    defaults: Defaults::PLAIN,
};

fn fit(model: &ModelEvidence) -> Result<(), String> {
    model.require_plain()?;
    match (model.has_context, model.embeds_classes, model.has_classes) {
        (true, true, _) | (false, _, true) => model.decoder.clone(),
        (true, false, _) => Err("the denoiser wants text".to_owned()),
        (false, _, false) => Err("the denoiser takes no class".to_owned()),
    }
}

/// The largest class id.
const LAST: u64 = 1_000_000;

impl ClassConditional {
    fn read(table: &mut Table<'_>) -> Self {
        table.require("class", "an id, a name, or an array of them");
        let classes = table.get("class").map(|item| item.one_or_more("an id, a name, or an array of them"));
        Self {
            classes: classes.unwrap_or_default().iter().filter_map(class).collect(),
            class_names: table.file_path("class_names"),
            guidance_scale: table.number("guidance_scale", Included(0.0), Unbounded).unwrap_or(1.0),
            guidance_interval: guidance_interval::read(table),
            null_class: table.integer("null_class", 0, LAST as usize),
        }
    }
}

fn class(item: &Item<'_>) -> Option<Class> {
    match item.value() {
        Value::String(name) => Some(Class::Name(name.clone())),
        _ => item.integer(0, LAST).map(|id| Class::Id(id as usize)),
    }
}

impl Task for ClassConditional {
    fn entry(&self) -> Option<&'static TaskEntry> {
        Some(&ENTRY)
    }

    fn write(&self, writer: &mut Writer) {
        let value = |class: &Class| match class {
            Class::Id(id) => integer(*id),
            Class::Name(name) => toml::Value::from(name.clone()),
        };
        writer.key("class", toml::Value::Array(self.classes.iter().map(value).collect()));
        if let Some(path) = &self.class_names {
            writer.path("class_names", path);
        }
        writer.key("guidance_scale", self.guidance_scale);
        guidance_interval::write(self.guidance_interval, writer);
        writer.key_if("null_class", self.null_class.map(integer));
    }

    fn classes(&self) -> Option<ClassRequest<'_>> {
        let Self { classes, class_names, null_class, guidance_scale, .. } = self;
        Some(ClassRequest {
            classes,
            class_names: class_names.as_deref(),
            null_class: *null_class,
            guidance_scale: *guidance_scale,
        })
    }

    fn groups(&self) -> usize {
        self.classes.len()
    }

    fn keep_only(&mut self, index: usize) {
        self.classes = self.classes.get(index).cloned().into_iter().collect();
    }

    fn labels(&self) -> Vec<String> {
        self.classes.iter().map(ToString::to_string).collect()
    }

    fn guidance_scale(&self, _model: &TaskModel) -> f64 {
        self.guidance_scale
    }

    fn guidance_interval(&self) -> Option<[f64; 2]> {
        self.guidance_interval
    }

    fn set_guidance_interval(&mut self, interval: Option<[f64; 2]>) {
        self.guidance_interval = interval;
    }

    fn tells_class(&self) -> bool {
        true
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.class_names.iter().map(|path| ("class_names", path.as_path())).collect()
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> Result<Start> {
        let guidance = Guidance::classifier_free(self.guidance_scale, 0.0);
        let Some(classes) = &stage.model.classes else {
            return Err(Error::input("task.class-conditional", "this model takes no class", "choose another task"));
        };
        let mut ids = Vec::new();
        for branch in guidance.branches() {
            for &group in stage.prompts {
                let id = if branch.prompt { classes.ids.get(group).copied() } else { None };
                ids.push(id.unwrap_or(classes.null));
            }
        }
        let told = match stage.class_embedder.as_deref_mut() {
            Some(embedder) => {
                let ids = Tensor::I64(Array1::from(ids).into_dyn());
                Condition::of(Role::Context, embedder.run(&ids, stage.cancel)?)
            }
            None => {
                let labels = ids.iter().map(|&id| id as f32).collect::<Array1<f32>>();
                Condition::of(Role::ClassLabels, labels.into_dyn())
            }
        };
        Ok(Start::from_noise(stage.noise_start()?, told, guidance))
    }
}
