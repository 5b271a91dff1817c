//! Requests to an open pipeline.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::error::{Error, Problem, Result};
use crate::spec::{is_task_field, merge_toml, sort_fields};

/// The changes to an open pipeline's own request: a cheap value that names only what differs.
///
/// Everything has a default: an absent field has the value in the pipeline's file, and what the file leaves open has
/// diffusers' default for the model. Fields are checked by [`Pipeline::check`](super::Pipeline::check) and when the request
/// runs; neither reads the model directory again.
///
/// ```
/// use ldm_ort::Request;
///
/// let request = Request::text_to_image("a lighthouse in the fog").seed(7).steps(20).size(512, 512);
/// let same = Request::from_json(
///     r#"{"task": {"text-to-image": {"prompt": "a lighthouse in the fog"}}, "seed": 7, "steps": 20, "width": 512, "height": 512}"#,
/// )?;
/// assert_eq!(request, same);
/// # Ok::<(), ldm_ort::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Request {
    fields: Table,
    all_evaluations: bool,
    only: Option<usize>,
}

impl Request {
    /// Makes the request that the pipeline's file describes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an image for a prompt.
    pub fn text_to_image(prompt: impl Into<String>) -> Self {
        Self::task("text-to-image").set("prompt", prompt.into())
    }

    /// Redraws an image after a prompt; `strength` in (0, 1] is set by [`Request::strength`].
    pub fn image_to_image(image: impl AsRef<Path>, prompt: impl Into<String>) -> Self {
        Self::task("image-to-image").path("image", image).set("prompt", prompt.into())
    }

    /// Redraws the white part of a mask.
    pub fn inpaint(image: impl AsRef<Path>, mask: impl AsRef<Path>, prompt: impl Into<String>) -> Self {
        Self::task("inpaint").path("image", image).path("mask", mask).set("prompt", prompt.into())
    }

    /// Chooses a task by its name in pipeline.toml. Keys that the file's task and this one share keep the file's values.
    pub fn task(name: &str) -> Self {
        let mut request = Self::default();
        merge_toml(&mut request.fields, &["task", name], Value::Table(Table::new()));
        request
    }

    /// Reads a request from JSON: the tables of a pipeline file without `[model]`, `[device]`, `[output]` and `[[stage]]`,
    /// or the flat fields `prompt`, `negative_prompt`, `seed`, `steps`, `guidance_scale`, `width`, `height`, `images`,
    /// `strength`, `image`, `mask`, `scheduler`, `loras`, `preview`. Both may be mixed.
    ///
    /// # Errors
    /// [`Error::Input`] if the text is not a JSON object or holds `null`.
    pub fn from_json(text: &str) -> Result<Self> {
        let invalid =
            |problem: String| Error::input("request", problem, "write a JSON object such as {\"prompt\": \"…\"}");
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        match Value::try_from(value) {
            Ok(Value::Table(fields)) => Ok(Self { fields, ..Self::default() }),
            Ok(other) => Err(invalid(format!("expected a JSON object, found {}", other.type_str()))),
            Err(error) => Err(invalid(error.to_string())),
        }
    }

    /// Reads a request from TOML, with the same keys as [`Request::from_json`].
    ///
    /// # Errors
    /// [`Error::Spec`] if the text is not TOML.
    pub fn from_toml(text: &str) -> Result<Self> {
        let problem = |error: toml::de::Error| {
            let message = error.message().to_owned();
            Error::Spec(vec![Problem { file: None, line: None, key: "request".to_owned(), message }])
        };
        Ok(Self { fields: text.parse().map_err(problem)?, ..Self::default() })
    }

    /// Sets the prompts, one group of images for each.
    pub fn prompts<T: Into<String>>(self, prompts: impl IntoIterator<Item = T>) -> Self {
        let prompts: Vec<Value> = prompts.into_iter().map(|prompt| Value::String(prompt.into())).collect();
        self.set("prompt", prompts)
    }

    /// Sets the text describing what the images should not show.
    pub fn negative_prompt(self, prompt: impl Into<String>) -> Self {
        self.set("negative_prompt", prompt.into())
    }

    /// Sets the scale of classifier-free guidance; 1 is none.
    pub fn guidance_scale(self, scale: f64) -> Self {
        self.set("guidance_scale", scale)
    }

    /// Sets the share of the schedule that an image-to-image or inpainting run denoises, in (0, 1].
    pub fn strength(self, strength: f64) -> Self {
        self.set("strength", strength)
    }

    /// Sets the seed of the first image; image `i` is drawn from `seed + i`.
    pub fn seed(self, seed: u64) -> Self {
        // A seed beyond i64 is refused when the request is checked, under its own digits.
        self.set("seed", i64::try_from(seed).map_or_else(|_| Value::String(seed.to_string()), Value::Integer))
    }

    /// Sets the number of scheduler steps.
    pub fn steps(self, steps: usize) -> Self {
        self.count("steps", steps)
    }

    /// Sets the number of images for each prompt.
    pub fn images(self, images: usize) -> Self {
        self.count("images", images)
    }

    /// Sets the images' width and height in pixels.
    pub fn size(self, width: usize, height: usize) -> Self {
        self.count("width", width).count("height", height)
    }

    /// Chooses a scheduler by its name in pipeline.toml, such as `euler`, with the model's configuration.
    pub fn scheduler(mut self, name: impl AsRef<str>) -> Self {
        let chosen = Table::from_iter([(name.as_ref().to_owned(), Value::Table(Table::new()))]);
        self.fields.insert("scheduler".to_owned(), Value::Table(chosen));
        self
    }

    /// Sets the scales of the pipeline's LoRAs, in the order of its file.
    pub fn lora_scales(self, scales: impl IntoIterator<Item = f64>) -> Self {
        let scales: Vec<Value> = scales.into_iter().map(Value::Float).collect();
        self.set("loras", scales)
    }

    /// Asks for a preview every so many steps.
    pub fn preview(self, every: usize) -> Self {
        self.count("preview", every)
    }

    /// Sets any key, such as `run.tiles` or `scheduler.ddim.eta`. A key without a dot is a flat field.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        let own_task = self.fields.get("task").and_then(Value::as_table).and_then(|task| task.keys().next().cloned());
        let path: Vec<&str> = match &own_task {
            Some(task) if is_task_field(key) => vec!["task", task, key],
            _ => key.split('.').collect(),
        };
        merge_toml(&mut self.fields, &path, value.into());
        self
    }

    /// Evaluates the model at every step with every branch of guidance, whatever the file says of caches and intervals.
    pub fn all_evaluations(self) -> Self {
        Self { all_evaluations: true, ..self }
    }

    /// Makes only one image of the request, by its index.
    pub fn only(self, index: usize) -> Self {
        Self { only: Some(index), ..self }
    }

    pub(super) fn tables(&self, task_name: &str) -> Result<Table> {
        sort_fields(self.fields.clone(), task_name)
    }

    pub(super) fn wants_all_evaluations(&self) -> bool {
        self.all_evaluations
    }

    pub(super) fn only_index(&self) -> Option<usize> {
        self.only
    }

    fn count(self, key: &str, count: usize) -> Self {
        self.set(key, i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Sets a path, which is relative to the current directory.
    fn path(self, key: &str, path: impl AsRef<Path>) -> Self {
        let path: PathBuf = path.as_ref().into();
        self.set(key, path.to_string_lossy().into_owned())
    }
}
