//! A pipeline file checked against its model directory: every choice made.
//!
//! [`Plan::new`] joins a [`Spec`] with the [`Bundle`] it names. What comes out holds no option that means "not checked
//! yet": sizes are known and fit the graphs, the scheduler builds, the contract of every graph the task needs is
//! resolved. `ldm-ort check` stops here; [`Pipeline::load`](crate::pipeline::Pipeline::load) goes on.

use std::path::{Path, PathBuf};

use ndarray::ArrayD;

use crate::bundle::{
    Bundle, Component, ComponentKind, DenoiserContract, GraphFile, Overrides, TextEncoderContract, VaeDecoderContract,
    VaeEncoderContract,
};
use crate::error::{Error, Result};
use crate::latent::Scaling;
use crate::npy;
use crate::scheduler::{self, Config, Scheduler};
use crate::session::{ProviderChoice, SessionOptions, find_provider};
use crate::spec::{Device, Spec};
use crate::task::{self, Task};

/// A graph that will be opened, and what its inputs and outputs are for.
#[derive(Debug, Clone)]
pub struct Part<C> {
    /// Which component it is.
    pub kind: ComponentKind,
    /// The graph.
    pub graph: GraphFile,
    /// The roles of its inputs and outputs.
    pub contract: C,
}

/// A text encoder and the directory of its tokenizer.
#[derive(Debug, Clone)]
pub struct TextPart {
    /// The graph.
    pub part: Part<TextEncoderContract>,
    /// The directory of its tokenizer.
    pub tokenizer: PathBuf,
}

/// What a pipeline opens.
#[derive(Debug, Clone)]
pub struct ModelPlan {
    /// The model directory.
    pub dir: PathBuf,
    /// The denoiser.
    pub denoiser: Part<DenoiserContract>,
    /// The text encoder, where the task has prompts.
    pub text: Option<TextPart>,
    /// The first stage's encoder, where the task starts from a picture.
    pub encoder: Option<Part<VaeEncoderContract>>,
    /// The first stage's decoder; absent for a model that works on pixels.
    pub decoder: Option<Part<VaeDecoderContract>>,
    /// The scaling of the latents.
    pub scaling: Scaling,
    /// f: pixels a side for one latent.
    pub spatial_factor: usize,
    /// c: channels of a sample.
    pub channels: usize,
    /// Providers and threads.
    pub device: Device,
}

/// The scheduler of a request: whose class, from which configuration.
#[derive(Clone)]
pub struct SchedulerChoice {
    /// The name under which it was asked for, which may stand for keys of its own (`DPM++ 2M Karras`).
    pub name: String,
    /// Its row of the table.
    pub entry: &'static scheduler::Entry,
    /// The model's scheduler_config.json.
    pub model: Option<Config>,
    /// The pipeline's table, which goes over it.
    pub table: Config,
}

impl std::fmt::Debug for SchedulerChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulerChoice").field("name", &self.name).field("table", &self.table).finish_non_exhaustive()
    }
}

impl SchedulerChoice {
    /// Builds the schedule of a run.
    ///
    /// # Errors
    /// [`Error::Scheduler`] naming the key at fault.
    pub fn build(&self, request: &scheduler::Request) -> Result<Box<dyn Scheduler>> {
        scheduler::build(&self.name, self.model.as_ref(), &self.table, request)
    }
}

/// What is to be made with an open pipeline.
#[derive(Debug)]
pub struct Request {
    /// The task.
    pub task: Box<dyn Task>,
    /// The scheduler.
    pub scheduler: SchedulerChoice,
    /// The number of steps.
    pub steps: usize,
    /// The seed of the first picture; picture i has `seed + i`.
    pub seed: u64,
    /// Pictures a prompt.
    pub images: usize,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Unit normal noise to start from, `[n, c, h/f, w/f]`.
    pub latents: Option<ArrayD<f32>>,
    /// Pictures denoised at once.
    pub batch: usize,
    /// Where set, the only picture of these that is made.
    pub only: Option<usize>,
}

impl Request {
    /// Pictures in all.
    pub fn pictures(&self) -> usize {
        self.task.prompts().len() * self.images
    }

    /// The seed of picture `index`.
    pub fn seed_of(&self, index: usize) -> u64 {
        self.seed.wrapping_add(index as u64)
    }

    /// What the pictures of prompt `prompt` are steered away from.
    pub fn negative_prompt(&self, prompt: usize) -> &str {
        self.task.negative_prompts().get(prompt).map_or("", String::as_str)
    }
}

/// A pipeline, checked.
#[derive(Debug)]
pub struct Plan {
    /// The pipeline as written, with the seed and the sizes that were chosen where it left them open.
    pub spec: Spec,
    /// What is opened.
    pub model: ModelPlan,
    /// What is made.
    pub request: Request,
}

impl ModelPlan {
    /// `[c, h/f, w/f]` of a sample for pictures of this size.
    pub fn sample_shape(&self, width: usize, height: usize) -> [usize; 3] {
        [self.channels, height / self.spatial_factor, width / self.spatial_factor]
    }

    /// How a component's session is opened.
    pub fn session_options(&self, kind: ComponentKind) -> SessionOptions {
        let choice = |name: &String| ProviderChoice {
            name: name.clone(),
            options: self.device.options.get(name).cloned().unwrap_or_default(),
        };
        SessionOptions {
            component: kind.name().to_owned(),
            providers: self.device.providers_of(kind).iter().map(choice).collect(),
            threads: self.device.threads,
            ..SessionOptions::default()
        }
    }

    /// The graphs that are opened.
    pub fn graphs(&self) -> Vec<(ComponentKind, &GraphFile)> {
        let mut graphs = Vec::new();
        if let Some(text) = &self.text {
            graphs.push((text.part.kind, &text.part.graph));
        }
        if let Some(part) = &self.encoder {
            graphs.push((part.kind, &part.graph));
        }
        graphs.push((self.denoiser.kind, &self.denoiser.graph));
        if let Some(part) = &self.decoder {
            graphs.push((part.kind, &part.graph));
        }
        graphs
    }
}

impl Plan {
    /// Opens the model directory that `spec` names and makes every choice that it leaves open.
    ///
    /// # Errors
    /// [`Error::Model`] where the directory cannot do the task, [`Error::Input`] where a size, a picture or given
    /// latents do not fit, [`Error::Scheduler`] and [`Error::Provider`] where those cannot be had.
    pub fn new(mut spec: Spec) -> Result<Self> {
        let bundle = Bundle::open(&spec.model.path, &overrides(&spec))?;
        let task = task::of(&spec.task);
        for name in spec.device.providers.iter().chain(spec.device.components.values().flatten()) {
            find_provider(name)?;
        }
        let model = plan_model(&spec, &bundle, task.as_ref())?;
        let scheduler = choose_scheduler(&spec, &bundle)?;
        scheduler.build(&scheduler::Request::new(spec.run.steps, 1))?;
        task.check(spec.run.steps)?;

        let factor = model.spatial_factor;
        let natural = task.natural_size()?.map(|(w, h)| (w - w % factor, h - h % factor));
        let (default_width, default_height) = natural.unwrap_or(bundle.facts.default_size.value);
        let width = spec.run.width.unwrap_or(default_width);
        let height = spec.run.height.unwrap_or(default_height);
        for (key, length) in [("run.width", width), ("run.height", height)] {
            if length == 0 || length % factor != 0 {
                let near = (length / factor).max(1) * factor;
                return Err(Error::input(
                    key,
                    format!("{length} is not a multiple of {factor}, the pixels a side of one latent of this model"),
                    format!("choose {near} or {}", near + factor),
                ));
            }
        }
        let seed = *spec.run.seed.get_or_insert_with(any_seed);
        spec.run.width = Some(width);
        spec.run.height = Some(height);

        let pictures = task.prompts().len() * spec.run.images;
        let latents = match &spec.run.latents {
            Some(path) => Some(read_latents(path, pictures, model.sample_shape(width, height))?),
            None => None,
        };
        let on_cpu = spec.device.providers_of(model.denoiser.kind).iter().all(|name| name == "cpu");
        let request = Request {
            task,
            scheduler,
            steps: spec.run.steps,
            seed,
            images: spec.run.images,
            width,
            height,
            latents,
            // A processor is kept busy by one picture; a GPU is not.
            batch: if on_cpu { 1 } else { pictures.min(4) },
            only: None,
        };
        Ok(Self { spec, model, request })
    }
}

fn overrides(spec: &Spec) -> Overrides {
    let mut graphs = std::collections::BTreeMap::new();
    for (&kind, component) in &spec.model.components {
        if let Some(graph) = &component.graph {
            graphs.insert(kind, graph.clone());
        }
    }
    Overrides {
        graphs,
        scaling_factor: spec.model.scaling_factor,
        shift_factor: spec.model.shift_factor,
        latent_channels: spec.model.latent_channels,
        prediction_type: spec.model.prediction_type.clone(),
        sample_size: spec.model.sample_size,
    }
}

fn part<C>(component: &Component, contract: C) -> Part<C> {
    Part { kind: component.kind, graph: component.graph.clone(), contract }
}

fn plan_model(spec: &Spec, bundle: &Bundle, task: &dyn Task) -> Result<ModelPlan> {
    let wanted_for = format!("[task.{}]", task.name());
    let denoiser = bundle.denoiser()?;
    let denoiser = part(denoiser, DenoiserContract::resolve(denoiser)?);
    let decoder = match bundle.require_decoder(&wanted_for)? {
        Some(component) => Some(part(component, VaeDecoderContract::resolve(component)?)),
        None => None,
    };
    let encoder = if task.needs_encoder() {
        let component = bundle.require_encoder(&wanted_for)?;
        Some(part(component, VaeEncoderContract::resolve(component, Some(bundle.facts.latent_channels.value))?))
    } else {
        None
    };
    let text = if task.needs_text() { Some(plan_text(bundle, &wanted_for)?) } else { None };
    let out_of_reach = unfilled(&denoiser.contract);
    if !out_of_reach.is_empty() {
        return Err(Error::model(
            &denoiser.graph.path,
            format!("{wanted_for} cannot fill {}", out_of_reach.join(", ")),
            "this version runs denoisers that take a sample, a timestep and the tokens of one text encoder",
        ));
    }
    let channels = bundle.facts.latent_channels.value;
    if let Some(taken) = denoiser.contract.in_channels.filter(|&taken| taken != channels) {
        return Err(Error::model(
            &denoiser.graph.path,
            format!(
                "input {} takes {taken} channels, and the first stage's latents have {channels}: {wanted_for} has \
                 nothing to fill the other {} with",
                denoiser.contract.sample.name,
                taken.saturating_sub(channels)
            ),
            "such models (inpainting, instruction, upscaling, depth) need a task of their own, which this version lacks",
        ));
    }
    Ok(ModelPlan {
        dir: bundle.dir.clone(),
        denoiser,
        text,
        encoder,
        decoder,
        scaling: Scaling { factor: bundle.facts.scaling_factor.value, shift: bundle.facts.shift_factor.value },
        spatial_factor: bundle.facts.spatial_factor.value,
        channels,
        device: spec.device.clone(),
    })
}

/// The inputs of a denoiser that no task of this version fills.
pub fn unfilled(contract: &DenoiserContract) -> Vec<String> {
    let optional = [&contract.text_embeds, &contract.time_ids, &contract.timestep_cond, &contract.class_labels];
    let residuals = contract.residuals.down.iter().chain(&contract.residuals.mid);
    optional.into_iter().flatten().chain(residuals).map(ToString::to_string).collect()
}

fn plan_text(bundle: &Bundle, wanted_for: &str) -> Result<TextPart> {
    let component = bundle.component(ComponentKind::TextEncoder).ok_or_else(|| {
        Error::model(
            &bundle.dir,
            format!("{wanted_for} needs text_encoder, and the directory has none"),
            "choose [task.unconditional], or export the text encoder too",
        )
    })?;
    let tokenizer = bundle.tokenizer(component.kind).ok_or_else(|| {
        Error::model(
            bundle.dir.join("tokenizer"),
            format!("{wanted_for} needs a tokenizer: tokenizer.json, or vocab.json and merges.txt"),
            "copy the tokenizer/ folder of the checkpoint that was exported",
        )
    })?;
    let contract = TextEncoderContract::resolve(component)?;
    Ok(TextPart { part: part(component, contract), tokenizer: tokenizer.to_path_buf() })
}

fn choose_scheduler(spec: &Spec, bundle: &Bundle) -> Result<SchedulerChoice> {
    let names = || scheduler::table().iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
    let model = bundle.scheduler.as_ref();
    let (wanted, table) = match (&spec.scheduler, model) {
        (Some(chosen), _) => (chosen.name.as_str(), chosen.table.clone()),
        (None, Some(file)) => match &file.class {
            Some(class) => (class.as_str(), Config::new()),
            None => {
                return Err(Error::model(
                    &file.path,
                    "names no scheduler class (_class_name), and neither does model_index.json",
                    format!("name one in the pipeline file: [scheduler.NAME] with a name of {}", names()),
                ));
            }
        },
        (None, None) => {
            return Err(Error::model(
                bundle.dir.join("scheduler/scheduler_config.json"),
                "missing, and the pipeline names no scheduler",
                format!("name one in the pipeline file: [scheduler.NAME] with a name of {}", names()),
            ));
        }
    };
    let Some(entry) = scheduler::find(wanted) else {
        let path = model.map_or_else(|| bundle.dir.clone(), |file| file.path.clone());
        return Err(Error::model(
            path,
            format!("scheduler class {wanted} is not known"),
            format!("name another in the pipeline file: [scheduler.NAME] with a name of {}", names()),
        ));
    };
    Ok(SchedulerChoice { name: wanted.to_owned(), entry, model: model.map(|file| file.config.clone()), table })
}

fn read_latents(path: &Path, pictures: usize, [c, h, w]: [usize; 3]) -> Result<ArrayD<f32>> {
    let latents = npy::read_f32(path)?;
    let wanted = [pictures, c, h, w];
    if latents.shape() != wanted {
        return Err(Error::input(
            path.display().to_string(),
            format!("holds an array of shape {:?}, and this run starts from {wanted:?}", latents.shape()),
            "run.latents is unit normal noise, [pictures, channels, height/f, width/f]",
        ));
    }
    let not_finite = latents.iter().filter(|value| !value.is_finite()).count();
    if not_finite > 0 {
        return Err(Error::input(
            path.display().to_string(),
            format!("{not_finite} of its {} values are not finite", latents.len()),
            "run.latents is unit normal noise; draw it anew",
        ));
    }
    Ok(latents)
}

/// A seed nobody chose: 32 bits from the hasher that the standard library seeds at random.
fn any_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() & 0xffff_ffff
}
