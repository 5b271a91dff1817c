//! Redraws an image that is in memory, on a pipeline for another task:
//! `cargo run --release --example image_in_memory -- pipeline.toml input.png "a blue square"`.

use ldm_ort::{Engine, InputLimit, Request, Rgb8};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, input, prompt] = &arguments[..] else {
        return Err("usage: image_in_memory PIPELINE IMAGE PROMPT".into());
    };

    // Bytes of a file from anywhere, or pixels: Rgb8::new(width, height, bytes).
    let image = Rgb8::decode(&std::fs::read(input)?, InputLimit::default())?;

    let mut pipeline = Engine::default().open(path)?; // The graphs that a request needs besides are loaded then.
    let request = Request::image_to_image(image, prompt).strength(0.6).seed(7);
    for image in pipeline.generate(&request)? {
        std::fs::write("redrawn.webp", image.encode(ldm_ort::image::ImageFormat::WebP)?)?;
    }
    Ok(())
}
