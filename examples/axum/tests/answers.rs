//! The handler answers with an image, and with the text of an error.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

/// The program, which ends with the test.
struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}

impl Server {
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let pipeline = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipeline.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ldm-ort-axum"));
        command.args([pipeline, &free.to_string()]).env("LDM_ORT_OPTIMIZE", "0");
        Self { process: command.spawn().expect("the program"), address: free.to_string() }
    }

    /// Sends a request, and returns the status and the body of the answer.
    fn post(&mut self, body: &str) -> (u16, Vec<u8>) {
        let mut stream = loop {
            match TcpStream::connect(&self.address) {
                Ok(stream) => break stream,
                // It listens once the pipeline is open.
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
            assert!(self.process.try_wait().expect("a state").is_none(), "the program has ended");
        };
        let length = body.len();
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        stream.write_all((head + body).as_bytes()).expect("a request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
        let status = String::from_utf8_lossy(&answer[9..12]).parse().expect("a status");
        (status, answer.split_off(end + 4))
    }
}

#[test]
fn requests_are_answered() {
    let mut server = Server::start();
    let request = r#"{"prompt": "a red circle", "seed": 7, "steps": 2}"#;
    let (status, png) = server.post(request);
    assert_eq!((status, &png[..4]), (200, &b"\x89PNG"[..]));
    let (status, text) = server.post(r#"{"prompt": "a red circle", "stps": 2}"#);
    assert!(status == 400 && String::from_utf8_lossy(&text).contains("stps"), "{status}");
    assert!(server.post(request) == (200, png), "another image after an error");
}
