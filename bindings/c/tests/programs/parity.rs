//! The same bytes from the command, a batch, the library, C and C++, for the requests in `tests/parity`.
//!
//! `bindings/python/tests/test_parity.py` and `scripts/bindings/triton_requests.py` hold the wheel and the Triton backend to
//! the command's bytes for the same requests.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ldm_ort::image::ImageFormat;
use ldm_ort::{Engine, InputLimit, Request, Rgb8};
use serde_json::Value;

use super::{World, fixtures, libraries, run, succeed};

/// A finished image: its file, and its pixels.
type Made = (Vec<u8>, Vec<u8>);

/// A request, and the front ends' common files.
struct Case<'a> {
    entry: Value,
    folder: &'a Path,
}

/// A text of `tests/parity` with the repository's root in it.
fn text(name: &str) -> String {
    let root = fixtures::root();
    let path = root.join("tests/parity").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.replace("@ROOT@", &root.display().to_string())
}

/// A file that was written, and its pixels.
fn written(path: &Path) -> Made {
    let file = read(path);
    let pixels = Rgb8::decode(&file, InputLimit::default()).expect("an image").data().to_vec();
    (file, pixels)
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Case<'_> {
    fn name(&self) -> &str {
        self.entry["name"].as_str().expect("a name")
    }

    fn format(&self) -> &str {
        self.entry["format"].as_str().expect("a format")
    }

    /// The quality of JPEG, 0 for the formats without one.
    fn quality(&self) -> u8 {
        self.entry["quality"].as_u64().map_or(0, |quality| quality.try_into().expect("a quality"))
    }

    /// The input images by their keys.
    fn inputs(&self) -> BTreeMap<String, String> {
        let inputs = self.entry["inputs"].as_object().into_iter().flatten();
        inputs.map(|(key, path)| (key.clone(), path.as_str().expect("a path").to_owned())).collect()
    }

    /// The request without its input images, or with their paths.
    fn request(&self, with_paths: bool) -> String {
        let mut request = self.entry["request"].clone();
        for (key, path) in self.inputs().into_iter().filter(|_| with_paths) {
            request[key] = path.into();
        }
        request.to_string()
    }

    fn format_flags(&self) -> Vec<String> {
        let mut flags = vec!["--format".to_owned(), self.format().to_owned()];
        if self.quality() > 0 {
            flags.extend(["--quality".to_owned(), self.quality().to_string()]);
        }
        flags
    }

    fn command(&self) -> Command {
        let mut command = Command::new(libraries().join("ldm-ort"));
        command.env("LDM_ORT_OPTIMIZE", "0").current_dir(self.folder);
        command
    }

    /// The files of `ldm-ort run` with the request as flags.
    fn of_command(&self) -> Vec<Made> {
        let mut command = self.command();
        command.arg("run").arg(self.entry["pipeline"].as_str().expect("a pipeline"));
        command.args(self.entry["flags"].as_array().expect("flags").iter().map(|flag| flag.as_str().expect("a flag")));
        let output = command.args(self.format_flags()).args(["-q", "-o", self.name()]).output().expect("the command");
        assert!(output.status.success(), "{}: {}", self.name(), String::from_utf8_lossy(&output.stderr));
        let paths = String::from_utf8(output.stdout).expect("paths");
        paths.lines().map(|path| written(&self.folder.join(path))).collect()
    }

    /// The files of a batch of this request.
    fn of_batch(&self) -> Vec<Made> {
        let (line, out) = (format!("{}.jsonl", self.name()), format!("{}-batch", self.name()));
        std::fs::write(self.folder.join(&line), self.request(true) + "\n").expect("a file");
        succeed(self.command().args(["batch", "text.toml", &line, "-o", &out]).args(self.format_flags()));
        let manifest =
            std::fs::read_to_string(self.folder.join(&out).join("manifest/1-of-1.jsonl")).expect("a manifest");
        let mut entries: Vec<Value> =
            manifest.lines().map(|line| serde_json::from_str(line).expect("an entry")).collect();
        entries.sort_by_key(|entry| entry["image"].as_u64());
        let files = entries.iter().map(|entry| entry["file"].as_str().expect("a file"));
        files.map(|file| written(&self.folder.join(&out).join(file))).collect()
    }

    fn of_library(&self, in_memory: bool) -> Vec<Made> {
        let engine = Engine::builder().graph_cache(false).build().expect("an engine");
        let mut pipeline = engine.open(self.folder.join("text.toml")).expect("a pipeline");
        let mut request = Request::from_json(&self.request(!in_memory)).expect("a request");
        for (key, path) in self.inputs().into_iter().filter(|_| in_memory) {
            request = request.image(&key, Rgb8::decode(&read(path.as_ref()), InputLimit::default()).expect("an image"));
        }
        let format = match self.format() {
            "png" => ImageFormat::Png,
            "webp" => ImageFormat::WebP,
            _ => ImageFormat::Jpeg(self.quality()),
        };
        let images = pipeline.generate(&request).unwrap_or_else(|error| panic!("{}: {error}", self.name()));
        images.iter().map(|image| (image.encode(format).expect("a file"), image.rgb().to_vec())).collect()
    }

    /// The files of a program in C or C++.
    fn of_program(&self, program: &str, in_memory: bool) -> Vec<Made> {
        let out = tempfile::tempdir_in(self.folder).expect("a folder");
        let pipeline = self.folder.join("text.toml").display().to_string();
        let (request, quality) = (self.request(!in_memory), self.quality().to_string());
        let stem = out.path().join("image").display().to_string();
        let inputs: Vec<_> =
            self.inputs().iter().filter(|_| in_memory).map(|(key, path)| format!("{key}={path}")).collect();
        let mut arguments = vec![pipeline.as_str(), request.as_str(), self.format(), quality.as_str(), stem.as_str()];
        arguments.extend(inputs.iter().map(String::as_str));
        run(program, &arguments);
        let files = |at: usize| ["file", "rgb"].map(|extension| out.path().join(format!("image.{at}.{extension}")));
        let found = (0..).map(files).take_while(|[file, _]| file.is_file());
        found.map(|[file, pixels]| (read(&file), read(&pixels))).collect()
    }
}

#[test]
fn front_ends_make_the_same_bytes() {
    let world = World::new();
    let folder = world.0.path();
    for name in ["text.toml", "image.toml", "mask.toml"] {
        std::fs::write(folder.join(name), text(name)).expect("a file");
    }
    let programs = [world.compile("cc", "parity.c", &[]), world.compile("c++", "parity_wrapper.cpp", &[])];
    let entries: Vec<Value> = serde_json::from_str(&text("requests.json")).expect("requests");
    assert!(entries.len() >= 5);
    for entry in entries {
        let case = Case { entry, folder };
        let expected = case.of_command();
        let count = |key: &str| case.entry["request"][key].as_array().map_or(1, Vec::len);
        let images = case.entry["request"]["images"].as_u64().unwrap_or(1) as usize;
        assert_eq!(expected.len(), count("prompt") * images, "{}", case.name());
        let lossless = case.format() != "jpeg";
        let same = |front_end: &str, made: Vec<Made>, reference: &[Made], files: bool| {
            assert_eq!(made.len(), reference.len(), "{}: {front_end}", case.name());
            for ((file, rgb), (expected_file, expected_rgb)) in made.iter().zip(reference) {
                assert!(!lossless || rgb == expected_rgb, "{}: {front_end}: other pixels", case.name());
                assert!(!files || file == expected_file, "{}: {front_end}: another file", case.name());
            }
        };
        same("batch", case.of_batch(), &expected, true);
        same("library", case.of_library(false), &expected, true);
        for program in &programs {
            same(program, case.of_program(program, false), &expected, true);
        }
        if !case.inputs().is_empty() {
            // The record of an image in memory has no path, so that the files are the library's.
            let in_memory = case.of_library(true);
            for program in &programs {
                same(program, case.of_program(program, true), &in_memory, true);
            }
            same("library, in memory", in_memory, &expected, false);
        }
    }
}
