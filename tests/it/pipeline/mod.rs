//! Pipelines from end to end: what diffusers draws for a pipeline, the program draws.
//!
//! The references are in `tests/golden/pipelines`, made by `scripts/goldens/golden_pipelines.py`; a folder more there is a
//! test more.

mod background_writer;
mod caching;
mod corrections;
mod device_loop;
mod draw;
mod instruction_sets;
mod previews;
mod reference;
mod replay;
mod requests;
mod stages;
mod stopping;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ldm_ort::kernels::InstructionSet;

use draw::{Drawn, GraphCache, draw, draw_with, far_off, pixels, quarter, redraw, text};
use instruction_sets::{has_operators, wants_operators};
use reference::Reference;
use serde_json::Value;

use crate::common::{models, npy, root};

fn golden() -> PathBuf {
    root().join("tests/golden/pipelines")
}

fn case(name: &str) -> PathBuf {
    golden().join(name).join("pipeline.toml")
}

/// A way to run a case.
#[derive(Clone, Copy)]
struct Way<'a> {
    /// The cache of optimized graphs; `None` for unoptimized ones.
    cache: Option<&'a GraphCache>,
    /// True for a denoising loop on the provider's device.
    on_device: bool,
}

/// Compares one case with its reference; says how far they are apart, or what is wrong.
fn compare(case: &Reference, way: Way<'_>) -> Result<String, String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let limits = std::fs::read_to_string(&case.limits).map_err(|error| error.to_string())?;
    let limits: Value = serde_json::from_str(&limits).map_err(|error| error.to_string())?;
    let (pipeline, reference) = (&case.pipeline, &case.latents);
    let mut arguments = vec![text(pipeline)];
    if reference.exists() {
        arguments.extend(["--save-latents", "latents.npy"]);
    }
    if way.on_device {
        arguments.extend(["--set", "device.denoising_loop=device"]);
    }
    let drawn = draw_with(scratch.path(), arguments, way.cache);
    let place = if way.on_device { "device" } else { "host" };
    if drawn.images.iter().any(|image| image["denoising_loop"] != place) {
        return Err(format!("the loop is not on the {place}"));
    }

    let mut notes = Vec::new();
    if reference.exists() {
        let got = npy::read(&scratch.path().join("latents.npy"));
        let want = npy::read(reference);
        if got.shape != want.shape {
            return Err(format!("latents are {:?}, not {:?}", got.shape, want.shape));
        }
        let apart = f64::from(got.difference(&want));
        if apart > limits["rel"].as_f64().ok_or("case.json has no rel")? {
            return Err(format!("latents differ by {apart:.1e} of the largest"));
        }
        notes.push(format!("latents {apart:.1e}"));
    }
    let levels = limits["levels"].as_u64().and_then(|n| u8::try_from(n).ok()).ok_or("case.json has no levels")?;
    if drawn.paths.len() != case.images.len() {
        return Err(format!("{} images, not {}", drawn.paths.len(), case.images.len()));
    }
    let mut worst = 0f64;
    for (i, (path, want)) in drawn.paths.iter().zip(&case.images).enumerate() {
        let (got, want) = (quarter(&pixels(path)), pixels(want));
        if got.dimensions() != want.dimensions() {
            return Err(format!("image {i} is {:?}, not {:?}", got.dimensions(), want.dimensions()));
        }
        let far = far_off(&got, &want, levels);
        if far > 1e-3 {
            return Err(format!("image {i}: {:.1} % of values off by more than {levels} levels", far * 100.0));
        }
        worst = worst.max(far_off(&got, &want, 0));
    }
    notes.push(format!("{:.2} % of values one level off", worst * 100.0));
    Ok(notes.join(", "))
}

#[test]
fn every_pipeline_is_drawn_as_diffusers_draws_it() {
    assert_drawn(Reference::of_diffusers("pipelines"), 40);
}

/// The families that came of Stable Diffusion, each on a tiny model of its architecture (`scripts/goldens/golden_families.py`, and
/// for the ways in which XL reads prompts and takes LoRAs `scripts/goldens/golden_xl.py`).
#[test]
fn every_family_is_drawn_as_diffusers_draws_it() {
    assert_drawn(Reference::of_diffusers("families"), 36);
}

/// The systems of the latent diffusion paper, each on a tiny model of its architecture, as loops in PyTorch draw them
/// (`scripts/goldens/golden_systems.py`).
#[test]
fn every_system_of_the_paper_is_drawn_as_its_reference_loop_draws_it() {
    assert_drawn(Reference::of_systems(), 20);
}

/// The cases whose loops have to be on the host.
const ON_HOST: &[&str] = &["fixed-batch", "pixel", "sd2v-euler-zero-snr", "control-guess", "super-resolution-tiled"];

/// Draws every case on unoptimized and on optimized graphs, and those with the loop on the device; the cases of a suite
/// with one graph cache.
fn assert_drawn(mut cases: Vec<Reference>, at_least: usize) {
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() >= at_least, "only {} references found", cases.len());
    let cache = GraphCache::new();
    let wrong = Mutex::new(Vec::new());
    let ways = cases.iter().flat_map(|case| {
        let may_be_on_device = !ON_HOST.contains(&case.name.as_str());
        let ways = [(None, false), (Some(&cache), false), (Some(&cache), true)];
        let ways = ways.into_iter().filter(move |(_, on_device)| may_be_on_device || !on_device);
        ways.map(move |(cache, on_device)| (case, Way { cache, on_device }))
    });
    let queue = Mutex::new(ways);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get().min(8)) {
            scope.spawn(|| {
                while let Some((case, way)) = { queue.lock().expect("no worker panicked").next() } {
                    let optimized = if way.cache.is_some() { ", optimized" } else { "" };
                    let name =
                        format!("{}{optimized}{}", case.name, if way.on_device { ", on the device" } else { "" });
                    // A case that panics is a failed case; the others are still worth knowing.
                    let compared = std::panic::AssertUnwindSafe(|| compare(case, way));
                    let result = std::panic::catch_unwind(compared).unwrap_or_else(|cause| {
                        Err(cause.downcast_ref::<String>().cloned().unwrap_or_else(|| "panicked".into()))
                    });
                    match result {
                        Ok(note) => println!("{name:37} {note}"),
                        Err(problem) => wrong.lock().expect("no worker panicked").push(format!("{name}: {problem}")),
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().expect("no worker panicked");
    wrong.sort();
    assert!(wrong.is_empty(), "{} runs:\n{}", wrong.len(), wrong.join("\n"));
    let graphs = cache.graphs();
    assert!(graphs.len() > cases.len() / 4, "only {} graphs were optimized", graphs.len());
    if InstructionSet::best() >= InstructionSet::Avx2 {
        let plain = graphs.iter().filter(|graph| wants_operators(graph) && !has_operators(graph));
        let plain: Vec<_> = plain.map(|graph| format!("{} of {}", graph.component, graph.source.display())).collect();
        assert!(plain.is_empty(), "without operators of our own:\n{}", plain.join("\n"));
    }
}

/// Entry `i` of the first axis, as an array with one entry.
fn entry(array: &npy::Array, i: usize) -> npy::Array {
    let size = array.values.len() / array.shape[0];
    let shape = [&[1], &array.shape[1..]].concat();
    npy::Array { shape, values: array.values[i * size..(i + 1) * size].to_vec() }
}

/// Images of a batch and the same images alone, for what runs a doubled batch, what draws noise at every step, what
/// starts from an image, and a graph whose batch is fixed.
#[test]
fn an_image_does_not_depend_on_its_neighbours() {
    for (name, seed) in [
        ("batch-of-three", 115),
        ("ddim-eta", 102),
        ("image-to-image-ancestral", 125),
        ("fixed-batch", 130),
        ("dpm-sde", 135),
    ] {
        let together = tempfile::tempdir().expect("a folder");
        let pipeline = case(name);
        let batch = draw(together.path(), [text(&pipeline), "--save-latents", "latents.npy"]);
        let latents = npy::read(&together.path().join("latents.npy"));
        for (i, image) in batch.paths.iter().enumerate() {
            let folder = tempfile::tempdir().expect("a folder");
            let seed = (seed + i).to_string();
            let arguments = [text(&pipeline), "--seed", &seed, "--images", "1", "--save-latents", "latents.npy"];
            let alone = draw(folder.path(), arguments);
            let apart = npy::read(&folder.path().join("latents.npy")).difference(&entry(&latents, i));
            assert!(apart < 2e-6, "{name}: latents {i} are {apart:.1e} apart");
            let off = far_off(&pixels(&alone.paths[0]), &pixels(image), 0);
            assert!(off < 1e-3, "{name}: image {i} differs in {:.2} % of its values", off * 100.0);
        }
    }
}

#[test]
fn the_same_command_gives_the_same_bytes() {
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let pipeline = case("ddim-eta");
    let drawn = folders.each_ref().map(|folder| draw(folder.path(), [text(&pipeline)]));
    assert_eq!(drawn[0].paths.len(), 2);
    for (a, b) in drawn[0].paths.iter().zip(&drawn[1].paths) {
        assert_eq!(a.file_name(), b.file_name());
        assert!(bytes(a) == bytes(b), "{} has other bytes the second time", a.display());
    }
}

/// An image's record is enough to draw it again: one of a batch, one drawn with flags, one that began as an image.
#[test]
fn an_image_is_drawn_again_from_its_record() {
    let cases: [(&str, &[&str]); 4] = [
        ("batch-of-three", &[]),
        (
            "two-prompts",
            &["--seed", "7", "--steps", "3", "--set", "scheduler.euler-ancestral.timestep_spacing=trailing"],
        ),
        ("image-to-image-80", &[]),
        ("given-latents", &[]),
    ];
    for (name, flags) in cases {
        let first = tempfile::tempdir().expect("a folder");
        let pipeline = case(name);
        let drawn = draw(first.path(), [text(&pipeline)].into_iter().chain(flags.iter().copied()));
        let image = drawn.paths.last().expect("an image");
        let second = tempfile::tempdir().expect("a folder");
        let again = redraw(second.path(), image, &pipeline);
        assert!(!again.answer.stderr.contains("the image"), "{name}: {}", again.answer);
        assert_eq!(again.paths.len(), 1, "{name}: one image comes from one image\n{}", again.answer);
        assert!(bytes(image) == bytes(&again.paths[0]), "{name}: the image drawn again has other bytes");
    }
}

/// A file that a pipeline begins with and that is another one by now gives another image, and the run says so.
#[test]
fn an_input_that_changed_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let shade = |level: u8| image::RgbImage::from_pixel(64, 64, image::Rgb([level, 90, 200]));
    let input = folder.path().join("in.png");
    shade(10).save(&input).expect("an image");
    let model = models().join("sd1");
    let text_of = format!(
        "[model]\npath = '{}'\n[task.image-to-image]\nprompt = 'a cat'\nimage = 'in.png'\n[run]\nsteps = 4\nseed = 3\n",
        model.display()
    );
    std::fs::write(folder.path().join("pipeline.toml"), text_of).expect("a file");
    let first = draw(folder.path(), ["pipeline.toml"]);
    let again = tempfile::tempdir().expect("a folder");
    let pipeline = folder.path().join("pipeline.toml");
    let same = redraw(again.path(), &first.paths[0], &pipeline);
    assert!(!same.answer.stderr.contains("warning"), "{}", same.answer);
    shade(250).save(&input).expect("an image");
    let other = redraw(again.path(), &first.paths[0], &pipeline);
    assert!(
        other.answer.stderr.contains("warning: task.image-to-image.image differs from the file"),
        "{}",
        other.answer
    );
    assert_ne!(pixels(&other.paths[0]), pixels(&first.paths[0]));
}

/// Each stream of noise is its own, for the first sample as for the steps, and the image's record names it.
#[test]
fn the_stream_of_noise_is_a_key() {
    let pipeline = case("ddim-eta");
    let noise = |flags: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = [text(&pipeline), "--images", "1", "--save-latents", "latents.npy"];
        let drawn = draw(folder.path(), arguments.into_iter().chain(flags.iter().copied()));
        (bytes(&drawn.paths[0]), npy::read(&folder.path().join("latents.npy")), drawn, folder)
    };
    let (unnamed, first, ..) = noise(&[]);
    let (named, ..) = noise(&["--set", "run.noise=torch-cpu"]);
    assert!(unnamed == named, "torch-cpu is what a pipeline without the key draws from");

    let mut all = vec![("torch-cpu", first)];
    for name in ["torch-cpu-float16", "torch-cpu-bfloat16", "torch-cuda", "numpy"] {
        let (image, latents, drawn, _folder) = noise(&["--set", &format!("run.noise={name}")]);
        for (other, theirs) in &all {
            let apart = latents.difference(theirs);
            assert!(apart > 1e-2, "{name} and {other} are only {apart:.1e} apart");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let again = redraw(folder.path(), &drawn.paths[0], &pipeline);
        assert!(image == bytes(&again.paths[0]), "{name}: the image drawn again has other bytes");
        all.push((name, latents));
    }

    // 256 values on a GPU of 256 threads are as on any other; those of a larger image are not.
    let on_a_small_gpu = ["--set", "run.noise=torch-cuda", "--set", "run.noise_gpu=256"];
    let (_, small, ..) = noise(&on_a_small_gpu);
    let cuda = all.iter().find(|(name, _)| *name == "torch-cuda").map(|(_, latents)| latents).expect("it was drawn");
    assert_eq!(small.difference(cuda), 0.0);
    let wide = ["--set", "run.noise=torch-cuda", "--width", "128"];
    let (_, any, ..) = noise(&wide);
    let (_, small, drawn, _folder) = noise(&[&wide[..], &["--set", "run.noise_gpu=256"]].concat());
    assert!(small.difference(&any) > 1e-2);
    let folder = tempfile::tempdir().expect("a folder");
    let again = redraw(folder.path(), &drawn.paths[0], &pipeline);
    assert!(bytes(&drawn.paths[0]) == bytes(&again.paths[0]), "the record keeps the GPU");
}

#[test]
fn json_is_one_object_a_image_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = case("two-prompts");
    let drawn = draw(folder.path(), [text(&pipeline), "--seed", "40", "--width", "96"]);
    assert_eq!(drawn.images.len(), 4);
    for (i, (image, path)) in drawn.images.iter().zip(&drawn.paths).enumerate() {
        assert_eq!(image["seed"], 40 + i as u64);
        assert_eq!(image["width"], 96);
        assert_eq!(image["height"], 64);
        assert_eq!(image["steps"], 4);
        assert!(image["seconds"].as_f64().is_some_and(|s| s > 0.0), "{image}");
        assert_eq!(pixels(path).dimensions(), (96, 64));
    }
    let mut distinct = drawn.paths.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "every image has a file of its own: {:?}", drawn.paths);
    assert_eq!(files_in(folder.path()), 4, "nothing but the images was written");
}

#[test]
fn saved_latents_are_those_of_all_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = case("batch-of-three");
    draw(folder.path(), [text(&pipeline), "--width", "80", "--height", "48", "--save-latents", "latents.npy"]);
    assert_eq!(npy::read(&folder.path().join("latents.npy")).shape, [3, 4, 6, 10]);
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = case("sd2v");
    draw(folder.path(), [text(&pipeline), "--save-latents", "latents.npy"]);
    assert_eq!(npy::read(&folder.path().join("latents.npy")).shape, [1, 4, 16, 16], "a VAE that shrinks by 4");
}

/// A run cut in two by `denoising_end` and `denoising_start` is the whole run, where the scheduler remembers nothing.
#[test]
fn a_run_handed_over_in_the_middle_is_the_whole_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let head = format!("[model]\npath = '{}'\n", models().join("sd1").display());
    let prompt = "prompt = 'a black cat'\n";
    let run = "[scheduler.euler]\n[run]\nsteps = 7\nseed = 5\nimages = 2\n";
    let write = |name: &str, task: &str, more: &str| {
        std::fs::write(folder.path().join(name), format!("{head}{task}{prompt}{run}{more}")).expect("a file");
    };
    write("whole.toml", "[task.text-to-image]\n", "");
    write("first.toml", "[task.text-to-image]\n", "denoising_end = 0.6\n");
    write("second.toml", "[task.image-to-image]\nlatents = 'first.npy'\n", "denoising_start = 0.6\n");
    let latents = |name: &str| {
        let file = format!("{name}.npy");
        let drawn = draw(folder.path(), [&*format!("{name}.toml"), "--save-latents", &file]);
        let calls: Vec<_> = drawn.images.iter().map(|image| image["calls"].as_u64()).collect();
        (npy::read(&folder.path().join(file)), calls, drawn.paths)
    };
    let (whole, all, _) = latents("whole");
    let (first, before, _) = latents("first");
    let (second, after, paths) = latents("second");
    assert_eq!((all, before, after), (vec![Some(7); 2], vec![Some(4); 2], vec![Some(3); 2]));
    assert_ne!(first.values, whole.values);
    assert_eq!(second.values, whole.values);
    // A record of the second run finds its latents again, and its place among them.
    let again = tempfile::tempdir().expect("a folder");
    let redrawn = redraw(again.path(), &paths[1], &folder.path().join("second.toml"));
    assert_eq!(pixels(&redrawn.paths[0]), pixels(&paths[1]));
}

/// A schedule given outright is taken, by numbers and by name.
#[test]
fn schedules_are_given_by_numbers_and_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, more: &str| {
        let head = format!("[model]\npath = '{}'\n", models().join("sd1").display());
        let text = format!("{head}[task.text-to-image]\nprompt = 'a black cat'\n[scheduler.euler]\n[run]\nseed = 5\n");
        std::fs::write(folder.path().join(name), format!("{text}{more}")).expect("a file");
        draw(folder.path(), [name])
    };
    let named = write("named.toml", "timesteps = 'align-your-steps-sd15'\n");
    let listed = write("listed.toml", "timesteps = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]\n");
    assert_eq!(named.images[0]["steps"], 10);
    assert_eq!(pixels(&named.paths[0]), pixels(&listed.paths[0]));
    let levels = write("levels.toml", "sigmas = [14.6, 3.0, 0.5, 0.0]\n");
    assert_eq!(levels.images[0]["steps"], 3);
    let interpolated = write("more.toml", "sigmas = 'align-your-steps-sd15'\nsteps = 4\n");
    assert_eq!(interpolated.images[0]["steps"], 4);
    assert_ne!(pixels(&named.paths[0]), pixels(&interpolated.paths[0]));
    let again = redraw(folder.path(), &interpolated.paths[0], &folder.path().join("more.toml"));
    assert_eq!(pixels(&again.paths[0]), pixels(&interpolated.paths[0]));
}

/// Flags stand for the keys they override.
#[test]
fn a_flag_is_its_key() {
    let one = tempfile::tempdir().expect("a folder");
    let pipeline = case("plain");
    let flags =
        ["--prompt", "a black cat", "--negative-prompt", "blurry", "--steps", "3", "--seed", "9", "--images", "2"];
    let size = ["--width", "48", "--height", "80", "--set", "task.text-to-image.guidance_scale=3"];
    let flagged = draw(one.path(), [text(&pipeline)].into_iter().chain(flags).chain(size));

    let two = tempfile::tempdir().expect("a folder");
    let written = format!(
        "[model]\npath = '{}'\n[task.text-to-image]\nprompt = 'a black cat'\nnegative_prompt = 'blurry'\n\
         guidance_scale = 3\n[run]\nsteps = 3\nseed = 9\nimages = 2\nwidth = 48\nheight = 80\n",
        models().join("sd1").display()
    );
    std::fs::write(two.path().join("written.toml"), written).expect("a file");
    let keyed = draw(two.path(), ["written.toml"]);
    assert_eq!(flagged.paths.len(), keyed.paths.len());
    for (a, b) in flagged.paths.iter().zip(&keyed.paths) {
        assert_eq!(pixels(a), pixels(b));
    }
}

fn bytes(image: &Path) -> Vec<u8> {
    std::fs::read(image).unwrap_or_else(|error| panic!("{}: {error}", image.display()))
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}
