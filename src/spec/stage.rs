//! `[[stage]]`: one more model, which starts from the result of the one before.

use std::path::Path;

use super::output::OutputSpec;
use super::{Spec, StageInput, StageSpec, task};
use crate::keys::{Entries, Node, Origin, Reading, Table, Value, Writer};
use crate::task::{LATER, LongPrompts, PromptWeighting, beside_another, find};

/// The keys besides `prompt` that a stage's task takes from the file's own if it leaves them out.
const OF_PROMPTS: [&str; 3] = ["negative_prompt", "prompt_weighting", "long_prompts"];

/// Writes inherited keys into the stages, before they are read.
pub(super) fn inherit(entries: &mut Entries, reading: &Reading<'_>) {
    let mut from_flags = Vec::new();
    let told: Entries = match tasks(entries).into_iter().next() {
        Some((_, Node { value: Value::Table(keys), .. })) => {
            let is_flag = |key: &&str| keys.get(*key).is_some_and(|node| node.origin.is_command_line());
            from_flags.extend(["prompt", "negative_prompt"].into_iter().filter(is_flag));
            let inherited = |key: &str| Some((key.to_owned(), inherited(keys.get(key)?)));
            ["prompt"].iter().chain(&OF_PROMPTS).filter_map(|key| inherited(key)).collect()
        }
        _ => return,
    };
    let Some(Node { value: Value::Array(stages), .. }) = entries.get_mut("stage") else { return };
    for (at, stage) in stages.iter_mut().enumerate() {
        let Value::Table(stage) = &mut stage.value else { continue };
        let Some(Node { value: Value::Table(tasks), .. }) = stage.get_mut("task") else { continue };
        for (name, task) in tasks {
            let Value::Table(task) = &mut task.value else { continue };
            if !find(name).is_some_and(|entry| entry.keys().iter().any(|key| key == "prompt")) {
                continue;
            }
            let own = task.get("prompt").map(|prompt| prompt.origin);
            let is_list = matches!(told.get("negative_prompt"), Some(Node { value: Value::Array(_), .. }));
            if let (Some(origin), true, None) = (own, is_list, task.get("negative_prompt")) {
                let key = format!("stage[{at}].task.{name}.prompt");
                reading.report(origin, &key, "the negative prompts that go with it would be those of other prompts, a list; give negative_prompt too");
                continue;
            }
            for [prompt, negative] in LATER {
                for (key, of) in [(prompt, "prompt"), (negative, "negative_prompt")] {
                    let own = task.get(key).filter(|own| !own.origin.is_command_line());
                    if let Some(own) = own.filter(|_| from_flags.contains(&of) && !task.contains_key(of)) {
                        reading.report(own.origin, &format!("stage[{at}].task.{name}.{key}"), beside_another(of));
                    }
                }
            }
            for (key, node) in &told {
                task.entry(key.clone()).or_insert_with(|| node.clone());
            }
        }
    }
}

fn tasks(entries: &Entries) -> Vec<(&String, &Node)> {
    match entries.get("task") {
        Some(Node { value: Value::Table(tasks), .. }) => tasks.iter().collect(),
        _ => Vec::new(),
    }
}

fn inherited(node: &Node) -> Node {
    let value = match &node.value {
        Value::Array(items) => Value::Array(items.iter().map(inherited).collect()),
        other => other.clone(),
    };
    Node { origin: Origin::Inherited, value }
}

impl StageSpec {
    /// `base` is what the file's own tables are, where they could be read.
    pub(super) fn read(mut table: Table<'_>, reading: &Reading<'_>, base: Option<&Spec>) -> Option<Self> {
        let input = table.choice("input", "form", &["latents", "image"]).map(|name| match name {
            "latents" => StageInput::Latents,
            _ => StageInput::Image,
        });
        let spec = Spec::read_tables(&mut table, reading);
        if table.has(&["run", "images"]) {
            table.report_below(&["run", "images"], "a stage makes one image of each that it is handed; leave it out");
        }
        let stage = spec.zip(base).map(|(spec, base)| Self { input, spec }.after(base, &table));
        table.finish();
        stage
    }

    /// Fills in what follows from the file's own tables, and requires that the two go together.
    fn after(mut self, base: &Spec, table: &Table<'_>) -> Self {
        let spec = &mut self.spec;
        let task = ["task", spec.task.name()];
        if !spec.task.starts_from_stage() {
            let problem = match spec.task.files().first() {
                Some((key, _)) => format!(
                    "begins with its own {key}, and what was made before it would be lost; leave {key} out, or make it a \
                     pipeline file of its own"
                ),
                None => {
                    "begins with noise, and what was made before it would be lost; choose a task that begins with an \
                         image, such as [stage.task.image-to-image]"
                        .to_owned()
                }
            };
            table.report_below(&task, problem);
        }
        let groups = base.task.groups();
        match spec.task.groups() {
            own if own == groups => spec.run.images = base.run.images,
            1 => spec.run.images = base.run.images * groups,
            own => {
                let problem = format!("expected one prompt, or {groups} as the file's own task has them, found {own}");
                table.report_below(&[task[0], task[1], "prompt"], problem);
            }
        }
        if self.input == Some(StageInput::Latents) {
            if spec.task.accepts_latents() && spec.task.starts_from_stage() {
                spec.task.start_from_stage(true);
            } else {
                let problem = format!("{} starts from an image, not from latents", spec.task.name());
                table.report_below(&["input"], problem);
            }
        }
        if !table.has(&["run", "max_input_megapixels"]) {
            spec.run.max_input_megapixels = base.run.max_input_megapixels;
        }
        if !table.has(&["run", "noise"]) {
            spec.run.noise = base.run.noise;
        }
        if !table.has(&["device"]) {
            spec.device = base.device.clone();
        }
        if !table.has(&["output", "dir"]) {
            spec.output.dir.clone_from(&base.output.dir);
        }
        if !table.has(&["output", "preview"]) {
            spec.output.preview = base.output.preview;
        }
        self
    }

    pub(super) fn write(&self, writer: &mut Writer, base: &Spec) {
        writer.array_of_tables("stage", |writer| {
            writer.key_if("input", self.input.map(StageInput::name));
            self.spec.model.write(writer);
            self.write_task(writer, base);
            self.spec.write_parts(writer);
            let mut same = vec!["images"];
            if self.spec.run.max_input_megapixels == base.run.max_input_megapixels {
                same.push("max_input_megapixels");
            }
            if self.spec.run.noise == base.run.noise {
                same.extend(["noise", "noise_gpu"]);
            }
            writer.leaving_out(same, |writer| self.spec.run.write(writer));
            if self.spec.device != base.device {
                self.spec.device.write(writer);
            }
            let preview = self.spec.output.preview.filter(|_| self.spec.output.preview != base.output.preview);
            OutputSpec { preview, ..self.spec.output.clone() }.write(writer, &base.output.dir);
        });
    }

    /// Writes the task without what it has from the file's own.
    fn write_task(&self, writer: &mut Writer, base: &Spec) {
        let (Some(own), Some(theirs)) = (self.spec.task.prompting(), base.task.prompting()) else {
            return task::write(self.spec.task.as_ref(), writer);
        };
        let mut same = Vec::new();
        if own.prompts == theirs.prompts {
            same.push("prompt");
        }
        if own.negative_prompts == theirs.negative_prompts {
            same.push("negative_prompt");
        }
        writer.leaving_out(same, |writer| task::write(self.spec.task.as_ref(), writer));
        // Reading is written where it is not the usual one; here that has to be said where the file's own is not.
        if own.reading.weights == PromptWeighting::None && theirs.reading.weights != PromptWeighting::None {
            writer.key("prompt_weighting", "none");
        }
        if own.reading.long_prompts == LongPrompts::Cut && theirs.reading.long_prompts != LongPrompts::Cut {
            writer.key("long_prompts", "truncate");
        }
    }

    /// True if the prompts are those of the file's own task.
    pub fn shares_prompts(&self, base: &Spec) -> bool {
        let prompts = |spec: &Spec| spec.task.prompting().map(|prompting| prompting.prompts.clone());
        prompts(&self.spec).is_some_and(|own| Some(own) == prompts(base))
    }
}

impl Spec {
    /// The folder for the images after a number of stages; `None` if only the result of a later stage is saved.
    pub fn folder(&self, stages: usize) -> Option<&Path> {
        let output = match stages.checked_sub(1) {
            None => &self.output,
            Some(at) => &self.stages.get(at)?.spec.output,
        };
        (output.save_intermediate || stages == self.stages.len()).then_some(&output.dir)
    }

    /// Leaves the first `stages` of the stages, and no folder to write to.
    pub fn go_through(&mut self, stages: usize) {
        self.stages.truncate(stages);
        self.output = OutputSpec::default();
        self.stages.iter_mut().for_each(|stage| stage.spec.output = OutputSpec::default());
    }

    /// Leaves what makes one image of a run by itself: its prompt or class, and its seed.
    pub fn keep_only(&mut self, image: usize, seed: u64) {
        for StageSpec { spec, .. } in &mut self.stages {
            let own = spec.run.seed.map(|seed| seed.wrapping_add(image as u64));
            spec.leave(image);
            spec.run.seed = own;
        }
        self.leave(image);
        self.run.seed = Some(seed);
    }

    fn leave(&mut self, image: usize) {
        self.task.keep_only(image / self.run.images.max(1));
        self.run.images = 1;
    }
}
