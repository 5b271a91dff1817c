//! Prints every step, and stops the run half way: `cargo run --release --example progress_and_cancel -- pipeline.toml`.

use ldm_ort::{Cancel, Engine, Error, Event, Request};

fn main() -> ldm_ort::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "pipeline.toml".to_owned());
    let mut pipeline = Engine::default().open(path)?;

    let cancel = Cancel::new(); // Clones stop the run from any thread.
    let result = pipeline.run(&Request::new().seed(1), &cancel, &mut |event| match event {
        Event::Step { step, steps, seconds, .. } => {
            println!("step {step} of {steps}, {seconds:.2} s");
            if 2 * step >= steps {
                cancel.cancel();
            }
        }
        Event::Image(image) => println!("image {} is finished", image.index()),
        _ => {}
    });
    match result {
        Err(Error::Interrupted { at_step: Some(at) }) => println!("stopped at {at}"),
        other => drop(other?),
    }
    Ok(())
}
