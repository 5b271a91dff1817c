//! A program that uses the crate `ort` itself: one ONNX Runtime, one environment, one thread pool for both.
//! `cargo run --release --example ort_host -- libonnxruntime.so model.onnx pipeline.toml`

use ldm_ort::{Engine, Request};
use ort::environment::GlobalThreadPoolOptions;
use ort::session::Session;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [library, model, path] = &arguments[..] else { return Err("usage: ort_host LIBRARY MODEL PIPELINE".into()) };

    let runtime = ort::init_from(library)?; // Before anything else of `ort`.
    let threads = GlobalThreadPoolOptions::default().with_intra_threads(2)?;
    let environment = runtime.with_name("host").with_global_thread_pool(threads).build()?;
    let session = Session::builder(&environment)?.commit_from_file(model)?;

    let engine = Engine::builder().ort_environment(environment).host_threads(true).build()?;
    let mut pipeline = engine.open(path)?;
    for image in pipeline.generate(&Request::new())? {
        image.save("host.png")?;
    }
    println!("the host's own session has {} inputs", session.inputs().len());
    Ok(())
}
