//! The denoising loop on the provider's device, here the CPU: nothing of it is the CPU's own.

use ldm_ort::denoise::DeviceCopies;
use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::image::Rgb8;
use ldm_ort::scheduler::{self, SchedulerEntry};
use ldm_ort::{Cancel, Overrides, Plan, Spec};

use super::draw::{draw, far_off, text};
use super::{case, npy};
use crate::common::{answer, ldm_ort, root, runtime};

/// The final latents of a case, in `tests/golden`, with these keys and the loop in this place.
fn latents(name: &str, keys: &[&str], place: &str) -> npy::Array {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = root().join("tests/golden").join(name).join("pipeline.toml");
    let place = format!("device.denoising_loop={place}");
    let keys = keys.iter().chain([&place.as_str()]).flat_map(|key| ["--set", key]).collect::<Vec<_>>();
    draw(folder.path(), [text(&pipeline), "--save-latents", "latents.npy"].into_iter().chain(keys));
    npy::read(&folder.path().join("latents.npy"))
}

/// The difference of the two loops as a share of the largest latent.
fn apart(name: &str, keys: &[&str]) -> f32 {
    latents(name, keys, "device").difference(&latents(name, keys, "host"))
}

#[test]
fn every_scheduler_agrees_with_the_loop_on_the_host() {
    let mut runs = ProviderRuns { execution: Execution::new(&runtime()), provider: "cpu".to_owned() };
    for entry in scheduler::table().iter().filter(|entry| !entry.inverse) {
        runs.compare_loops(entry, 7);
    }
}

/// Several images with noise of their own, masks between the steps of solvers with a history, and predicted variances.
#[test]
fn other_runs_agree_with_the_loop_on_the_host() {
    for (name, keys) in [
        ("pipelines/dpm-sde-seeded", ["run.images=3", "run.steps=5"].as_slice()),
        ("pipelines/plain", &["run.images=3", "scheduler.sa-solver={}", "run.steps=6"]),
        ("families/flux-inpaint", &["run.images=2"]),
        ("families/pixart-sigma", &["task.text-to-image.guidance_rescale=0.7"]),
        ("families/pixart-sigma", &["scheduler.ddpm={clip_sample=false, variance_type='fixed_small'}"]),
    ] {
        let apart = apart(name, keys);
        println!("{name} {keys:?} {apart:.1e}");
        assert!(apart < 1e-4, "{name} {keys:?}: {apart:.1e}");
    }
}

fn plan(name: &str, set: &[&str]) -> Plan {
    let set = set.iter().map(|set| (*set).to_owned()).collect();
    let spec = Spec::load(&case(name), &Overrides { set, ..Overrides::default() }).expect("a pipeline");
    Plan::new(spec).expect("a plan")
}

/// The previews of a run by call, and its copies.
fn watched(name: &str, set: &[&str]) -> (Vec<(usize, Rgb8)>, Option<DeviceCopies>) {
    let plan = plan(name, set);
    let (mut previews, mut copies) = (Vec::new(), None);
    let mut observer = |event: ExecutionEvent<'_>| match event {
        ExecutionEvent::Preview { call, pixels, .. } => previews.push((call, pixels.clone())),
        ExecutionEvent::Image(image) => copies = image.device_copies,
        _ => {}
    };
    let cancel = Cancel::new();
    let mut execution = Execution::load(&plan, &runtime(), &cancel, &mut observer).expect("it opens");
    execution.run(&plan, &cancel, &mut observer).expect("it runs");
    (previews, copies)
}

/// Runs on one provider, between which graphs stay open.
struct ProviderRuns {
    execution: Execution,
    provider: String,
}

impl ProviderRuns {
    /// The final latents with the loop in one place, and the copies of it. Devices for tests compute on the CPU, and slowly, so
    /// images are small.
    fn run(&mut self, place: &str, set: &[&str]) -> (npy::Array, Option<DeviceCopies>) {
        let own = [format!("device.provider={}", self.provider), format!("device.denoising_loop={place}")];
        let own = own.iter().map(String::as_str).chain(["device.verify=false", "run.width=32", "run.height=32"]);
        let set: Vec<&str> = own.chain(set.iter().copied()).collect();
        let mut made = None;
        let mut observer = |event: ExecutionEvent<'_>| {
            if let ExecutionEvent::Image(image) = event {
                let (shape, values) = (image.latents.shape().to_vec(), image.latents.iter().copied().collect());
                made = Some((npy::Array { shape, values }, image.device_copies));
            }
        };
        self.execution.run(&plan("plain", &set), &Cancel::new(), &mut observer).expect("it runs");
        made.expect("an image")
    }

    /// Compares the loop in both places.
    fn compare_loops(&mut self, entry: &SchedulerEntry, steps: usize) {
        let table = if entry.has_key("clip_sample") { "{clip_sample=false}" } else { "{}" };
        let set = [format!("run.steps={steps}"), format!("scheduler.{}={table}", entry.name)];
        let set = set.each_ref().map(String::as_str);
        let (expected, no_copies) = self.run("host", &set);
        let (found, copies) = self.run("device", &set);
        let (apart, copies) = (found.difference(&expected), copies.expect("a loop on the device"));
        println!("{:22} {apart:.1e} {copies:?}", entry.name);
        assert!(apart < 1e-4, "{}: {apart:.1e}", entry.name);
        assert_eq!((no_copies, copies.during, copies.to_host), (None, 0, 1), "{}", entry.name);
    }
}

/// LDM_ORT_TEST_PROVIDER names the provider, and LDM_ORT_TEST_SCHEDULERS some of the schedulers.
#[test]
#[ignore = "needs a device; scripts/providers/software_vulkan.py runs it on one"]
fn both_loops_agree_on_a_device() {
    let provider = std::env::var("LDM_ORT_TEST_PROVIDER").expect("LDM_ORT_TEST_PROVIDER names a provider");
    let wanted = std::env::var("LDM_ORT_TEST_SCHEDULERS").ok();
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|names| names.split(',').any(|wanted| wanted == name));
    let mut runs = ProviderRuns { execution: Execution::new(&runtime()), provider };
    let mut compared = 0;
    for entry in scheduler::table().iter().filter(|entry| !entry.inverse && is_wanted(entry.name)) {
        runs.compare_loops(entry, 4);
        compared += 1;
    }
    assert!(compared > 0, "{wanted:?} names no scheduler");
    let [short, long] =
        ["run.steps=3", "run.steps=5"].map(|steps| runs.run("device", &[steps, "scheduler.euler={}"]).1);
    assert_eq!(short, long, "the copies do not depend on the number of steps");
}

const ON_DEVICE: &str = "device.denoising_loop=device";

#[test]
fn a_run_copies_before_its_first_step_and_after_its_last() {
    for name in ["plain", "euler-ancestral", "dpm-multistep", "image-to-image-euler", "pndm-prk"] {
        let [short, long] = ["run.steps=5", "run.steps=9"].map(|steps| watched(name, &[ON_DEVICE, steps]).1);
        let [short, long] = [short, long].map(|copies| copies.expect("a loop on the device"));
        assert_eq!((long.during, long.to_host), (0, 1), "{name}: {long:?}");
        assert_eq!(short, long, "{name}");
    }
    assert_eq!(watched("plain", &[]).1, None);
}

#[test]
fn previews_are_those_of_the_loop_on_the_host() {
    for (name, previews) in [("plain", 5), ("dpm-multistep-sde", 5), ("pndm-prk", 4)] {
        let (on_host, _) = watched(name, &["output.preview=1"]);
        let (on_device, copies) = watched(name, &["output.preview=1", ON_DEVICE]);
        assert!(on_host.len() >= previews, "{name}: {}", on_host.len());
        assert_eq!(on_host.len(), on_device.len(), "{name}");
        for ((call, host), (_, device)) in on_host.iter().zip(&on_device) {
            let [host, device] = [host, device].map(|pixels| {
                let (width, height) = (pixels.width() as u32, pixels.height() as u32);
                image::RgbImage::from_raw(width, height, pixels.data().to_vec()).expect("an image")
            });
            assert!(far_off(&device, &host, 1) < 1e-3, "{name} after call {call}");
        }
        assert_eq!(copies.expect("a loop on the device").during, 0);
    }
}

#[test]
fn a_run_that_needs_the_host_says_why() {
    for (name, set, reason) in [
        ("plain", "task.text-to-image.guidance_interval=[0.2, 0.8]", "guidance_interval changes the branches"),
        ("plain", "scheduler.ddim={clip_sample=true}", "the scheduler's steps are not linear"),
        ("plain", "scheduler.ddim={clip_sample=true, clip_sample_range=50.0}", "the scheduler's steps are not linear"),
        ("fixed-batch", "run.seed=1", "several runs of the denoiser's graph"),
        ("plain", "cache.easycache={}", "[cache] skips evaluations"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = ldm_ort(folder.path());
        command.arg("run").arg(case(name)).args(["--set", ON_DEVICE, "--set", set]);
        let answer = answer(command);
        assert_eq!(answer.code, Some(2), "{answer}");
        assert!(answer.stderr.contains("device.denoising_loop") && answer.stderr.contains(reason), "{answer}");
    }
}
