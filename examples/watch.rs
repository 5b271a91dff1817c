//! Opens a pipeline once, runs it for several seeds, prints every step, and stops the last run half way.
//!
//! `cargo run --release --example watch -- pipeline.toml`

use std::path::PathBuf;

use ldm_ort::{Cancel, Engine, Error, Event, Request};

fn main() -> ldm_ort::Result<()> {
    let file = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("pipeline.toml"), PathBuf::from);
    let mut pipeline = Engine::default().open(file)?;
    for seed in [1, 2, 3] {
        let cancel = Cancel::new();
        let result = pipeline.run(&Request::new().seed(seed), &cancel, &mut |event| match event {
            Event::Step { step, steps, timestep, .. } => {
                println!("seed {seed}: step {step} of {steps}, t = {timestep}");
                if seed == 3 && 2 * step >= steps {
                    cancel.cancel();
                }
            }
            Event::Image(image) => match image.save(format!("seed-{seed}.png")) {
                Ok(()) => println!("seed-{seed}.png: {} x {} pixels", image.width(), image.height()),
                Err(error) => eprintln!("{error}"),
            },
            _ => {}
        });
        match result {
            Err(Error::Interrupted { at_step: Some(at) }) => println!("seed {seed}: stopped at {at}"),
            other => drop(other?),
        }
    }
    Ok(())
}
