//! Requests of programs, as they are recorded.

use super::again;
use crate::common::{models, runtime};
use crate::pipeline::{pixels, redraw, text};
use ldm_ort::denoise::RunInterval;
use ldm_ort::engine::{KnownDigests, Recorder};
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::image::{Rgb8, encode_png, save_png};
use ldm_ort::metadata::{self, Record};
use ldm_ort::rng::Stream;
use ldm_ort::scheduler::CustomSchedule;
use ldm_ort::task::{
    ImageOrLatents, ImageToImage, Inpaint, InputImage, Prompting, Start, Task, TaskContext, TextToImage,
};
use ldm_ort::{Cancel, Error, Overrides, Plan, RunPlan, Spec};
use std::path::Path;

/// One change of a request after planning.
type Change = fn(&mut RunPlan);

/// A request that a program changes after planning is recorded as it was run: its image comes again from its record.
#[test]
fn a_changed_request_is_recorded_as_it_was_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = models().join("sd1");
    let file = format!(
        "[model]\npath = '{}'\n[task.text-to-image]\nprompt = ['a black cat', 'a dog']\n[run]\nsteps = 4\nseed = 4\n",
        model.display()
    );
    std::fs::write(folder.path().join("pipeline.toml"), file).expect("a file");
    let changes: [(&str, Change); 14] = [
        ("nothing", |_| {}),
        ("seed", |request| request.seed = 77),
        ("steps", |request| request.steps = 3),
        ("images", |request| request.images = 2),
        ("size", |request| (request.width, request.height) = (48, 80)),
        ("scheduler", |request| {
            request.scheduler = request.scheduler.another("euler-ancestral").expect("a scheduler");
        }),
        ("a scheduler's key", |request| {
            request.scheduler.table.insert("timestep_spacing".into(), "trailing".into());
        }),
        ("the model's configuration", |request| {
            request.scheduler.model.insert("beta_end".into(), 0.02.into());
        }),
        ("a schedule", |request| {
            request.scheduler = request.scheduler.another("euler").expect("a scheduler");
            request.custom = Some(CustomSchedule::Timesteps(vec![900.0, 500.0, 100.0]));
            request.steps = 3;
        }),
        ("noise", |request| request.noise = Stream::NumPy),
        ("denoising_end", |request| request.denoising_end = Some(0.5)),
        ("guidance_interval", |request| request.guidance_interval = Some(RunInterval { start: 0.0, end: 0.5 })),
        ("the prompt", |request| {
            let mut prompting = Prompting::new(vec!["a red star".into()]);
            prompting.guidance_scale = Some(3.0);
            prompting.negative_prompts = vec!["blue".into()];
            request.task = Box::new(TextToImage { prompting });
        }),
        ("one of several", |request| request.only = Some(0)),
    ];
    let mut all = Vec::new();
    for (name, change) in changes {
        let (record, image) = changed(folder.path(), change);
        let record = record.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(record.unrecorded.is_empty(), "{name}: {record:?}");
        let again = redraw(&folder.path().join("again"), &image, &folder.path().join("pipeline.toml"));
        assert!(!again.answer.stderr.contains("the image"), "{name}: {}", again.answer);
        assert_eq!(pixels(&again.paths[0]), pixels(&image), "{name}\n{}", record.pipeline);
        let redrawn = metadata::read_png(&again.paths[0]).expect("a record");
        assert_eq!(redrawn.pipeline, record.pipeline, "{name}");
        assert_eq!((redrawn.steps, redrawn.guidance_scale), (record.steps, record.guidance_scale), "{name}");
        let told = (record.task, record.scheduler, record.steps, record.seed, record.width, record.guidance_scale);
        all.push((name, told, pixels(&image)));
    }
    // Each change is one: without it the record would have said what was planned.
    for (name, _, image) in &all[1..] {
        assert!(*image != all[0].2, "{name} changes nothing");
    }
    let told = |name: &str| all.iter().find(|(known, ..)| *known == name).expect("a change").1.clone();
    assert_eq!((told("steps").2, told("seed").3, told("size").4), (3, 78, 48));
    assert_eq!((told("scheduler").1.as_str(), told("the prompt").5), ("euler-ancestral", 3.0));
}

/// A task of a program's own.
#[derive(Debug, Clone, PartialEq)]
struct Own(TextToImage);

impl Task for Own {
    fn name(&self) -> &'static str {
        "own"
    }

    fn prompting(&self) -> Option<&Prompting> {
        Some(&self.0.prompting)
    }

    fn start(&self, stage: &mut TaskContext<'_>) -> ldm_ort::Result<Start> {
        self.0.start(stage)
    }
}

/// A change that no pipeline file can state is named in the record, and `--from` refuses it by that name.
#[test]
fn what_cannot_be_recorded_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = models().join("sd1");
    let file = format!(
        "[model]\npath = '{}'\n[task.text-to-image]\nprompt = 'a cat'\n[run]\nsteps = 2\nseed = 4\n",
        model.display()
    );
    std::fs::write(folder.path().join("pipeline.toml"), file).expect("a file");
    let changes: [(&str, Change); 4] = [
        ("run.latents", |request| request.latents = Some(ndarray::ArrayD::zeros(vec![1, 4, 8, 8]))),
        ("own", |request| {
            request.task = Box::new(Own(TextToImage { prompting: Prompting::new(vec!["a".into()]) }));
        }),
        ("beta_schedule", |request| drop(request.scheduler.model.remove("beta_schedule"))),
        ("shift", |request| request.mu = Some(0.7)),
    ];
    for (says, change) in changes {
        let (record, image) = changed(folder.path(), change);
        let record = record.unwrap_or_else(|error| panic!("{says}: {error}"));
        assert!(matches!(&record.unrecorded[..], [one] if one.contains(says)), "{says}: {:?}", record.unrecorded);
        let refused = again(folder.path(), text(&image), &["--model", text(&model)]);
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(refused.stderr.contains(says) && refused.stderr.contains("cannot be made again"), "{refused}");
    }
}

/// Images and masks in memory make the image that their files make, and its record says that it cannot be made again.
#[test]
fn inputs_in_memory_are_those_of_their_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    const SIDE: usize = 64;
    let of = |byte: fn(usize) -> u8| Rgb8::new(SIDE, SIDE, (0..3 * SIDE * SIDE).map(byte).collect()).expect("an image");
    let (image, mask) = (of(|i| (i * 7 % 251) as u8), of(|i| if i / 3 % SIDE < SIDE / 2 { 255 } else { 0 }));
    for (name, image) in [("in.png", &image), ("mask.png", &mask)] {
        save_png(&at(name), &encode_png(image, &[]).expect("a PNG")).expect("the folder can be written");
    }
    let tasks = |image: InputImage, mask: InputImage| {
        let prompting = Prompting::new(vec!["a cat".into()]);
        let input = ImageOrLatents::Image(image.clone());
        let tasks: [Box<dyn Task>; 2] = [
            ImageToImage { prompting: prompting.clone(), input, strength: None }.into(),
            Inpaint { prompting: Some(prompting), image, mask, strength: None }.into(),
        ];
        tasks
    };
    let of_files = tasks(at("in.png").into(), at("mask.png").into());
    let in_memory = tasks(image.into(), mask.into());
    for (files, memory) in of_files.into_iter().zip(in_memory) {
        let keys: Vec<_> = memory.images().iter().map(|(key, _)| format!("task.{}.{key}", memory.name())).collect();
        let [(from_files, recorded), (from_memory, unrecorded)] = [files, memory].map(|task| {
            let mut spec = Spec::new(models().join("sd1"), task);
            (spec.run.steps, spec.run.seed) = (Some(2), Some(4));
            last_image(Plan::new(spec).expect("a plan"), |_| {})
        });
        assert_eq!(from_memory, from_files);
        let [recorded, unrecorded] = [recorded, unrecorded].map(|record| record.expect("a record"));
        assert!(recorded.unrecorded.is_empty(), "{recorded:?}");
        let said = unrecorded.unrecorded;
        assert_eq!(said.len(), keys.len(), "{said:?}");
        assert!(
            said.iter().zip(&keys).all(|(said, key)| said.starts_with(key) && said.contains("in memory")),
            "{said:?}"
        );
    }
}

/// The last image of the folder's pipeline with its request changed after planning: its record, and its file.
fn changed(folder: &Path, change: Change) -> (Result<Record, Error>, std::path::PathBuf) {
    let spec = Spec::load(&folder.join("pipeline.toml"), &Overrides::default()).expect("a pipeline");
    let (pixels, record) = last_image(Plan::new(spec).expect("a plan"), change);
    let image = folder.join("changed.png");
    std::fs::create_dir_all(folder.join("again")).expect("a folder");
    if let Ok(record) = &record {
        let png = encode_png(&pixels, &record.chunks().expect("JSON")).expect("a PNG");
        save_png(&image, &png).expect("the folder can be written");
    }
    (record, image)
}

/// The last image of a plan whose request is changed, and its record.
fn last_image(mut plan: Plan, change: Change) -> (Rgb8, Result<Record, Error>) {
    plan.check_inputs().expect("the inputs fit");
    let (runtime, cancel) = (runtime(), Cancel::default());
    let mut recorder = Recorder::new(&plan, &runtime, KnownDigests::default());
    change(&mut plan.request);
    let mut last = None;
    let mut watch = |event: ExecutionEvent<'_>| {
        if let ExecutionEvent::Image(image) = event {
            last = Some(image.clone());
        }
    };
    let mut pipeline = Execution::load(&plan, &runtime, &cancel, &mut watch).expect("it opens");
    pipeline.run(&plan, &cancel, &mut watch).expect("it runs");
    let image = last.expect("an image");
    let record = recorder.record(&image);
    (image.pixels, record)
}
