//! Makes eight images with two pipelines on two threads: `cargo run --release --example two_workers -- pipeline.toml`.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use ldm_ort::{Engine, Request, Result};

fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "pipeline.toml".to_owned());
    let engine = Engine::default();
    let (sender, receiver) = channel();
    let seeds = Mutex::new(receiver);
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            let mut pipeline = engine.open(&path)?;
            // The lock is held while a seed is taken, not while its image is made.
            while let Ok(seed) = { seeds.lock().expect("no worker panicked").recv() } {
                for image in pipeline.generate(&Request::new().seed(seed))? {
                    image.save(format!("worker-{seed}.png"))?;
                }
            }
            Ok(())
        };
        let workers = [scope.spawn(work), scope.spawn(work)];
        (1..=8).try_for_each(|seed| sender.send(seed)).expect("the receiver lives");
        drop(sender);
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panicked"))
    })
}
