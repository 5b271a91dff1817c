//! Fetches from a package index that the test serves on the loopback interface.

use std::io::{BufRead, BufReader, Cursor};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use zip::write::SimpleFileOptions;

use super::*;
use crate::session::fetch::{Flavor, InstalledBuild, install, tidy};
use crate::session::library::Env;

/// The server's answer for a path: a content type and a body, or nothing.
type Pages = Arc<dyn Fn(&str) -> Option<(&'static str, Vec<u8>)> + Send + Sync>;

/// Serves `pages` for the life of the process and returns the URL.
fn serve(pages: impl Fn(&str) -> Option<(&'static str, Vec<u8>)> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let pages: Pages = Arc::new(pages);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let pages = Arc::clone(&pages);
            thread::spawn(move || answer(stream, &pages));
        }
    });
    address
}

fn answer(mut stream: TcpStream, pages: &Pages) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_string();
    while !lines.next()?.ok()?.is_empty() {}
    let head = match pages(&path) {
        Some((mime, body)) => {
            // A body that ends in this mark is sent shorter than the announced length.
            let sent = body.strip_suffix(CUT).unwrap_or(&body);
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {mime}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            )
            .ok()?;
            stream.write_all(sent)
        }
        None => write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    };
    head.ok()
}

const CUT: &[u8] = b"--- cut here ---";
const JSON: &str = "application/vnd.pypi.simple.v1+json";
const FILE: &str = "onnxruntime-1.31.1-cp312-cp312-any.whl";

/// A wheel with two libraries and files that must not be unpacked.
fn archive() -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    for (name, bytes) in [
        ("onnxruntime/__init__.py", "print()"),
        ("onnxruntime/capi/libonnxruntime.so.1.31.1", "the library"),
        ("onnxruntime/capi/libonnxruntime_providers_shared.so", "the shared part"),
        ("onnxruntime/capi/onnxruntime_pybind11_state.cpython-312-x86_64-linux-gnu.so", "Python's module"),
        ("onnxruntime/capi/../../../escaped.so", "outside"),
        ("elsewhere/libother.so", "other"),
    ] {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fetches `FILE` with the digest `sha256` from the index at `address` into `cache`.
fn fetch(
    address: &str,
    cache: &Path,
    sha256: &str,
    cancel: &Cancel,
    observer: &mut dyn FnMut(&FetchEvent),
) -> Result<bool> {
    let wheel =
        Wheel { flavor: Flavor::Cpu, os: "any", arch: "any", file: FILE, sha256, bytes: archive().len() as u64 };
    let env = Env { index_url: Some(format!("{address}/simple/")), ..Env::default() };
    let job = Job {
        wheel: &wheel,
        index: index::address(&env),
        agent: http::agent(None).unwrap(),
        cancel,
        cache,
        folder: &cache.join("1.31.1-cpu"),
        manual_steps: "do it by hand",
    };
    job.run(observer)
}

fn page(sha256: &str) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({
        "meta": { "api-version": "1.1" },
        "files": [{ "filename": FILE, "url": format!("/files/{FILE}"), "hashes": { "sha256": sha256 } }],
    }))
    .unwrap()
}

/// An index that offers `body` under the digest `sha256`.
fn index_of(sha256: &str, body: Vec<u8>) -> impl Fn(&str) -> Option<(&'static str, Vec<u8>)> + use<> {
    let page = page(sha256);
    move |path| match path {
        "/simple/onnxruntime/" => Some((JSON, page.clone())),
        _ if path == format!("/files/{FILE}") => Some(("application/octet-stream", body.clone())),
        _ => None,
    }
}

/// The names in a folder, sorted, without the lock.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name != LOCK);
    names.sort();
    names
}

#[test]
fn fetches_checks_and_unpacks() {
    let (wheel, cache) = (archive(), tempfile::tempdir().unwrap());
    let digest = sha256(&wheel);
    let address = serve(index_of(&digest, wheel.clone()));
    let mut events = Vec::new();
    let was_there = fetch(&address, cache.path(), &digest, &Cancel::new(), &mut |e| events.push(e.clone())).unwrap();
    assert!(!was_there);
    assert_eq!(names(cache.path()), ["1.31.1-cpu"]);
    let folder = cache.path().join("1.31.1-cpu");
    assert_eq!(names(&folder), ["SHA256SUMS", "libonnxruntime.so.1.31.1", "libonnxruntime_providers_shared.so"]);
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    assert!(sums.contains(&format!("{}  libonnxruntime.so.1.31.1\n", self::sha256(b"the library"))), "{sums}");
    assert_eq!(std::fs::read(folder.join("libonnxruntime.so.1.31.1")).unwrap(), b"the library");

    let host = address.strip_prefix("http://").unwrap().to_string();
    let begin = FetchEvent::Begin { file: FILE.into(), host, bytes: wheel.len() as u64, folder: folder.clone() };
    assert_eq!(events.first(), Some(&begin));
    assert_eq!(
        events.get(events.len() - 2),
        Some(&FetchEvent::Progress { done: wheel.len() as u64, total: wheel.len() as u64 })
    );
    assert_eq!(events.last(), Some(&FetchEvent::Done { folder }));
    assert!(fetch(&address, cache.path(), &digest, &Cancel::new(), &mut |_| {}).unwrap());
}

#[test]
fn a_mirror_may_speak_html() {
    let (wheel, cache) = (archive(), tempfile::tempdir().unwrap());
    let digest = sha256(&wheel);
    let address = serve(move |path| match path {
        "/simple/onnxruntime/" => {
            Some(("text/html; charset=utf-8", format!("<a href=\"../../w/{FILE}#sha256=x\">{FILE}</a>").into_bytes()))
        }
        _ if path == format!("/w/{FILE}") => Some(("application/octet-stream", wheel.clone())),
        _ => None,
    });
    fetch(&address, cache.path(), &digest, &Cancel::new(), &mut |_| {}).unwrap();
    assert_eq!(names(cache.path()), ["1.31.1-cpu"]);
}

#[test]
fn another_file_is_refused_and_leaves_nothing() {
    let (wheel, cache) = (archive(), tempfile::tempdir().unwrap());
    let digest = sha256(b"the official file");
    let address = serve(index_of(&digest, wheel));
    let error = fetch(&address, cache.path(), &digest, &Cancel::new(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("is not the official file") && error.contains(&digest), "{error}");
    assert!(error.contains("do it by hand"), "{error}");
    assert_eq!(names(cache.path()), [""; 0]);

    // If the index itself announces another digest, the file is not requested.
    let address = serve(index_of(&sha256(b"a forgery"), archive()));
    let mut begun = false;
    let error = fetch(&address, cache.path(), &digest, &Cancel::new(), &mut |_| begun = true).unwrap_err().to_string();
    assert!(error.contains("offers another") && !begun, "{error}");
}

/// A server that sends more than it announced does not fill the disk.
#[test]
fn no_more_is_written_than_the_official_file_has() {
    let (mut wheel, cache) = (archive(), tempfile::tempdir().unwrap());
    let (digest, official) = (sha256(&wheel), wheel.len() as u64);
    wheel.resize(8 << 20, 0);
    let address = serve(index_of(&digest, wheel));
    let mut most = 0;
    let error = fetch(&address, cache.path(), &digest, &Cancel::new(), &mut |event| {
        if let FetchEvent::Progress { done, .. } = event {
            most = most.max(*done);
        }
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&format!("is longer than the official file's {official} bytes")), "{error}");
    assert!(most <= official, "{most} of {official} bytes were written");
    assert_eq!(names(cache.path()), [""; 0]);
}

/// A silent server, at the index or in the middle of the file, does not delay cancellation.
#[test]
fn a_silent_server_does_not_hold_a_thrown_switch_up() {
    let digest = sha256(&archive());
    for silent in ["/simple/", "/files/"] {
        let (said, hears) = mpsc::channel::<()>();
        let said = std::sync::Mutex::new(said);
        let pages = index_of(&digest, archive());
        let address = serve(move |path| {
            if path.starts_with(silent) {
                said.lock().unwrap().send(()).unwrap();
                loop {
                    thread::park();
                }
            }
            pages(path)
        });
        let (cache, cancel) = (tempfile::tempdir().unwrap(), Cancel::new());
        let other = cancel.clone();
        thread::spawn(move || {
            hears.recv().unwrap();
            other.cancel();
        });
        // Without its own limit, this would wait for the server's sixty seconds.
        let result = fetch(&address, cache.path(), &digest, &cancel, &mut |_| {});
        assert!(matches!(result, Err(Error::Interrupted { .. })), "{silent}: {result:?}");
        assert_eq!(names(cache.path()), [""; 0]);
    }
}

#[test]
fn a_download_cut_short_leaves_nothing() {
    let (mut wheel, cache) = (archive(), tempfile::tempdir().unwrap());
    let digest = sha256(&wheel);
    wheel.extend_from_slice(CUT);
    let address = serve(index_of(&digest, wheel));
    let error = fetch(&address, cache.path(), &digest, &Cancel::new(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("fetching http://127.0.0.1"), "{error}");
    assert_eq!(names(cache.path()), [""; 0]);
}

#[test]
fn what_an_earlier_cut_off_run_left_is_removed() {
    let (wheel, cache) = (archive(), tempfile::tempdir().unwrap());
    let digest = sha256(&wheel);
    let remains = cache.path().join(format!("{UNFINISHED}old"));
    std::fs::create_dir(&remains).unwrap();
    std::fs::write(remains.join("part"), "half").unwrap();
    let address = serve(index_of(&digest, wheel));
    fetch(&address, cache.path(), &digest, &Cancel::new(), &mut |_| {}).unwrap();
    assert_eq!(names(cache.path()), ["1.31.1-cpu"]);

    let home = tempfile::tempdir().unwrap();
    let remains = home.path().join("runtime").join(format!("{UNFINISHED}old"));
    std::fs::create_dir_all(&remains).unwrap();
    let env = Env { cache_dir: Some(home.path().to_path_buf()), ..Env::default() };
    tidy(&RuntimeOptions { env, ..RuntimeOptions::default() });
    assert!(!remains.exists());
}

#[test]
fn a_missing_project_and_a_silent_address_are_told() {
    let cache = tempfile::tempdir().unwrap();
    let address = serve(|_| None);
    let error = fetch(&address, cache.path(), "ab", &Cancel::new(), &mut |_| {}).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let error = error.to_string();
    assert!(error.contains("/simple/onnxruntime/ failed") && error.contains("404"), "{error}");
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("http://127.0.0.1:{port}");
    let error = fetch(&address, cache.path(), "ab", &Cancel::new(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("asking http://127.0.0.1"), "{error}");
}

#[test]
fn two_at_once_download_once() {
    let (wheel, cache) = (archive(), tempfile::tempdir().unwrap());
    let digest = sha256(&wheel);
    let downloads = Arc::new(AtomicUsize::new(0));
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let pages = index_of(&digest, wheel);
    let counter = Arc::clone(&downloads);
    let address = serve(move |path| {
        if path.starts_with("/files/") {
            counter.fetch_add(1, Ordering::SeqCst);
            // The file is sent only once the second process is known to wait.
            wait.lock().unwrap().recv().unwrap();
        }
        pages(path)
    });
    let first = thread::spawn({
        let (address, digest, cache) = (address.clone(), digest.clone(), cache.path().to_path_buf());
        move || fetch(&address, &cache, &digest, &Cancel::new(), &mut |_| {}).unwrap()
    });
    while downloads.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    let mut events = Vec::new();
    let second = fetch(&address, cache.path(), &digest, &Cancel::new(), &mut |e| {
        events.push(e.clone());
        go.send(()).unwrap();
    });
    assert!(!first.join().unwrap());
    assert!(second.unwrap());
    assert_eq!(events, [FetchEvent::Waiting { folder: cache.path().to_path_buf() }]);
    assert_eq!(downloads.load(Ordering::SeqCst), 1);
    assert_eq!(names(cache.path()), ["1.31.1-cpu"]);
}

#[test]
fn a_thrown_switch_stops_a_download_and_leaves_nothing() {
    let (wheel, cache) = (archive(), tempfile::tempdir().unwrap());
    let digest = sha256(&wheel);
    let address = serve(index_of(&digest, wheel));
    let cancel = Cancel::new();
    let other = cancel.clone();
    let result = fetch(&address, cache.path(), &digest, &cancel, &mut |_| other.cancel());
    assert!(matches!(result, Err(Error::Interrupted { .. })), "{result:?}");
    assert_eq!(names(cache.path()), [""; 0]);
}

#[test]
fn offline_says_what_to_install_by_hand_and_where() {
    let home = tempfile::tempdir().unwrap();
    let env = Env { cache_dir: Some(home.path().to_path_buf()), ..Env::default() };
    let options = RuntimeOptions { offline: true, env, ..RuntimeOptions::default() };
    let error = install(Flavor::Cuda, &options, &mut |_| {}).unwrap_err().to_string();
    for part in ["cuda", "onnxruntime-gpu==1.31.1", "1.31.1-cuda", "--runtime", "ORT_DYLIB_PATH"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!home.path().join("runtime").exists());

    let folder = home.path().join("runtime/1.31.1-cuda");
    std::fs::create_dir_all(&folder).unwrap();
    let installed = install(Flavor::Cuda, &options, &mut |_| {}).unwrap();
    assert_eq!(installed, InstalledBuild { folder, version: "1.31.1", was_there: true });
}
