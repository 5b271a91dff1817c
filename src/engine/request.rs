//! Requests to an open pipeline.

use toml::{Table, Value};

use crate::error::{Error, Problem, Result};
use crate::keys::{Entries, Node, Origin, Value as KeyValue};
use crate::spec::{is_task_field, node, put, sort_fields};
use crate::task::{InputImage, Task};

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
    fields: Entries,
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

    /// Redraws an image, a path or one in memory, after a prompt; `strength` in (0, 1] is set by [`Request::strength`].
    pub fn image_to_image(image: impl Into<InputImage>, prompt: impl Into<String>) -> Self {
        Self::task("image-to-image").image("image", image).set("prompt", prompt.into())
    }

    /// Redraws the white part of a mask.
    pub fn inpaint(image: impl Into<InputImage>, mask: impl Into<InputImage>, prompt: impl Into<String>) -> Self {
        Self::task("inpaint").image("image", image).image("mask", mask).set("prompt", prompt.into())
    }

    /// Chooses a task by its name in pipeline.toml, such as `instruct`; its other keys are set by [`Request::set`] and
    /// [`Request::image`]. Keys that the file's task and this one share keep the file's values.
    pub fn task(name: &str) -> Self {
        let mut request = Self::default();
        put(&mut request.fields, &["task", name], node(&Value::Table(Table::new())));
        request
    }

    /// Reads a request from JSON: the tables of a pipeline file without `[model]`, `[device]`, `[output]` and `[[stage]]`,
    /// or the flat fields `prompt`, `negative_prompt`, `seed`, `steps`, `guidance_scale`, `width`, `height`, `images`,
    /// `strength`, `image`, `mask`, `scheduler`, `loras`, `preview`. Both may be mixed. Where no task is named and the
    /// pipeline's own takes no image, `image` means image-to-image and `mask` with it inpainting. An image is a path or
    /// `data:image/png;base64,…`.
    ///
    /// # Errors
    /// [`Error::Input`] if the text is not a JSON object or holds `null`.
    pub fn from_json(text: &str) -> Result<Self> {
        let invalid =
            |problem: String| Error::input("request", problem, "write a JSON object such as {\"prompt\": \"…\"}");
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if let Some(problem) = unreadable(&value) {
            return Err(invalid(problem));
        }
        match Value::try_from(value) {
            Ok(Value::Table(fields)) => Ok(Self::of_fields(&fields)),
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
        Ok(Self::of_fields(&text.parse().map_err(problem)?))
    }

    fn of_fields(fields: &Table) -> Self {
        let fields = fields.iter().map(|(name, value)| (name.clone(), node(value))).collect();
        Self { fields, ..Self::default() }
    }

    /// Sets the prompt.
    pub fn prompt(self, prompt: impl Into<String>) -> Self {
        self.set("prompt", prompt.into())
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
    pub fn scheduler(mut self, name: impl Into<String>) -> Self {
        let chosen = Table::from_iter([(name.into(), Value::Table(Table::new()))]);
        self.fields.insert("scheduler".to_owned(), node(&Value::Table(chosen)));
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

    /// Sets any key, such as `run.tile` or `scheduler.ddim.eta`. A key without a dot is a flat field; a number is the place
    /// of a table in an array, as in `control.0.scale`.
    pub fn set(self, key: &str, value: impl Into<Value>) -> Self {
        self.put(key, node(&value.into()))
    }

    /// Sets an image by its key, such as `image`, `mask` or `control.0.image`: a path, which is relative to the current
    /// directory, or pixels in memory ([`Rgb8`](crate::image::Rgb8)), of which the record says that they were given so.
    pub fn image(self, key: &str, image: impl Into<InputImage>) -> Self {
        let value = match image.into() {
            InputImage::Pixels(pixels) => KeyValue::Pixels(pixels),
            InputImage::File(path) => KeyValue::String(path.to_string_lossy().into_owned()),
            // The output of the stage before is what a stage begins with when nothing is set.
            InputImage::StageOutput => return self,
        };
        self.put(key, Node { origin: Origin::Request, value })
    }

    fn put(mut self, key: &str, value: Node) -> Self {
        let task = match self.fields.get("task").map(|node| &node.value) {
            Some(KeyValue::Table(task)) => task.keys().next().cloned(),
            _ => None,
        };
        let path: Vec<&str> = match &task {
            Some(task) if is_task_field(key) => vec!["task", task, key],
            _ => key.split('.').collect(),
        };
        put(&mut self.fields, &path, value);
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

    pub(super) fn tables(&self, own: &dyn Task) -> Result<Entries> {
        sort_fields(self.fields.clone(), own)
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
}

/// The first field of a request that TOML cannot hold, and the reason.
fn unreadable(value: &serde_json::Value) -> Option<String> {
    use serde_json::Value as Json;
    let of = |(name, value): (String, &Json)| match value {
        Json::Null => Some(format!("{name}: null is not a value; leave it out for the pipeline's own")),
        Json::Number(number) if number.is_u64() && !number.is_i64() => {
            Some(format!("{name}: expected at most {}, found {number}", i64::MAX))
        }
        other => unreadable(other).map(|inner| format!("{name}.{inner}")),
    };
    match value {
        Json::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).find_map(of),
        Json::Array(items) => items.iter().enumerate().map(|(at, item)| (at.to_string(), item)).find_map(of),
        _ => None,
    }
}
