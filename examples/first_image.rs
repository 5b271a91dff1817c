//! Makes an image: `cargo run --release --example first_image -- pipeline.toml "a red circle on a black background"`.

use ldm_ort::{Engine, Request};

fn main() -> ldm_ort::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "pipeline.toml".to_owned());
    let prompt = arguments.next().unwrap_or_else(|| "a red circle on a black background".to_owned());

    let mut pipeline = Engine::default().open(path)?;
    for image in pipeline.generate(&Request::new().prompt(prompt).seed(7))? {
        let file = format!("image-{}.png", image.seed());
        image.save(&file)?;
        println!("{file}: {} x {} pixels", image.width(), image.height());
    }
    Ok(())
}
