//! The Rust part of `scripts/bindings/overhead.py`: prints the seconds and the CPU seconds of calls of a pipeline.

use std::time::Instant;

use ldm_ort::{Engine, Request};

unsafe extern "C" {
    /// The CPU time of the process in microseconds.
    safe fn clock() -> std::ffi::c_long;
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pipeline, calls] = &arguments[..] else { return Err("usage: overhead PIPELINE CALLS".into()) };
    let mut pipeline = Engine::builder().build()?.open(pipeline)?;
    pipeline.generate(&Request::new())?;
    for seed in 0..calls.parse()? {
        let (started, cpu) = (Instant::now(), clock());
        let images = pipeline.generate(&Request::new().seed(seed))?;
        let pixel = images[0].rgb().last().ok_or("no pixels")?;
        println!("{:.9} {:.9} {pixel}", started.elapsed().as_secs_f64(), (clock() - cpu) as f64 / 1e6);
    }
    Ok(())
}
