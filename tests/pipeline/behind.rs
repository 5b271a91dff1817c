//! What is done while pictures are made: texts encoded once, pictures written in their order.

use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ldm_ort::bundle::ComponentKind;
use ldm_ort::cli::args::LibraryArgs;
use ldm_ort::pipeline::{Pipeline, Timings};
use ldm_ort::{Cancel, Event, Overrides, Plan, Runtime, Spec};

use crate::common::{Answer, ldm_ort};
use crate::{case, draw, pixels, text};

/// What a pipeline made, and how.
struct Made {
    latents: Vec<ndarray::ArrayD<f32>>,
    /// How often a text encoder was opened.
    opened: usize,
    timings: Timings,
}

/// Runs a pipeline file, one picture a batch, with its parts kept open or not.
fn make(runtime: &Runtime, file: &Path, keep: bool, set: &[&str]) -> Made {
    let set = set.iter().map(|set| (*set).to_owned()).chain([format!("device.keep={keep}")]);
    let overrides = Overrides { steps: Some(2), set: set.collect(), ..Overrides::default() };
    let mut plan = Plan::new(Spec::load(file, &overrides).expect("a spec")).expect("a plan");
    plan.request.batch = 1;
    let (mut opened, mut latents) = (0, Vec::new());
    let mut watch = |event: Event<'_>| {
        match event {
            Event::Opened { component: ComponentKind::TextEncoder | ComponentKind::TextEncoder2, .. } => opened += 1,
            Event::Picture(picture) => latents.push(picture.latents.clone()),
            _ => {}
        }
        ControlFlow::Continue(())
    };
    let cancel = Cancel::new();
    let mut pipeline = Pipeline::load(plan.model, runtime, &cancel, &mut watch).expect("it opens");
    let timings = pipeline.run(&plan.request, &cancel, &mut watch).expect("it runs");
    Made { latents, opened, timings }
}

/// However many batches there are, each text is encoded once, and its encoder opened once, also where it is closed in
/// between; the pictures are the same to the bit.
#[test]
fn each_text_is_encoded_once() {
    let runtime = Runtime::load(&LibraryArgs::default().to_options(None)).expect("an ONNX Runtime is found or fetched");
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families");
    let family = |name: &str| families.join(name).join("pipeline.toml");
    let three = "task.text-to-image.prompt=['a cat', 'a dog', 'a cat']";
    let unguided = "task.text-to-image.guidance_scale=1.0";
    for (file, set, pictures, texts, encoders) in [
        (case("plain"), &["run.images=3"][..], 3, 2, 1),
        (case("plain"), &["run.images=3", unguided], 3, 1, 1),
        // Two prompts and one empty negative prompt.
        (case("plain"), &["run.images=2", three], 6, 3, 1),
        // Two prompts of one and of several chunks, and the negative prompt in as many as either.
        (case("two-long-prompts"), &[], 2, 4, 1),
        // Zeros, of the shape of the prompt's, in the place of a negative prompt.
        (family("xl"), &["run.images=3"], 3, 2, 2),
        (family("instruct"), &["run.images=2"], 2, 2, 1),
    ] {
        let [open, closed] = [true, false].map(|keep| make(&runtime, &file, keep, set));
        for made in [&open, &closed] {
            let told = format!("{} {set:?}", file.display());
            assert_eq!(made.latents.len(), pictures, "{told}");
            assert_eq!(made.timings.texts, texts, "{told}");
            assert_eq!(made.opened, encoders, "{told}");
        }
        assert_eq!(open.latents, closed.latents, "{}", file.display());
    }
}

/// What was encoded is remembered from one run to the next, and what was not opens its encoder.
#[test]
fn texts_are_remembered_from_run_to_run() {
    let runtime = Runtime::load(&LibraryArgs::default().to_options(None)).expect("an ONNX Runtime is found or fetched");
    let of = |prompt: &str| {
        let set = vec!["device.keep=false".to_owned()];
        let overrides = Overrides { prompts: vec![prompt.to_owned()], steps: Some(1), set, ..Overrides::default() };
        Plan::new(Spec::load(&case("plain"), &overrides).expect("a spec")).expect("a plan")
    };
    let cancel = Cancel::new();
    let mut pipeline = Pipeline::load(of("a cat").model, &runtime, &cancel, &mut ldm_ort::pipeline::Unwatched).unwrap();
    let mut told = Vec::new();
    for prompt in ["a cat", "a cat", "a dog", "a cat"] {
        let mut opened = 0;
        let mut watch = |event: Event<'_>| {
            opened += usize::from(matches!(event, Event::Opened { component: ComponentKind::TextEncoder, .. }));
            ControlFlow::Continue(())
        };
        let timings = pipeline.run(&of(prompt).request, &cancel, &mut watch).expect("it runs");
        told.push((timings.texts, opened));
    }
    assert_eq!(told, [(2, 1), (0, 0), (1, 1), (0, 0)]);
}

/// The paths printed so far by a program that draws more pictures than it will come to, once there is one.
fn first_path(child: &mut std::process::Child) -> (PathBuf, BufReader<std::process::ChildStdout>) {
    let mut lines = BufReader::new(child.stdout.take().expect("the output is caught"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    (PathBuf::from(line.trim_end()), lines)
}

fn begin(folder: &Path) -> std::process::Child {
    let mut command = ldm_ort(folder);
    command.args(["run", text(&case("plain")), "--output", "out", "--images", "2000", "--steps", "2", "--quiet"]);
    command.spawn().expect("the program starts")
}

/// The pictures that lie in a folder, and those that a program says it wrote there.
fn written_and_told(folder: &Path, first: &Path, more: BufReader<std::process::ChildStdout>) -> [Vec<String>; 2] {
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let lines = more.lines().map(|line| name(Path::new(&line.expect("a line"))));
    let mut told: Vec<_> = std::iter::once(name(first)).chain(lines).collect();
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut written: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "png")).collect();
    written.iter().for_each(|path| assert_eq!(pixels(path).dimensions(), (64, 64)));
    let mut written: Vec<_> = written.drain(..).map(|path| name(&path)).collect();
    let seed = |name: &String| name.trim_end_matches(".png").rsplit('-').next().map(str::parse::<u64>);
    assert!(told.is_sorted_by_key(|name| seed(name).and_then(Result::ok)), "{told:?}");
    told.sort();
    written.sort();
    [written, told]
}

/// A picture that cannot be written ends the run, with the same message wherever it happens; those told of are whole.
#[cfg(unix)]
#[test]
fn a_folder_that_goes_away_ends_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = begin(folder.path());
    let (first, more) = first_path(&mut child);
    let elsewhere = folder.path().join("elsewhere");
    std::fs::rename(folder.path().join("out"), &elsewhere).expect("the folder can be moved");
    let [written, told] = written_and_told(&elsewhere, &first, more);
    let answer: Answer = child.wait_with_output().expect("the child ends").into();
    assert_eq!(answer.code, Some(1), "{answer}");
    assert!(answer.stderr.contains("error: out/") && answer.stderr.contains("writing failed"), "{answer}");
    assert_eq!(written, told);
    assert!(told.len() < 2000);
}

/// Ctrl-C waits for the pictures that are being written, and tells of each.
#[cfg(unix)]
#[test]
fn an_interrupt_leaves_whole_pictures_each_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = begin(folder.path());
    let (first, more) = first_path(&mut child);
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill is there").success(), "the run was over before it could be interrupted");
    let [written, told] = {
        let answer: Answer = child.wait_with_output().expect("the child ends").into();
        assert_eq!(answer.code, Some(130), "{answer}");
        written_and_told(&folder.path().join("out"), &first, more)
    };
    assert_eq!(written, told);
    assert!(told.len() < 2000);
}

/// Whoever reads slowly reads the pictures in their order, and no picture is lost.
#[test]
fn pictures_are_told_in_their_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--images", "24", "--steps", "2", "--seed", "50"];
    let drawn = draw(folder.path(), [text(&case("plain"))].into_iter().chain(flags));
    let seeds: Vec<_> = drawn.pictures.iter().map(|picture| picture["seed"].as_u64().expect("a seed")).collect();
    assert_eq!(seeds, (50..74).collect::<Vec<_>>());
    for picture in &drawn.pictures {
        let timings = &picture["timings"];
        assert!(timings["until_decoded"].as_f64().is_some_and(|s| s > 0.0), "{picture}");
        assert_eq!(timings["calls"].as_array().map(|calls| calls.len() as u64), picture["calls"].as_u64(), "{picture}");
    }
}
