//! Tasks: what a pipeline file's `[task.NAME]` makes, what it needs of a model directory, and how a run of it starts.
//!
//! A task is one file here and one row of [`TASKS`]. The file holds the keys of its table (a struct that is read and
//! written), what it requires of a model, the sample keys of `ldm-ort init`, its defaults, and its start. Everything else
//! asks a [`Task`] or its [`TaskEntry`], and no other file decides by the name of a task.

mod class_conditional;
mod classes;
mod conditional;
mod conditions;
mod context;
mod contract;
mod evidence;
mod fit;
mod guidance_interval;
mod image_to_image;
mod inpaint;
mod input_image;
mod instruct;
mod prompt;
mod prompt_reading;
mod prompt_texts;
mod prompting;
mod sample_keys;
mod sizes;
mod strength;
mod super_resolution;
mod text_to_image;
mod unconditional;

pub use class_conditional::ClassConditional;
pub use classes::{Class, ClassRequest, Classes};
pub use conditional::Conditional;
pub use conditions::{PreparedCondition, check_condition, check_labels, things};
pub(crate) use context::rows;
pub use context::{InputRequirements, Paste, StageOutput, Start, TaskContext, TaskModel};
pub use contract::{Task, TaskEntry, TaskValue};
pub use fit::task_fits;
pub use image_to_image::{ImageOrLatents, ImageToImage};
pub use inpaint::Inpaint;
pub use input_image::InputImage;
pub use instruct::Instruct;
pub use prompt::{texts, unused_negative_prompt};
pub use prompt_reading::{LongPrompts, PromptReading, PromptWeighting};
pub(crate) use prompting::{LATER, beside_another};
pub use prompting::{LaterPrompts, Prompting};
pub(crate) use sample_keys::SampleKeys;
pub use sizes::SizeConditioning;
pub use strength::Rounding;
pub use super_resolution::SuperResolution;
pub use text_to_image::TextToImage;
pub use unconditional::Unconditional;

/// The tasks, the most general first.
pub static TASKS: &[&TaskEntry] = &[
    &text_to_image::ENTRY,
    &image_to_image::ENTRY,
    &inpaint::ENTRY,
    &instruct::ENTRY,
    &super_resolution::ENTRY,
    &class_conditional::ENTRY,
    &conditional::ENTRY,
    &unconditional::ENTRY,
];

/// The row of the task with this name.
pub fn find(name: &str) -> Option<&'static TaskEntry> {
    TASKS.iter().find(|entry| entry.name == name).copied()
}
