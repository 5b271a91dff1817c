//! Once its first steps have made room for what a method remembers, a scheduler allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ldm_ort::scheduler::{self, Config, Noise, Request};
use serde_json::{Value, json};

thread_local! {
    /// How often this thread has asked for memory.
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // A thread that is ending has no counter any more.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
    let built = scheduler::build(name, None, table, &Request::new(STEPS, IMAGES));
    let mut scheduler = built.unwrap_or_else(|error| panic!("{name}: {error}"));
    let sigma = scheduler.initial_noise_sigma() as f32;
    let mut x: Vec<f32> = (0..LENGTH).map(|i| sigma * ((i % 7) as f32 - 3.0) / 2.0).collect();
    let model_output: Vec<f32> = (0..outputs).map(|i| (i % 5) as f32 / 4.0).collect();
    let mut input = vec![0.0; LENGTH];
    let mut before = 0;
    for call in 0..scheduler.timesteps().len() {
        if call == WARM {
            before = ASKED.get();
        }
        scheduler.scale_input(call, &x, &mut input);
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

/// The counter does count, or the tests above would show nothing.
#[test]
fn an_allocation_is_seen() {
    let before = ASKED.get();
    let mut values = Vec::with_capacity(1);
    values.push(1_u8);
    values.extend([2; 100]);
    assert_eq!(ASKED.get() - before, 2);
}
