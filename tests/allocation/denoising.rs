//! Once its first steps have made room for what a method remembers, a scheduler allocates nothing, and the denoising loop
//! nothing of the size of the latents.

use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::scheduler::{self, Config, Noise, ScheduleRequest};
use ldm_ort::{Cancel, Overrides, Plan, Runtime, Spec};
use serde_json::{Value, json};

use crate::allocator::{ASKED, LARGEST};
use crate::fixtures::root;

/// Noise that is the same number everywhere.
struct Constant;

impl Noise for Constant {
    fn fill(&mut self, out: &mut [f32]) {
        out.fill(0.5);
    }

    fn seed(&self, image: usize) -> u64 {
        image as u64
    }

    fn fill_seeded(&self, _: u64, out: &mut [f32]) {
        out.fill(0.5);
    }
}

const IMAGES: usize = 2;
const LENGTH: usize = IMAGES * 1500;
const STEPS: usize = 20;

/// The calls before this one may allocate.
const WARM: usize = 4;

/// How often the calls of a run from [`WARM`] on ask for memory; `outputs` is the length of a model's answer.
fn asked(name: &str, table: &Config, outputs: usize) -> usize {
    let built = scheduler::build(name, None, table, &ScheduleRequest::new(STEPS, IMAGES));
    let mut scheduler = built.unwrap_or_else(|error| panic!("{name}: {error}"));
    let sigma = scheduler.init_noise_sigma() as f32;
    let mut x: Vec<f32> = (0..LENGTH).map(|i| sigma * ((i % 7) as f32 - 3.0) / 2.0).collect();
    let model_output: Vec<f32> = (0..outputs).map(|i| (i % 5) as f32 / 4.0).collect();
    let mut input = vec![0.0; LENGTH];
    let mut before = 0;
    for call in 0..scheduler.timesteps().len() {
        if call == WARM {
            before = ASKED.get();
        }
        scheduler.scale_model_input(call, &x, &mut input);
        let stepped = scheduler.step(call, &model_output, &mut x, &mut Constant);
        stepped.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    ASKED.get() - before
}

fn assert_none(cases: impl Iterator<Item = (&'static str, Value, usize)>) {
    let mut wrong = Vec::new();
    for (name, table, outputs) in cases {
        let keys = table.as_object().cloned().unwrap_or_default();
        let asked = asked(name, &keys, outputs);
        if asked > 0 {
            wrong.push(format!("{name} {table}: {asked} allocations"));
        }
    }
    assert!(wrong.is_empty(), "after {WARM} calls:\n{}", wrong.join("\n"));
}

#[test]
fn no_scheduler_allocates_in_its_steps() {
    // The Brownian path of dpm-sde is noise that the scheduler itself draws, and drawing may allocate.
    let silent = scheduler::table().iter().filter(|entry| entry.name != "dpm-sde");
    assert_none(silent.map(|entry| (entry.name, json!({}), LENGTH)));
}

#[test]
fn no_variant_allocates_in_its_steps() {
    let cases = [
        ("ddpm", json!({"thresholding": true})),
        ("ddim", json!({"eta": 1.0})),
        ("ddim", json!({"thresholding": true})),
        ("pndm", json!({"skip_prk_steps": true})),
        ("euler", json!({"s_churn": 40.0})),
        ("edm-euler", json!({"s_churn": 40.0})),
        ("edm-dpm-multistep", json!({"solver_order": 3})),
        ("edm-dpm-multistep", json!({"algorithm_type": "sde-dpmsolver++"})),
        ("dpm-multistep", json!({"solver_order": 3, "solver_type": "heun"})),
        ("dpm-multistep", json!({"algorithm_type": "sde-dpmsolver++", "thresholding": true})),
        ("dpm-singlestep", json!({"solver_order": 3})),
        ("dpm-singlestep", json!({"algorithm_type": "sde-dpmsolver++"})),
        ("deis", json!({"solver_order": 3, "thresholding": true})),
        ("unipc", json!({"solver_order": 3, "thresholding": true})),
        ("unipc", json!({"solver_order": 6, "solver_type": "bh1"})),
        ("unipc", json!({"predict_x0": false, "final_sigmas_type": "sigma_min"})),
        ("lcm", json!({"thresholding": true})),
        ("sa-solver", json!({"predictor_order": 4, "corrector_order": 3})),
        ("dpm-multistep-inverse", json!({"algorithm_type": "sde-dpmsolver++"})),
        ("flow-match-heun", json!({"s_churn": 20.0})),
        ("flow-match-euler", json!({"stochastic_sampling": true})),
    ];
    assert_none(cases.into_iter().map(|(name, table)| (name, table, LENGTH)));
}

#[test]
fn learned_variances_need_no_memory() {
    let cases = ["learned", "learned_range"].map(|kind| ("ddpm", json!({"variance_type": kind}), 2 * LENGTH));
    let solver = ("dpm-multistep", json!({"variance_type": "learned_range"}), 2 * LENGTH);
    assert_none(cases.into_iter().chain([solver]));
}

/// The most bytes asked for at once by the thread of the denoising loop between any two of its calls from [`WARM`] on, and
/// the bytes of the latents.
fn asked_at_once(runtime: &Runtime, pipeline: &str, set: &[&str]) -> (usize, usize) {
    let file = root().join("tests/golden").join(pipeline);
    let set = set.iter().map(|set| (*set).to_owned()).collect();
    let overrides = Overrides { steps: Some(12), images: Some(1), set, ..Overrides::default() };
    let plan = Plan::new(Spec::load(&file, &overrides).expect("a spec")).expect("a plan");
    let cancel = Cancel::new();
    let (mut largest, mut latents, mut calls) = (0, 0, 0);
    let mut watch = |event: ExecutionEvent<'_>| {
        if let ExecutionEvent::Step { step, .. } = event {
            if step.call > WARM {
                largest = largest.max(LARGEST.get());
                calls += 1;
            }
            let sample = step.sample.expect("a sample in the host's memory");
            latents = size_of_val(sample.as_slice().expect("row-major"));
            LARGEST.set(0);
        }
    };
    let mut pipeline = Execution::load(&plan, runtime, &cancel, &mut watch).expect("it opens");
    pipeline.run(&plan, &cancel, &mut watch).expect("it runs");
    assert!(calls >= 2, "only {calls} calls were watched");
    (largest, latents)
}

/// The loop as users run it, graphs and all: every form of guidance, of sample, of what is kept, and of caching. ONNX
/// Runtime's own memory is not counted.
#[test]
fn the_loop_allocates_nothing_of_the_size_of_the_latents() {
    let runtime =
        Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("an ONNX Runtime is found or fetched");
    let (plain, wide) = ("pipelines/plain/pipeline.toml", ["run.width=128", "run.height=128"]);
    let schedulers =
        ["ddim", "ddpm", "euler", "euler-ancestral", "heun", "dpm-multistep", "unipc", "pndm", "lms", "deis"];
    let mut cases: Vec<(String, Vec<String>)> = Vec::new();
    let mut add = |pipeline: &str, set: &[&str], is_wide: bool| {
        let wide = wide.iter().filter(|_| is_wide);
        cases.push((pipeline.to_owned(), set.iter().chain(wide).map(|set| (*set).to_owned()).collect()));
    };
    for scheduler in schedulers {
        add(plain, &[&format!("scheduler.{scheduler}={{}}")], true);
    }
    for batching in ["batched", "split", "sequential"] {
        add(plain, &[&format!("device.batching={batching}")], true);
    }
    // Spectrum remembers each prediction that it is told.
    for cache in ["easycache", "ucache"] {
        add(plain, &["scheduler.euler={}", &format!("cache.{cache}={{}}")], true);
    }
    for batching in ["batched", "split"] {
        let deep = ["scheduler.euler={}", "cache.deepcache.interval=2", &format!("device.batching={batching}")];
        add(plain, &deep, true);
    }
    add(plain, &["scheduler.euler={}", "task.text-to-image.guidance_interval=[0.2, 0.7]"], true);
    for name in ["guidance-rescale", "no-guidance", "half", "int64-timestep", "image-to-image-80"] {
        add(&format!("pipelines/{name}/pipeline.toml"), &[], true);
    }
    add("pipelines/fixed-batch/pipeline.toml", &[], false);
    for name in ["instruct", "inpaint", "inpaint-strength", "xl", "sd3", "flux-dev", "flux-true-cfg"] {
        add(&format!("families/{name}/pipeline.toml"), &[], name != "sd3");
    }
    let mut wrong = Vec::new();
    for (pipeline, set) in &cases {
        let set: Vec<_> = set.iter().map(String::as_str).collect();
        let (largest, latents) = asked_at_once(&runtime, pipeline, &set);
        println!("{pipeline} {set:?}: at most {largest} bytes at once, latents of {latents}");
        if largest >= latents {
            wrong.push(format!("{pipeline} {set:?}: {largest} bytes at once, latents of {latents}"));
        }
    }
    assert!(wrong.is_empty(), "after {WARM} calls:\n{}", wrong.join("\n"));
}

/// The counter does count, or the tests above would show nothing.
#[test]
fn an_allocation_is_seen() {
    let before = ASKED.get();
    let mut values = Vec::with_capacity(1);
    values.push(1_u8);
    values.extend([2; 100]);
    assert_eq!(ASKED.get() - before, 2);
    LARGEST.set(0);
    drop((vec![0_u8; 1000], Vec::<u8>::with_capacity(10)));
    assert_eq!(LARGEST.get(), 1000);
}
