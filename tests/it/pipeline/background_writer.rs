//! What is done while images are made: texts encoded once, images written in their order.

use std::io::{BufRead, BufReader};
use std::path::Path;

use ldm_ort::bundle::ComponentKind;
use ldm_ort::execution::{Execution, ExecutionEvent, Timings};
use ldm_ort::plan::ModelSources;
use ldm_ort::{Cancel, Overrides, Plan, Runtime, Spec};

use super::{case, pixels, text};
use crate::common::{Answer, ldm_ort, root};

/// What a pipeline made, and how.
struct Made {
    latents: Vec<ndarray::ArrayD<f32>>,
    /// How often a text encoder was opened.
    opened: usize,
    timings: Timings,
}

/// Runs a pipeline file, one image a batch, with its parts kept open or not.
fn make(runtime: &Runtime, file: &Path, keep: bool, set: &[&str]) -> Made {
    let set = set.iter().map(|set| (*set).to_owned()).chain([format!("device.offload={}", !keep)]);
    let overrides = Overrides { steps: Some(2), set: set.collect(), ..Overrides::default() };
    let mut plan = Plan::new(Spec::load(file, &overrides).expect("a spec")).expect("a plan");
    plan.request.batch = 1;
    let (mut opened, mut latents) = (0, Vec::new());
    let mut watch = |event: ExecutionEvent<'_>| match event {
        ExecutionEvent::Opened { component: ComponentKind::TextEncoder | ComponentKind::TextEncoder2, .. } => {
            opened += 1
        }
        ExecutionEvent::Image(image) => latents.push(image.latents.clone()),
        _ => {}
    };
    let cancel = Cancel::new();
    let mut pipeline = Execution::load(&plan, runtime, &cancel, &mut watch).expect("it opens");
    let timings = pipeline.run(&plan, &cancel, &mut watch).expect("it runs");
    Made { latents, opened, timings }
}

/// However many batches there are, each text is encoded once, and its encoder opened once, also where it is closed in
/// between; the images are the same to the bit.
#[test]
fn each_text_is_encoded_once() {
    let runtime =
        Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("an ONNX Runtime is found or fetched");
    let families = root().join("tests/golden/families");
    let family = |name: &str| families.join(name).join("pipeline.toml");
    let three = "task.text-to-image.prompt=['a cat', 'a dog', 'a cat']";
    let unguided = "task.text-to-image.guidance_scale=1.0";
    for (file, set, images, texts, encoders) in [
        (case("plain"), &["run.images=3"][..], 3, 2, 1),
        (case("plain"), &["run.images=3", unguided], 3, 1, 1),
        // Two prompts and one empty negative prompt.
        (case("plain"), &["run.images=2", three], 6, 3, 1),
        // Two prompts of one and of several chunks, and the negative prompt in as many as either.
        (case("two-long-prompts"), &[], 2, 4, 1),
        // Zeros in the place of a negative prompt.
        (family("xl"), &["run.images=3"], 3, 1, 2),
        (family("instruct"), &["run.images=2"], 2, 2, 1),
    ] {
        let [open, closed] = [true, false].map(|keep| make(&runtime, &file, keep, set));
        for made in [&open, &closed] {
            let told = format!("{} {set:?}", file.display());
            assert_eq!(made.latents.len(), images, "{told}");
            assert_eq!(made.timings.texts, texts, "{told}");
            assert_eq!(made.opened, encoders, "{told}");
        }
        assert_eq!(open.latents, closed.latents, "{}", file.display());
    }
}

/// What was encoded is remembered from one run to the next, and what was not opens its encoder.
#[test]
fn texts_are_remembered_from_run_to_run() {
    let runtime =
        Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("an ONNX Runtime is found or fetched");
    let sources = ModelSources::default();
    let of = |prompt: &str| {
        let set = vec!["device.offload=true".to_owned()];
        let overrides = Overrides { prompts: vec![prompt.to_owned()], steps: Some(1), set, ..Overrides::default() };
        Plan::from_sources(Spec::load(&case("plain"), &overrides).expect("a spec"), &sources).expect("a plan")
    };
    let cancel = Cancel::new();
    let mut pipeline = Execution::load(&of("a cat"), &runtime, &cancel, &mut |_| {}).unwrap();
    let mut told = Vec::new();
    for prompt in ["a cat", "a cat", "a dog", "a cat"] {
        let mut opened = 0;
        let mut watch = |event: ExecutionEvent<'_>| {
            opened +=
                usize::from(matches!(event, ExecutionEvent::Opened { component: ComponentKind::TextEncoder, .. }));
        };
        let timings = pipeline.run(&of(prompt), &cancel, &mut watch).expect("it runs");
        told.push((timings.texts, opened));
    }
    assert_eq!(told, [(2, 1), (0, 0), (1, 1), (0, 0)]);
}

/// A program that is to draw 2000 images, what it printed first, and how it ended after `disturb`. The images found in
/// `folder` are whole, and those that it told of, in the order of their seeds.
fn disturbed(folder: &str, disturb: impl FnOnce(&Path, u32)) -> Answer {
    let scratch = tempfile::tempdir().expect("a folder");
    let mut command = ldm_ort(scratch.path());
    command.args(["run", text(&case("plain")), "--output", "out", "--images", "2000", "--steps", "2", "--quiet"]);
    let mut child = command.spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("the output is caught")).lines();
    let mut told = vec![lines.next().expect("an image is told of").expect("a line")];
    disturb(scratch.path(), child.id());
    told.extend(lines.map(|line| line.expect("a line")));
    let answer: Answer = child.wait_with_output().expect("the child ends").into();

    let seed = |path: &String| path.trim_end_matches(".png").rsplit('-').next().and_then(|s| s.parse::<u64>().ok());
    assert!(told.is_sorted_by_key(seed) && told.len() < 2000, "{told:?}");
    let name = |path: &Path| path.file_name().expect("a name").to_owned();
    let entries =
        std::fs::read_dir(scratch.path().join(folder)).expect("a folder").map(|e| e.expect("an entry").path());
    let written: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "png")).collect();
    written.iter().for_each(|path| assert_eq!(pixels(path).dimensions(), (64, 64)));
    let mut written: Vec<_> = written.iter().map(|path| name(path)).collect();
    let mut told: Vec<_> = told.iter().map(|path| name(Path::new(path))).collect();
    told.sort();
    written.sort();
    assert_eq!(written, told);
    answer
}

/// An image that cannot be written ends the run.
#[cfg(unix)]
#[test]
fn a_folder_that_goes_away_ends_the_run() {
    let answer = disturbed("elsewhere", |folder, _| {
        std::fs::rename(folder.join("out"), folder.join("elsewhere")).expect("the folder can be moved");
    });
    assert_eq!(answer.code, Some(1), "{answer}");
    assert!(answer.stderr.contains("error: out/") && answer.stderr.contains("writing failed"), "{answer}");
}

/// Ctrl-C waits for the images that are being written.
#[cfg(unix)]
#[test]
fn an_interrupt_leaves_whole_images_each_told_of() {
    let answer = disturbed("out", |_, id| {
        let sent = std::process::Command::new("kill").args(["-INT", &id.to_string()]).status();
        assert!(sent.expect("kill is there").success(), "the run was over before it could be interrupted");
    });
    assert_eq!(answer.code, Some(130), "{answer}");
}
