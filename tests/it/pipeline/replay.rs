//! `run --from`: what a record holds, what of a stranger's is refused, and what is said where a file has changed.

use std::path::Path;

use ldm_ort::denoise::RunInterval;
use ldm_ort::engine::{KnownDigests, Recorder};
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::image::{InputLimit, Rgb8, encode_png, load, save_png};
use ldm_ort::metadata::{self, Record};
use ldm_ort::rng::Stream;
use ldm_ort::scheduler::CustomSchedule;
use ldm_ort::task::{
    ImageOrLatents, ImageToImage, Inpaint, InputImage, Prompting, Start, Task, TaskContext, TextToImage,
};
use ldm_ort::{Cancel, Error, Overrides, Plan, RunPlan, Spec};

use super::previews::{copy, runtime};
use super::{bytes, draw, pixels, redraw, text};
use crate::common::{Answer, answer, ldm_ort, models};

/// A folder with a copy of the model in `models/sd1`, an image made of it in `out.png`, and its record.
fn made(more: &str) -> (tempfile::TempDir, Record) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    copy(&models().join("sd1"), &at("models/sd1"));
    let text_of =
        "[model]\npath = 'models/sd1'\n[task.text-to-image]\nprompt = 'a black cat'\n[run]\nsteps = 2\nseed = 4\n";
    std::fs::write(at("pipeline.toml"), format!("{text_of}{more}")).expect("a file");
    let drawn = draw(folder.path(), ["pipeline.toml"]);
    std::fs::rename(&drawn.paths[0], at("out.png")).expect("a new name");
    let record = metadata::read_png(&at("out.png")).expect("a record");
    (folder, record)
}

/// `ldm-ort run --from IMAGE` in a folder.
fn again(folder: &Path, image: &str, flags: &[&str]) -> Answer {
    let mut command = ldm_ort(folder);
    command.args(["run", "--from", image, "--output", "again"]).args(flags);
    answer(command)
}

/// Writes an image with this record.
fn forge(path: &Path, pixels: &Path, record: &Record) {
    let png = encode_png(&load(pixels, InputLimit::default()).expect("an image"), &record.chunks().expect("JSON"))
        .expect("a PNG");
    save_png(path, &png).expect("the folder can be written");
}

#[test]
fn a_record_names_nothing_of_the_machine() {
    let lora = "[[lora]]\npath = 'LORA'\n[device.cuda]\nx = 1\n[device]\nprovider = ['cuda', 'cpu']\n";
    let (folder, record) = made("");
    let json = serde_json::to_string(&record).expect("JSON");
    let here = text(folder.path());
    assert!(!json.contains(here) && !json.contains(env!("CARGO_MANIFEST_DIR")), "{json}");
    assert!(record.pipeline.contains("path = \"models/sd1\""), "{}", record.pipeline);
    assert!(!record.pipeline.contains("[output]"), "{}", record.pipeline);
    let names = |map: &std::collections::BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&record.weights), ["text_encoder", "unet", "vae_decoder"]);
    for file in
        ["model_index.json", "scheduler/scheduler_config.json", "vae_decoder/config.json", "tokenizer/merges.txt"]
    {
        assert!(record.files.contains_key(file), "{file}: {:?}", record.files);
    }

    // Options that could name a file stay behind; plain ones do not.
    let options = "trt_engine_cache_path = '/home/me/cache'\ndevice_id = 0\n";
    let spec = lora.replace("LORA", "/home/me/style.safetensors").replace("x = 1\n", options);
    let spec = format!("[model]\npath = '/home/me/sd15'\n[task.text-to-image]\nprompt = ''\n{spec}");
    let spec = Spec::parse(&spec, None, &Overrides::default()).expect("a pipeline");
    let portable = spec.to_record(Default::default(), &Default::default());
    assert!(!portable.contains("/home") && !portable.contains("cache_path"), "{portable}");
    assert!(portable.contains("path = \"style.safetensors\"") && portable.contains("device_id = \"0\""), "{portable}");
}

#[test]
fn a_record_has_absolute_paths_where_they_are_asked_for_and_no_run_follows_them() {
    let (folder, record) = made("[output]\nrecord_paths = 'absolute'\n");
    let model = folder.path().join("models/sd1");
    assert!(record.pipeline.contains(text(&model)), "{}", record.pipeline);
    let refused = again(folder.path(), "out.png", &[]);
    assert_eq!(refused.code, Some(2), "{refused}");
    for says in ["out.png", "model.path", "is absolute", "--model DIR"] {
        assert!(refused.stderr.contains(says), "{says}: {refused}");
    }
    let given = again(folder.path(), "out.png", &["--model", "models/sd1"]);
    assert_eq!(given.code, Some(0), "{given}");
    assert!(!given.stderr.contains("warning"), "{given}");
}

/// The model directory has moved and is given anew; the image has the same bytes, record and all, also where the current
/// directory is another.
#[test]
fn an_image_is_made_again_after_its_files_have_moved() {
    let (folder, _) = made("");
    let image = folder.path().join("out.png");
    let same = again(folder.path(), "out.png", &[]);
    assert_eq!(same.code, Some(0), "{same}");
    assert!(!same.stderr.contains("warning"), "{same}");
    assert!(bytes(&folder.path().join(same.stdout.trim())) == bytes(&image));

    std::fs::create_dir_all(folder.path().join("elsewhere/models")).expect("a folder");
    std::fs::rename(folder.path().join("models/sd1"), folder.path().join("elsewhere/models/sd1")).expect("it moves");
    let lost = again(folder.path(), "out.png", &[]);
    assert_eq!(lost.code, Some(2), "{lost}");
    for says in ["out.png", "model.path", "models/sd1", "--model DIR"] {
        assert!(lost.stderr.contains(says), "{says}: {lost}");
    }
    let other = tempfile::tempdir().expect("a folder");
    for (at, model) in
        [(folder.path(), "elsewhere/models/sd1"), (other.path(), text(&folder.path().join("elsewhere/models/sd1")))]
    {
        let found = again(at, text(&image), &["--model", model]);
        assert_eq!(found.code, Some(0), "{found}");
        assert!(!found.stderr.contains("warning"), "{found}");
        assert!(bytes(&at.join(found.stdout.trim())) == bytes(&image), "other bytes");
    }
    let wrong = again(folder.path(), "out.png", &["--input", "task.text-to-image.image=a.png"]);
    assert_eq!(wrong.code, Some(2), "{wrong}");
    assert!(wrong.stderr.contains("--input") && wrong.stderr.contains("there are model.path"), "{wrong}");
    for flag in [["--model", "x"], ["--input", "model.path=x"]] {
        let mut command = ldm_ort(folder.path());
        command.args(["run", "pipeline.toml"]).args(flag);
        assert_eq!(answer(command).code, Some(2), "{flag:?} belongs to --from");
    }
}

/// A change of a file's bytes.
type Edit = fn(Vec<u8>) -> Vec<u8>;

/// Each file that determines the image is told by its name where it has changed.
#[test]
fn a_changed_file_is_told_by_its_name() {
    let (folder, _) = made("");
    let model = folder.path().join("models/sd1");
    let edits: [(&str, Edit); 6] = [
        ("scheduler/scheduler_config.json", |file| edit(file, "\"beta_end\": 0.012", "\"beta_end\": 0.02")),
        ("vae_decoder/config.json", |file| edit(file, "0.18215", "0.3")),
        ("tokenizer/tokenizer_config.json", |file| [file, b"\n".to_vec()].concat()),
        ("tokenizer/merges.txt", |file| [file, b"\n".to_vec()].concat()),
        ("model_index.json", |file| [file, b"\n".to_vec()].concat()),
        ("text_encoder/config.json", |file| [file, b"\n".to_vec()].concat()),
    ];
    for (name, change) in edits {
        let path = model.join(name);
        let before = std::fs::read(&path).expect("a file");
        std::fs::write(&path, change(before.clone())).expect("a file");
        let told = again(folder.path(), "out.png", &[]);
        std::fs::write(&path, before).expect("a file");
        assert_eq!(told.code, Some(0), "{told}");
        let warnings: Vec<_> = told.stderr.lines().filter(|line| line.starts_with("warning")).collect();
        assert!(
            matches!(&warnings[..], [one] if one.contains(&format!("{name} differs from the file"))),
            "{name}: {told}"
        );
    }
    // One that is gone, and one that has come.
    let gone = model.join("tokenizer/special_tokens_map.json");
    std::fs::rename(&gone, model.join("tokenizer/added_tokens.json")).expect("a new name");
    std::fs::write(model.join("tokenizer/added_tokens.json"), "{}").expect("a file");
    let told = again(folder.path(), "out.png", &[]);
    assert!(told.stderr.contains("tokenizer/special_tokens_map.json was used for the image"), "{told}");
    assert!(told.stderr.contains("tokenizer/added_tokens.json did not exist"), "{told}");

    // A graph with another doc_string, the sixth field of ONNX's ModelProto.
    let graph = model.join("unet/model.onnx");
    let weights = [std::fs::read(&graph).expect("a graph"), vec![6 << 3 | 2, 1, b'x']].concat();
    std::fs::write(&graph, weights).expect("a graph");
    let told = again(folder.path(), "out.png", &[]);
    assert_eq!(told.code, Some(0), "{told}");
    assert!(told.stderr.contains("warning: unet differs from the file"), "{told}");
}

fn edit(file: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(file).expect("text");
    assert!(text.contains(from), "{from:?} is not in {text}");
    text.replace(from, to).into_bytes()
}

/// Another version of the program or of ONNX Runtime, another CPU or provider: each is told, and the run goes on.
#[test]
fn another_engine_is_told() {
    let (folder, record) = made("");
    let other = Record {
        engine: "ldm-ort 0.0.1".into(),
        runtime: "1.0.0".into(),
        arithmetic: "abacus".into(),
        providers: vec!["cuda".into(), "cpu".into()],
        ..record
    };
    forge(&folder.path().join("other.png"), &folder.path().join("out.png"), &other);
    let told = again(folder.path(), "other.png", &[]);
    assert_eq!(told.code, Some(0), "{told}");
    for says in ["by ldm-ort 0.0.1", "ONNX Runtime 1.0.0", "abacus", "cuda, cpu, this run uses cpu"] {
        assert!(told.stderr.contains(says), "{says}: {told}");
    }
}

/// Nothing in a stranger's record leads out of the current directory, and `[output]` leads nowhere.
#[test]
fn a_strangers_record_reaches_nothing_outside() {
    let (folder, record) = made("");
    let out = folder.path().join("out.png");
    let forged = |pipeline: String, flags: &[&str]| {
        forge(&folder.path().join("forged.png"), &out, &Record { pipeline, ..record.clone() });
        again(folder.path(), "forged.png", flags)
    };
    let model = "[model]\npath = 'models/sd1'\n";
    let prompt = "[task.text-to-image]\nprompt = 'a'\n";
    let run = "[run]\nsteps = 1\nseed = 1\n";
    let image = |path: &str| format!("{model}[task.image-to-image]\nprompt = 'a'\nimage = '{path}'\n{run}");
    for (pipeline, says) in [
        (format!("[model]\npath = '/models/sd1'\n{prompt}"), "model.path: \"/models/sd1\" is absolute"),
        (format!("[model]\npath = '../sd1'\n{prompt}"), "model.path: \"../sd1\" contains `..`"),
        (format!("[model]\npath = '~/sd1'\n{prompt}"), "model.path: \"~/sd1\" is in a home folder"),
        (format!("[model]\npath = 'https://host/sd1'\n{prompt}"), "model.path: \"https://host/sd1\" is a URL"),
        (format!("{model}unet.graph = '/x/model.onnx'\n{prompt}"), "model.unet.graph"),
        (image("/etc/passwd"), "--input task.image-to-image.image=PATH"),
        (image("models/../../secret.png"), "task.image-to-image.image"),
        (image("C:\\\\secret.png"), "task.image-to-image.image"),
        (image("\\\\\\\\host\\\\share.png"), "task.image-to-image.image"),
        (format!("{model}{prompt}[run]\nlatents = '/x.npy'\n"), "run.latents"),
        (format!("{model}{prompt}[[lora]]\npath = '../x.safetensors'\n"), "lora[0].path"),
        (format!("{model}{prompt}[[textual_inversion]]\npath = '/x.safetensors'\n"), "textual_inversion[0].path"),
        (format!("{model}{prompt}[[control]]\nimage = '/x.png'\npath = '../net'\n"), "control[0].path"),
        (
            format!("{model}{prompt}[[condition]]\nconditioning = 'cross-attention'\nvectors = '/x.npy'\n"),
            "condition[0].vectors",
        ),
        (
            format!(
                "{model}{prompt}[[condition]]\nconditioning = 'cross-attention'\nlabel_map = 'x.png'\ngraph = '..'\n"
            ),
            "condition[0].graph",
        ),
        (
            format!("{model}{prompt}[[stage]]\nmodel.path = '/x'\ntask.image-to-image = {{}}\n"),
            "--input stage[0].model.path=PATH",
        ),
        (
            format!(
                "{model}{prompt}[device]\nprovider = ['openvino', 'cpu']\n[device.openvino]\nload_config = '/x.json'\n"
            ),
            "--set device.openvino.load_config=VALUE",
        ),
        (
            format!("{model}{prompt}[device]\nprovider = 'qnn'\n[device.qnn]\nbackend_path = 'evil'\n"),
            "device.qnn.backend_path",
        ),
        (format!("{model}{prompt}[runtime]\npath = '/x.so'\n"), "unknown table `runtime`"),
    ] {
        let refused = forged(pipeline.clone(), &[]);
        assert_eq!(refused.code, Some(2), "{pipeline}{refused}");
        assert!(refused.stderr.contains(says), "{says:?} is not in {refused}");
        assert!(refused.stderr.contains("forged.png"), "{refused}");
    }
    // What the command line gives anew is the user's own.
    let given = forged(
        format!("[model]\npath = '/models/sd1'\n{prompt}{run}"),
        &["--model", text(&folder.path().join("models/sd1"))],
    );
    assert_eq!(given.code, Some(0), "{given}");

    let output = format!("[output]\ndir = '{}/stolen'\nsave_intermediate = true\n", text(folder.path()));
    let mut command = ldm_ort(folder.path());
    forge(
        &folder.path().join("forged.png"),
        &out,
        &Record { pipeline: format!("{model}{prompt}{run}{output}"), ..record },
    );
    command.args(["run", "--from", "forged.png"]);
    let ignored = answer(command);
    assert_eq!(ignored.code, Some(0), "{ignored}");
    assert!(ignored.stderr.contains("warning: [output] in the record is ignored"), "{ignored}");
    assert!(ignored.stdout.starts_with("outputs"), "{ignored}");
    assert!(!folder.path().join("stolen").exists());
}

/// Records of the released version 1 had absolute paths and no digests of the small files. They are read with the paths
/// given anew, and what they cannot tell is said.
#[test]
fn a_record_of_version_1_is_read() {
    let (folder, record) = made("");
    let model = folder.path().join("models/sd1");
    let older = Record {
        schema: 1,
        pipeline: record.pipeline.replace("models/sd1", text(&model)),
        arithmetic: String::new(),
        weights: Default::default(),
        files: Default::default(),
        ..record
    };
    let out = folder.path().join("out.png");
    forge(&folder.path().join("older.png"), &out, &older);
    let refused = again(folder.path(), "older.png", &[]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("model.path") && refused.stderr.contains("--model DIR"), "{refused}");
    let read = again(folder.path(), "older.png", &["--model", "models/sd1"]);
    assert_eq!(read.code, Some(0), "{read}");
    let warnings: Vec<_> = read.stderr.lines().filter(|line| line.starts_with("warning")).collect();
    assert!(matches!(&warnings[..], [one] if one.contains("version 1")), "{read}");
    assert_eq!(pixels(&folder.path().join(read.stdout.trim())), pixels(&out));

    let other = Record { model_digest: "0".into(), ..older };
    forge(&folder.path().join("other.png"), &out, &other);
    let told = again(folder.path(), "other.png", &["--model", "models/sd1"]);
    assert!(told.stderr.contains("the weights are not those"), "{told}");
}

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
