//! The Rust half of `scripts/bindings/python_overhead.py`: times calls of a pipeline, and prints the seconds of each.

use std::time::Instant;

use ldm_ort::{Engine, Request};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pipeline, calls] = &arguments[..] else { return Err("usage: overhead PIPELINE CALLS".into()) };
    let mut pipeline = Engine::builder().build()?.open(pipeline)?;
    pipeline.generate(&Request::new())?;
    for seed in 0..calls.parse()? {
        let started = Instant::now();
        let images = pipeline.generate(&Request::new().seed(seed))?;
        println!("{} {}", started.elapsed().as_secs_f64(), images[0].seed());
    }
    Ok(())
}
