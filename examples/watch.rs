//! Loads a pipeline once, runs it for several seeds, watches every step, and stops the last run half way.
//!
//! `cargo run --release --example watch -- pipeline.toml`

use std::ops::ControlFlow;
use std::path::PathBuf;

use ldm_ort::execution::{Recorder, Saver};
use ldm_ort::{Cancel, Error, Event, ModelExecution, Overrides, Plan, Runtime, RuntimeOptions, Spec};

fn main() -> ldm_ort::Result<()> {
    let file = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("pipeline.toml"), PathBuf::from);
    let mut plan = Plan::new(Spec::load(&file, &Overrides::default())?)?;
    let runtime = Runtime::load(&RuntimeOptions::default())?;
    let cancel = Cancel::new();
    let saver = Saver::new(&plan.spec.output.dir)?;
    let mut recorder = Recorder::new(&plan, &runtime);
    let mut pipeline = ModelExecution::load(plan.model, &runtime, &cancel, &mut |event: Event<'_>| {
        if let Event::Opened { component, seconds, .. } = event {
            println!("{component} open after {seconds:.2} s");
        }
        ControlFlow::Continue(())
    })?;

    for seed in [1, 2, 3] {
        plan.request.seed = seed;
        let result = pipeline.run(&plan.request, &cancel, &mut |event: Event<'_>| {
            match &event {
                Event::Step { step, .. } => {
                    println!("seed {seed}: step {} of {}, t = {}", step.call, step.calls, step.timestep);
                    if seed == 3 && 2 * step.call >= step.calls {
                        return ControlFlow::Break(());
                    }
                }
                Event::Image(image) => match recorder.record(image).and_then(|r| saver.save(image, "", &r)) {
                    Ok(path) => println!("{}", path.display()),
                    Err(error) => eprintln!("{error}"),
                },
                _ => {}
            }
            ControlFlow::Continue(())
        });
        match result {
            Err(Error::Interrupted { at_step: Some(at) }) => println!("seed {seed}: stopped at {at}"),
            other => drop(other?),
        }
    }
    Ok(())
}
