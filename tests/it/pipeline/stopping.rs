//! Stopping a run.

use crate::common::{root, runtime};
use std::path::Path;

use ldm_ort::execution::{Execution, ExecutionEvent};
use ldm_ort::{Cancel, Error, Overrides, Plan, Runtime, Spec, StepPosition};

use super::case;

fn plan(name: &str, set: &[&str]) -> Plan {
    plan_of(&case(name), set)
}

fn plan_of(file: &Path, set: &[&str]) -> Plan {
    let set = set.iter().map(|set| (*set).to_owned()).collect();
    Plan::new(Spec::load(file, &Overrides { set, ..Overrides::default() }).expect("a spec")).expect("a plan")
}

/// The position of a run that is cancelled after `calls` calls of the denoiser, counted over all of its batches and stages.
fn stopped(runtime: &Runtime, plan: &Plan, calls: usize) -> Error {
    let cancel = Cancel::new();
    let mut stages = Execution::load(plan, runtime, &cancel, &mut |_| {}).expect("it opens");
    let mut made = 0;
    let result = stages.run(plan, &cancel.clone(), &mut |event: ExecutionEvent<'_>| {
        made += usize::from(matches!(event, ExecutionEvent::Step { .. }));
        if made == calls && matches!(event, ExecutionEvent::Step { .. }) {
            cancel.cancel();
        }
    });
    result.expect_err("it was stopped")
}

/// The step that an interrupted run names is the scheduler's, in whichever image and stage.
#[test]
fn an_interrupted_run_names_its_step() {
    let runtime = runtime();
    let one = ["run.steps=4", "scheduler.ddim={}"];
    let images = ["run.steps=4", "scheduler.ddim={}", "run.images=3"];
    let second_order = ["run.steps=4", "scheduler.heun={}"];
    let at = |step, steps, first_image, total_images| {
        StepPosition { step, steps, first_image, images: 1, total_images }.to_string()
    };
    for (set, calls, expected) in [
        (&one[..], 2, at(2, 4, 0, 1)),
        (&one, 3, at(3, 4, 0, 1)),
        (&images, 6, at(2, 4, 1, 3)),
        (&images, 11, at(3, 4, 2, 3)),
        // Two calls a step, but for the last one.
        (&second_order, 3, at(2, 4, 0, 1)),
        (&second_order, 4, at(2, 4, 0, 1)),
        (&second_order, 5, at(3, 4, 0, 1)),
    ] {
        let error = stopped(&runtime, &plan("plain", set), calls);
        assert_eq!(error.to_string(), format!("interrupted at {expected}"), "{set:?} {calls}");
    }
    // Of each image, eight steps of the base and two of the refiner.
    let refine = root().join("tests/golden/stages/refine/pipeline.toml");
    let refine = plan_of(&refine, &[]);
    for (calls, expected) in [
        (1, "base: interrupted at step 1 of 8, image 1 of 2"),
        (10, "stage[0]: interrupted at step 2 of 2, image 1 of 2"),
        (13, "base: interrupted at step 3 of 8, image 2 of 2"),
    ] {
        assert_eq!(stopped(&runtime, &refine, calls).to_string(), expected);
    }
}
