//! Answers `curl -d '{"prompt": "a red circle", "seed": 7}' localhost:8080 >circle.png` with an image; one request at a time.
//! A client that goes away cancels its run. `cargo run --release -p ldm-ort-axum -- pipeline.toml 127.0.0.1:8080`

use std::sync::{Arc, Mutex};

use axum::http::{StatusCode, header};
use axum::{Router, extract::State, routing::post};
use ldm_ort::{Cancel, Engine, Error, ErrorKind, Event, Pipeline, Request};

/// Cancels a run when the handler that waits for it is dropped.
struct Guard(Cancel);
impl Drop for Guard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

type Answer = Result<([(header::HeaderName, &'static str); 1], Vec<u8>), (StatusCode, String)>;

async fn generate(State(pipeline): State<Arc<Mutex<Pipeline>>>, body: String) -> Answer {
    let guard = Guard(Cancel::new());
    let cancel = guard.0.clone();
    // Runs take seconds, so they have a thread of their own.
    let work = tokio::task::spawn_blocking(move || -> Result<Vec<u8>, Error> {
        let mut images = Vec::new();
        let mut pipeline = pipeline.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        pipeline.run(&Request::from_json(&body)?, &cancel, &mut |event| {
            if let Event::Image(image) = event {
                images.push(image);
            }
        })?;
        images.pop().map_or(Ok(Vec::new()), |image| image.to_png())
    });
    let made = work.await.map_err(|panic| (StatusCode::INTERNAL_SERVER_ERROR, panic.to_string()))?;
    let status = |error: &Error| match error.kind() {
        ErrorKind::Request => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    made.map(|png| ([(header::CONTENT_TYPE, "image/png")], png)).map_err(|error| (status(&error), error.to_string()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = |at, default: &str| std::env::args().nth(at).unwrap_or_else(|| default.to_owned());
    let pipeline = Engine::default().open(argument(1, "pipeline.toml"))?;
    let app = Router::new().route("/", post(generate)).with_state(Arc::new(Mutex::new(pipeline)));
    Ok(axum::serve(tokio::net::TcpListener::bind(argument(2, "127.0.0.1:8080")).await?, app).await?)
}
