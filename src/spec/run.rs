//! `[run]`: steps, seed, number and size of images.

use std::ops::Bound::Excluded;
use std::path::PathBuf;

use crate::image::InputLimit;
use crate::keys::{Item, Table, Value, Writer, integer, unknown_name};
use crate::rng::{Gpu, Stream};
use crate::scheduler::{CustomSchedule, NAMED_SCHEDULES, NamedSchedule, SchedulerEntry};
use crate::tiles::Tiles;

/// The largest seed: the end of TOML's integers.
const LAST_SEED: u64 = i64::MAX as u64;

/// `[run]`: steps, seed, number and size of images.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSpec {
    /// `steps`: steps of the scheduler, 1 to 1000. Absent: as many as `timesteps` or `sigmas` are, or the default of the
    /// task's pipeline class in diffusers, such as 50, or 28 for Flux.
    pub steps: Option<usize>,
    /// `timesteps`: the training timestep of each step, falling, or the name of a schedule, for schedulers that take
    /// such a list.
    pub timesteps: Option<Listed>,
    /// `sigmas`: the noise level of each step, falling, or the name of a schedule, for schedulers that take such a
    /// list. Schedulers of diffusion models take one level more, at which the last step ends (mostly 0); those of
    /// flows do not.
    pub sigmas: Option<Listed>,
    /// `denoising_start`: the share of the schedule that another run has done already, above 0 and below 1. The run
    /// begins there, and with what it is given as it is: no noise is added.
    pub denoising_start: Option<f64>,
    /// `denoising_end`: the share of the schedule after which the run stops, above 0 and below 1, leaving the rest to
    /// another run that takes up its latents.
    pub denoising_end: Option<f64>,
    /// `seed`: image number i of the run is drawn from a generator of its own, seeded `seed + i`; 0 to 2^63 - 1.
    /// Absent: chosen anew for each run, and told.
    pub seed: Option<u64>,
    /// `images = 1`: images per prompt, 1 to 10000.
    pub images: usize,
    /// `width`: of the images, in pixels, 1 to 16384 and a multiple of what the model needs. Absent: as the task's pipeline
    /// class in diffusers has it, the model's own (`sample_size`) or that of the input image.
    pub width: Option<usize>,
    /// `height`: of the images, in the manner of `width`.
    pub height: Option<usize>,
    /// `latents`: a .npy file of unit normal noise to start from, float32 `[n, c, h/f, w/f]`.
    pub latents: Option<PathBuf>,
    /// `tile` and `tile_stride`: the side of the tiles in which denoiser and decoder work on a sample larger than one, and
    /// the distance from one to the next, in latents, 8 to 4096; a stride that is not given is half the side. For
    /// images larger than memory, on models that look no further than that: super-resolution, inpainting.
    pub tiles: Option<Tiles>,
    /// `decode_tile`: the tiles in which the VAE decodes.
    pub decode_tile: DecodeTile,
    /// `noise = "torch-cpu"`: the stream that noise is drawn from, the first and that of the steps.
    ///
    /// - `torch-cpu`: what diffusers draws with `torch.Generator("cpu")` in float32.
    /// - `torch-cpu-float16`, `torch-cpu-bfloat16`: the same generator in half precision, which is what diffusers draws
    ///   where the pipeline is loaded in it. The noise is drawn in half and used in float32, as all between the graphs.
    /// - `torch-cuda`: what diffusers draws with `torch.Generator("cuda")`, and AUTOMATIC1111's web UI by default.
    ///   `noise_gpu` tells on which GPU, which matters only for samples of more values than it holds threads: a name
    ///   such as `"A100"`, or the number of those threads, its multiprocessors times the threads of each.
    /// - `numpy`: `numpy.random.RandomState(seed).randn`, for diffusers' old ONNX pipelines; seeds to 2^32 - 1.
    pub noise: Stream,
    /// `max_input_megapixels = 64`: the largest image that is read as an input (image, mask, control image, label or depth
    /// map), in millions of pixels, 1 to 4000. A larger one is refused by its header, before it is decoded.
    pub max_input_megapixels: usize,
}

/// The tiles in which the VAE decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DecodeTile {
    /// Absent: those of `tile` and of a memory budget; without them the whole image, and tiles if no memory is left for that.
    #[default]
    IfNeeded,
    /// `0`: the whole image in any case; the run fails if no memory is left for that.
    Never,
    /// The side in latents, 8 to 4096. Tiles overlap by a quarter of it.
    Side(usize),
}

impl DecodeTile {
    /// Returns the value of the key; `None` if it is absent.
    pub fn value(self) -> Option<usize> {
        match self {
            Self::IfNeeded => None,
            Self::Never => Some(0),
            Self::Side(side) => Some(side),
        }
    }

    fn read(table: &mut Table<'_>) -> Self {
        match table.integer("decode_tile", 0, 4096) {
            None => Self::IfNeeded,
            Some(0) => Self::Never,
            Some(side @ 1..=7) => {
                table.report_at("decode_tile", format!("expected 8 to 4096, or 0 for the whole image, found {side}"));
                Self::IfNeeded
            }
            Some(side) => Self::Side(side),
        }
    }
}

/// A schedule given outright: `[999, 850, 736]`, or a name of [`NAMED_SCHEDULES`].
#[derive(Debug, Clone, PartialEq)]
pub enum Listed {
    /// Numbers.
    Numbers(Vec<f64>),
    /// A schedule known by name.
    Named(&'static NamedSchedule),
}

impl Default for RunSpec {
    fn default() -> Self {
        Self {
            steps: None,
            timesteps: None,
            sigmas: None,
            denoising_start: None,
            denoising_end: None,
            seed: None,
            images: 1,
            width: None,
            height: None,
            latents: None,
            tiles: None,
            decode_tile: DecodeTile::default(),
            noise: Stream::default(),
            max_input_megapixels: InputLimit::MEGAPIXELS,
        }
    }
}

impl RunSpec {
    /// The number of steps with this scheduler, `default` if nothing tells, and the schedule where it is given outright.
    pub fn schedule(&self, entry: &SchedulerEntry, default: usize) -> (usize, Option<CustomSchedule>) {
        let named_steps = self.steps.unwrap_or(NamedSchedule::STEPS);
        let custom = match (&self.timesteps, &self.sigmas) {
            (Some(Listed::Numbers(list)), _) => Some(CustomSchedule::Timesteps(list.clone())),
            (Some(Listed::Named(named)), _) => named.timesteps(),
            (_, Some(Listed::Numbers(list))) => Some(CustomSchedule::Sigmas(list.clone())),
            (_, Some(Listed::Named(named))) => Some(named.sigmas(named_steps)),
            (None, None) => None,
        };
        let given = custom.as_ref().map(|custom| custom.steps(entry));
        (self.steps.or(given).unwrap_or(default), custom)
    }

    /// The largest image that is read as an input.
    pub fn input_limit(&self) -> InputLimit {
        InputLimit::new(self.max_input_megapixels)
    }

    pub(super) fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let share = |table: &mut Table<'_>, key: &str| table.number(key, Excluded(0.0), Excluded(1.0));
        let run = Self {
            steps: table.integer("steps", 1, 1000),
            timesteps: listed(&mut table, "timesteps", |named| named.timesteps().is_some()),
            sigmas: listed(&mut table, "sigmas", |_| true),
            denoising_start: share(&mut table, "denoising_start"),
            denoising_end: share(&mut table, "denoising_end"),
            seed: table.get("seed").and_then(|seed| seed.integer(0, LAST_SEED)),
            images: table.integer("images", 1, 10_000).unwrap_or(default.images),
            width: table.integer("width", 1, 16384),
            height: table.integer("height", 1, 16384),
            latents: table.file_path("latents"),
            tiles: read_tiles(&mut table),
            decode_tile: DecodeTile::read(&mut table),
            noise: read_noise(&mut table),
            max_input_megapixels: table
                .integer("max_input_megapixels", 1, 4000)
                .unwrap_or(default.max_input_megapixels),
        };
        if run.timesteps.is_some() && run.sigmas.is_some() {
            table.report_at("sigmas", "given beside `timesteps`; keep one");
        }
        if let (Some(start), Some(end)) = (run.denoising_start, run.denoising_end)
            && start >= end
        {
            table.report_at("denoising_end", format!("expected above denoising_start, which is {start}, found {end}"));
        }
        table.finish();
        run
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.table(&["run"]);
        writer.key_if("steps", self.steps.map(integer));
        writer.key_if("timesteps", self.timesteps.as_ref().map(Listed::toml));
        writer.key_if("sigmas", self.sigmas.as_ref().map(Listed::toml));
        writer.key_if("denoising_start", self.denoising_start);
        writer.key_if("denoising_end", self.denoising_end);
        writer.key_if("seed", self.seed.and_then(|seed| i64::try_from(seed).ok()));
        writer.key("images", integer(self.images));
        writer.key_if("width", self.width.map(integer));
        writer.key_if("height", self.height.map(integer));
        if let Some(latents) = &self.latents {
            writer.path("latents", latents);
        }
        writer.key_if("tile", self.tiles.map(|tiles| integer(tiles.size)));
        writer.key_if("tile_stride", self.tiles.map(|tiles| integer(tiles.stride)));
        writer.key_if("decode_tile", self.decode_tile.value().map(integer));
        writer.key("noise", self.noise.name());
        if let Stream::TorchCuda { gpu: Some(gpu) } = self.noise {
            writer.key("noise_gpu", i64::from(gpu.threads()));
        }
        if self.max_input_megapixels != InputLimit::MEGAPIXELS {
            writer.key("max_input_megapixels", integer(self.max_input_megapixels));
        }
    }
}

impl Listed {
    fn toml(&self) -> toml::Value {
        match self {
            Self::Numbers(list) => list.clone().into(),
            Self::Named(named) => named.name.into(),
        }
    }
}

fn read_tiles(table: &mut Table<'_>) -> Option<Tiles> {
    let size = table.integer("tile", 8, 4096);
    let stride = table.integer("tile_stride", 1, 4096);
    match (size, stride) {
        (None, Some(_)) => {
            table.report_at("tile_stride", "goes with `tile`, and there is none");
            None
        }
        (Some(size), Some(stride)) if stride > size => {
            table.report_at("tile_stride", format!("expected at most tile = {size}, found {stride}"));
            None
        }
        (size, stride) => size.map(|size| Tiles { size, stride: stride.unwrap_or(size / 2) }),
    }
}

/// Reads a list of numbers, or the name of a schedule that has such a list.
fn listed(table: &mut Table<'_>, key: &str, has: impl Fn(&NamedSchedule) -> bool) -> Option<Listed> {
    let item: Item<'_> = table.get(key)?;
    if let Value::String(name) = item.value() {
        let found = NAMED_SCHEDULES.iter().find(|named| named.name == name && has(named));
        if found.is_none() {
            let names = NAMED_SCHEDULES.iter().filter(|named| has(named)).map(|named| named.name);
            item.report(unknown_name("schedule", name, names, std::iter::empty()));
        }
        return found.map(Listed::Named);
    }
    item.numbers("an array of numbers or the name of a schedule").map(Listed::Numbers)
}

fn read_noise(table: &mut Table<'_>) -> Stream {
    let names = Stream::TABLE.map(|(name, _)| name);
    let chosen = table.choice("noise", "noise", &names);
    let stream = Stream::TABLE.into_iter().find(|(name, _)| Some(*name) == chosen).map(|(_, stream)| stream);
    let Some(item) = table.get("noise_gpu") else { return stream.unwrap_or_default() };
    if !matches!(stream, Some(Stream::TorchCuda { .. })) {
        item.report("only the noise \"torch-cuda\" is that of a GPU; expected it beside noise = \"torch-cuda\"");
        return stream.unwrap_or_default();
    }
    let gpu = match item.value() {
        Value::Integer(_) => {
            let threads = item.integer(1, u64::from(u32::MAX)).and_then(|threads| u32::try_from(threads).ok());
            let gpu = threads.and_then(Gpu::with_threads);
            if let (Some(threads), None) = (threads, gpu) {
                item.report(format!("expected a GPU's threads, which are a multiple of 256, found {threads}"));
            }
            gpu
        }
        _ => item.string("the name of a GPU or the number of its threads").and_then(|name| {
            let gpu = Gpu::by_name(&name);
            if gpu.is_none() {
                let unknown = unknown_name("GPU", &name, Gpu::names(), std::iter::empty());
                item.report(format!("{unknown}, or the number of its threads (multiprocessors × threads of each)"));
            }
            gpu
        }),
    };
    Stream::TorchCuda { gpu }
}
