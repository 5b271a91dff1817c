//! `[task.NAME]`: what is to be made.
//!
//! A task is one file here, with a struct whose fields are the table's keys, one variant of [`TaskSpec`] and one row of
//! [`TASKS`].

mod class_conditional;
mod conditional;
mod image_to_image;
mod inpaint;
mod input_image;
mod instruct;
mod interval;
mod prompting;
mod reading;
mod sizes;
mod super_resolution;
mod text_to_image;

pub use class_conditional::{Class, ClassConditional};
pub use conditional::Conditional;
pub use image_to_image::{ImageOrLatents, ImageToImage};
pub use inpaint::Inpaint;
pub use input_image::InputImage;
pub use instruct::Instruct;
pub(super) use prompting::{LATER, beside_another};
pub use prompting::{LaterPrompts, Prompting};
pub use reading::{LongPrompts, PromptReading, Weights};
pub use sizes::Sizes;
pub use super_resolution::SuperResolution;
pub use text_to_image::TextToImage;

use std::path::Path;

use super::reader::{Reading, Table};
use super::tree::Entries;
use super::writer::Writer;

/// `[task.NAME]`: what is to be made. A pipeline has exactly one task table.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TaskSpec {
    /// `[task.text-to-image]`: a prompt becomes an image.
    TextToImage(TextToImage),
    /// `[task.image-to-image]`: an image and a prompt become an image like the one and after the other.
    ImageToImage(ImageToImage),
    /// `[task.inpaint]`: a part of an image is drawn anew.
    Inpaint(Inpaint),
    /// `[task.instruct]`: an image is changed as a prompt says.
    Instruct(Instruct),
    /// `[task.super-resolution]`: a small image becomes a large one.
    SuperResolution(SuperResolution),
    /// `[task.class-conditional]`: an image of a class.
    ClassConditional(ClassConditional),
    /// `[task.conditional]`: an image of what the `[[condition]]` tables say.
    Conditional(Conditional),
    /// `[task.unconditional]`: an image of what the model was trained on. The table has no keys.
    Unconditional,
}

/// One row of the table of tasks.
pub struct TaskEntry {
    /// The name in pipeline.toml, such as `text-to-image`.
    pub name: &'static str,
    /// One sentence for `ldm-ort list tasks`.
    pub about: &'static str,
    read: fn(&mut Table<'_>) -> TaskSpec,
}

/// The tasks there are.
pub const TASKS: &[TaskEntry] = &[
    TaskEntry {
        name: "text-to-image",
        about: "A prompt becomes an image.",
        read: |table| TaskSpec::TextToImage(TextToImage::read(table)),
    },
    TaskEntry {
        name: "image-to-image",
        about: "An image is noised in part and denoised after a prompt.",
        read: |table| TaskSpec::ImageToImage(ImageToImage::read(table)),
    },
    TaskEntry {
        name: "inpaint",
        about: "A part of an image is drawn anew.",
        read: |table| TaskSpec::Inpaint(Inpaint::read(table)),
    },
    TaskEntry {
        name: "instruct",
        about: "An image is changed as a prompt says.",
        read: |table| TaskSpec::Instruct(Instruct::read(table)),
    },
    TaskEntry {
        name: "super-resolution",
        about: "A small image becomes a large one.",
        read: |table| TaskSpec::SuperResolution(SuperResolution::read(table)),
    },
    TaskEntry {
        name: "class-conditional",
        about: "An image of a class.",
        read: |table| TaskSpec::ClassConditional(ClassConditional::read(table)),
    },
    TaskEntry {
        name: "conditional",
        about: "An image of what the [[condition]] tables say.",
        read: |table| TaskSpec::Conditional(Conditional::read(table)),
    },
    TaskEntry {
        name: "unconditional",
        about: "An image of what the model was trained on, without a prompt.",
        read: |_| TaskSpec::Unconditional,
    },
];

impl TaskEntry {
    /// The keys of the task's table, those that have to be there first.
    pub fn keys(&self) -> Vec<String> {
        // What reading asks an empty table for is what the table takes.
        let nothing = Entries::new();
        let reading = Reading::new(None);
        let mut table = reading.root(&nothing);
        (self.read)(&mut table);
        table.asked().to_vec()
    }
}

impl TaskSpec {
    /// The task's name in pipeline.toml, such as `text-to-image`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TextToImage(_) => "text-to-image",
            Self::ImageToImage(_) => "image-to-image",
            Self::Inpaint(_) => "inpaint",
            Self::Instruct(_) => "instruct",
            Self::SuperResolution(_) => "super-resolution",
            Self::ClassConditional(_) => "class-conditional",
            Self::Conditional(_) => "conditional",
            Self::Unconditional => "unconditional",
        }
    }

    /// The prompts and their guidance, where the task has them.
    pub fn prompting(&self) -> Option<&Prompting> {
        match self {
            Self::TextToImage(task) => Some(&task.prompting),
            Self::ImageToImage(task) => Some(&task.prompting),
            Self::Inpaint(task) => task.prompting.as_ref(),
            Self::Instruct(task) => Some(&task.prompting),
            Self::SuperResolution(task) => task.prompting.as_ref(),
            Self::ClassConditional(_) | Self::Conditional(_) | Self::Unconditional => None,
        }
    }

    /// As [`TaskSpec::prompting`], to change them.
    pub fn prompting_mut(&mut self) -> Option<&mut Prompting> {
        match self {
            Self::TextToImage(task) => Some(&mut task.prompting),
            Self::ImageToImage(task) => Some(&mut task.prompting),
            Self::Inpaint(task) => task.prompting.as_mut(),
            Self::Instruct(task) => Some(&mut task.prompting),
            Self::SuperResolution(task) => task.prompting.as_mut(),
            Self::ClassConditional(_) | Self::Conditional(_) | Self::Unconditional => None,
        }
    }

    /// The shares of the run from which and to which guidance is at work, where they are given.
    pub fn guidance_interval(&self) -> Option<[f64; 2]> {
        match self {
            Self::ClassConditional(task) => task.guidance_interval,
            Self::Conditional(task) => task.guidance_interval,
            _ => self.prompting().and_then(|prompting| prompting.guidance_interval),
        }
    }

    /// The same task with guidance at work between these shares of the run, or in all of it.
    pub fn guided_within(mut self, interval: Option<[f64; 2]>) -> Self {
        match &mut self {
            Self::ClassConditional(task) => task.guidance_interval = interval,
            Self::Conditional(task) => task.guidance_interval = interval,
            _ => {
                if let Some(prompting) = self.prompting_mut() {
                    prompting.guidance_interval = interval;
                }
            }
        }
        self
    }

    /// The images that the task starts from, its mask among them, by their keys.
    pub fn images(&self) -> Vec<(&'static str, &InputImage)> {
        match self {
            Self::ImageToImage(task) => match &task.input {
                ImageOrLatents::Image(image) => vec![("image", image)],
                ImageOrLatents::Latents(_) | ImageOrLatents::StageLatents => Vec::new(),
            },
            Self::Inpaint(task) => vec![("image", &task.image), ("mask", &task.mask)],
            Self::Instruct(task) => vec![("image", &task.image)],
            Self::SuperResolution(task) => vec![("image", &task.image)],
            Self::TextToImage(_) | Self::ClassConditional(_) | Self::Conditional(_) | Self::Unconditional => Vec::new(),
        }
    }

    /// The files that the task starts from: key and path.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let images = self.images().into_iter().filter_map(|(key, image)| Some((key, image.file()?)));
        let other: Option<(&'static str, &Path)> = match self {
            Self::ImageToImage(ImageToImage { input: ImageOrLatents::Latents(path), .. }) => Some(("latents", path)),
            Self::ClassConditional(ClassConditional { class_names: Some(path), .. }) => Some(("class_names", path)),
            _ => None,
        };
        images.chain(other).collect()
    }

    /// True if the task starts from the output of the stage before.
    pub fn is_handed(&self) -> bool {
        let is_latents = matches!(self, Self::ImageToImage(ImageToImage { input: ImageOrLatents::StageLatents, .. }));
        is_latents || self.images().iter().any(|(_, image)| **image == InputImage::StageOutput)
    }

    /// How many groups of images the task makes: one a prompt or a class.
    pub fn groups(&self) -> usize {
        match self {
            Self::ClassConditional(task) => task.classes.len(),
            other => other.prompting().map_or(1, |prompting| prompting.prompts.len()),
        }
    }

    /// Leaves one prompt or class of several.
    pub fn keep_only(&mut self, index: usize) {
        if let Some(prompting) = self.prompting_mut() {
            prompting.keep_only(index);
        }
        if let Self::ClassConditional(task) = self {
            task.keep_only(index);
        }
    }

    /// Reads `[task]`; `None` where no task could be made out.
    pub(super) fn read(table: Table<'_>) -> Option<Self> {
        let names = TASKS.iter().map(|entry| entry.name);
        let found = table.named_tables("task", names.clone(), std::iter::empty(), |name| {
            TASKS.iter().find(|entry| entry.name == name)
        });
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
        // All of them are read, so that what is wrong in any of them is told.
        let first = tasks.next();
        tasks.for_each(drop);
        first
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.table(&["task", self.name()]);
        match self {
            Self::TextToImage(task) => task.write(writer),
            Self::ImageToImage(task) => task.write(writer),
            Self::Inpaint(task) => task.write(writer),
            Self::Instruct(task) => task.write(writer),
            Self::SuperResolution(task) => task.write(writer),
            Self::ClassConditional(task) => task.write(writer),
            Self::Conditional(task) => task.write(writer),
            Self::Unconditional => {}
        }
    }
}
