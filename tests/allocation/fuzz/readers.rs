//! One row a reader of single files.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ldm_ort::bundle::{ComponentKind, GraphFile, read_object};
use ldm_ort::lora::Lora;
use ldm_ort::rewrite::{Pass, branches, footprint, rewrite};
use ldm_ort::scheduler::{Config, ForwardProcess, Noise, ScheduleRequest, build};
use ldm_ort::text::{TextualInversion, tokenizer::Tokenizer};
use ldm_ort::{
    Overrides, Result, Spec,
    image::{self, InputLimit},
    metadata, npy,
};

use super::harness::{Reader, Seed};

pub fn root(path: &str) -> PathBuf {
    crate::fixtures::root().join(path)
}

/// The files below a folder that end so and are no larger than `largest` bytes, in order.
pub fn files(folder: &str, ending: &str, largest: u64) -> Vec<PathBuf> {
    fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() { collect(&path, into) } else { into.push(path) }
        }
    }
    let mut all = Vec::new();
    collect(&root(folder), &mut all);
    let is_small = |path: &PathBuf| path.metadata().is_ok_and(|file| file.len() <= largest);
    all.retain(|path| path.to_string_lossy().ends_with(ending) && is_small(path));
    all.sort();
    assert!(!all.is_empty(), "{folder} has no {ending}");
    all
}

fn alone(paths: Vec<PathBuf>) -> Vec<Seed> {
    paths.into_iter().map(Seed::alone).collect()
}

fn told<T>(result: Result<T>) -> std::result::Result<T, String> {
    result.map_err(|error| error.to_string())
}

#[test]
fn pipeline_files() {
    Reader {
        name: "pipeline TOML",
        // Those with flags are not valid without them.
        seeds: alone(files("tests/golden/pipelines", "pipeline.toml", 1 << 16)),
        read: |_, file| {
            let spec = told(Spec::load(file, &Overrides::default()))?;
            let text = spec.to_toml();
            let again = told(Spec::parse(&text, None, &Overrides::default()));
            let again = again.unwrap_or_else(|error| panic!("what was written is not read: {error}\n{text}"));
            assert_eq!(again.to_toml(), text, "what was written is read as something else");
            Ok(())
        },
        inputs: 4000,
        well_formed: 0.6,
        accepted: 0.05,
        names_file: true,
    }
    .run();
}

#[test]
fn graphs() {
    Reader {
        name: "ONNX header",
        seeds: alone(
            ["unet.onnx", "identity_f32.onnx", "scalar.onnx", "loop.onnx"]
                .map(|name| root("tests/fixtures/graphs").join(name))
                .into_iter()
                .filter(|path| path.exists())
                .chain(files("tests/fixtures/models/sd1", "model.onnx", 90_000))
                .chain([root("tests/golden/lora/files/fused.onnx")])
                .collect(),
        ),
        read: |_, file| {
            let graph = told(GraphFile::open(file))?;
            graph.draws_noise();
            graph.multiplies_in_integers();
            told(graph.digest()).map(drop)
        },
        inputs: 1500,
        well_formed: 0.5,
        accepted: 0.3,
        names_file: true,
    }
    .run();
}

#[test]
fn rewrites() {
    let unets = ["tests/fixtures/models/variants/unet-half.onnx", "tests/fixtures/families/upscale/unet/model.onnx"];
    Reader {
        name: "ONNX rewrites",
        seeds: alone(
            files("tests/fixtures/rewrite", ".onnx", 1 << 17)
                .into_iter()
                .filter(|path| !path.with_extension("weights").exists())
                .chain(unets.map(root))
                .collect(),
        ),
        read: |_, file| {
            let graph = told(GraphFile::open(file))?;
            let passes = [Pass::Attention, Pass::Subpixel, Pass::Winograd, Pass::FeedForward];
            let axes = [("batch_size", 2), ("height", 8), ("width", 8), ("sequence_length", 16)];
            let axes = axes.map(|(name, length)| (name.to_owned(), length));
            told(rewrite(&graph, &passes, &axes))?;
            told(footprint(&graph, &passes, &axes))?;
            told(branches(&graph)).map(drop)
        },
        inputs: 250,
        well_formed: 0.5,
        accepted: 0.3,
        names_file: true,
    }
    .run();
}

/// Opens a tokenizer and reads texts with it.
fn tokenize(folder: &Path, _: &Path) -> std::result::Result<(), String> {
    let tokenizer = told(Tokenizer::open(folder))?;
    let long = "a photo of an astronaut, riding aaaaaaaa ".repeat(12);
    let same = "a".repeat(64) + "!";
    for text in [
        "",
        "a photo of a cat",
        "<|endoftext|> </s> [MASK] <extra_id_0>",
        "é\u{301}日本 \u{1f642}\u{0}\t",
        &long,
        &same,
    ] {
        told(tokenizer.encode(text))?;
        told(tokenizer.tokens(text))?;
    }
    Ok(())
}

#[test]
fn tokenizers_of_one_file() {
    let folders = ["tokenizer-json", "tokenizer-t5", "tokenizer-bert-json"];
    let of = |folder: &str| {
        let folder = root("tests/fixtures").join(folder);
        // The tokenizer itself more often than what says how it is used.
        let files = ["tokenizer.json", "tokenizer.json", "tokenizer.json", "tokenizer.json", "tokenizer_config.json"];
        files.map(|file| Seed::within(&folder, file))
    };
    Reader {
        name: "tokenizer.json",
        seeds: folders.into_iter().flat_map(of).collect(),
        read: tokenize,
        inputs: 3000,
        well_formed: 0.6,
        accepted: 0.1,
        names_file: true,
    }
    .run();
}

#[test]
fn vocabularies_and_merges() {
    let clip = root("tests/fixtures/tokenizer-sd1");
    let files = ["vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"];
    let mut seeds: Vec<_> = files.map(|file| Seed::within(&clip, file)).into();
    let bert = root("tests/fixtures/systems/text-bert/tokenizer");
    seeds.extend(["vocab.txt", "tokenizer_config.json"].map(|file| Seed::within(&bert, file)));
    Reader {
        name: "vocab and merges",
        seeds,
        read: tokenize,
        inputs: 800,
        well_formed: 0.6,
        accepted: 0.2,
        names_file: true,
    }
    .run();
}

/// Draws nothing.
struct Zeros;

impl Noise for Zeros {
    fn fill(&mut self, out: &mut [f32]) {
        out.fill(0.0);
    }

    fn seed(&self, _: usize) -> u64 {
        0
    }

    fn fill_seeded(&self, _: u64, out: &mut [f32]) {
        out.fill(0.0);
    }
}

#[test]
fn scheduler_configurations() {
    Reader {
        name: "scheduler config",
        seeds: alone(files("tests/fixtures", "scheduler_config.json", 1 << 16)),
        read: |_, file| {
            let config: Config = told(read_object(file))?;
            let name = config.get("_class_name").and_then(|name| name.as_str()).unwrap_or("ddim");
            // Of a flow model only its own scheduler reads the configuration.
            let is_flow = config.get("prediction_type").is_some_and(|kind| kind == "flow_prediction");
            let others = [("euler", 3), ("dpm-multistep", 20), ("pndm", 50)].into_iter().filter(|_| !is_flow);
            for (name, steps) in [(name, 1), (name, 7)].into_iter().chain(others) {
                let mut request = ScheduleRequest::new(steps, 1);
                request.mu = Some(0.8);
                let mut scheduler = told(build(name, Some(&config), &Config::new(), &request))?;
                let (mut x, mut scaled) = (vec![0.5; 8], vec![0.0; 8]);
                for step in 0..scheduler.timesteps().len().min(40) {
                    scheduler.scale_model_input(step, &x, &mut scaled);
                    told(scheduler.step(step, &[0.25; 8], &mut x, &mut Zeros))?;
                }
            }
            if is_flow { Ok(()) } else { told(ForwardProcess::new("DDPMScheduler", &config)).map(drop) }
        },
        inputs: 1500,
        well_formed: 0.6,
        accepted: 0.1,
        names_file: false,
    }
    .run();
}

#[test]
fn loras() {
    let seeds = ["kohya", "diffusers", "kohya-text", "kohya-half"].map(|name| format!("{name}.safetensors"));
    Reader {
        name: "LoRA",
        seeds: alone(seeds.iter().map(|name| root("tests/golden/lora/files").join(name)).collect()),
        read: |_, file| {
            static GRAPHS: OnceLock<[GraphFile; 2]> = OnceLock::new();
            let [unet, text] = GRAPHS.get_or_init(|| {
                ["unet", "text_encoder"].map(|part| {
                    let folder = root("tests/fixtures/models/sd1");
                    GraphFile::open(&folder.join(part).join("model.onnx")).expect("a fixture")
                })
            });
            let lora = Lora { path: file.to_path_buf(), denoiser_scale: 0.5, text_encoder_scale: 0.5 };
            told(lora.check(&[(ComponentKind::Unet, unet), (ComponentKind::TextEncoder, text)]))?;
            told(ldm_ort::lora::merge(&[lora], ComponentKind::Unet, unet)).map(drop)
        },
        inputs: 250,
        well_formed: 0.2,
        accepted: 0.02,
        names_file: true,
    }
    .run();
}

#[test]
fn embeddings() {
    Reader {
        name: "embedding",
        seeds: alone(files("tests/golden/pipelines", ".safetensors", 1 << 16)),
        read: |_, file| {
            let inversion = told(TextualInversion::open(file, None))?;
            told(inversion.of_encoder(1, 1)).map(drop)
        },
        inputs: 4000,
        well_formed: 0.2,
        accepted: 0.05,
        names_file: true,
    }
    .run();
}

#[test]
fn arrays() {
    Reader {
        name: "npy",
        seeds: alone(files("tests/golden/pipelines", ".npy", 1 << 16)),
        read: |_, file| told(npy::read_f32(file)).map(drop),
        inputs: 4000,
        well_formed: 1.0,
        accepted: 0.1,
        names_file: true,
    }
    .run();
}

const IMAGES: [&str; 4] = ["png", "jpg", "bmp", "webp"];

/// Small images in a format that is read, without those that say what they become.
fn of_format(ending: &str) -> Vec<PathBuf> {
    let mut all = files("tests/golden/image/load", ending, 1 << 12);
    all.retain(|path| !path.to_string_lossy().ends_with(".rgb.png"));
    all
}

#[test]
fn images() {
    Reader {
        name: "image",
        seeds: alone(IMAGES.iter().flat_map(|ending| of_format(ending)).collect()),
        read: |_, file| {
            let dimensions = told(image::dimensions(file, InputLimit::default()));
            let image = told(image::load(file, InputLimit::default()))?;
            assert_eq!(dimensions, Ok((image.width(), image.height())), "two readers of the size disagree");
            told(image::resize(&image, 8, 8)).map(drop)
        },
        inputs: 3000,
        well_formed: 0.5,
        accepted: 0.1,
        names_file: true,
    }
    .run();
}

#[test]
fn label_and_depth_maps() {
    Reader {
        name: "label map",
        seeds: alone(of_format("grey.png")),
        read: |_, file| {
            told(image::load_gray(file, InputLimit::default()))?;
            told(image::load_labels(file, InputLimit::default())).map(|map| drop(map.resize(5, 7)))
        },
        inputs: 2000,
        well_formed: 0.3,
        accepted: 0.1,
        names_file: true,
    }
    .run();
}

#[test]
fn records() {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder"));
    let pipeline = root("tests/golden/pipelines/plain/pipeline.toml");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ldm-ort"));
    command.arg("run").arg(pipeline).args(["--steps", "1", "--quiet", "--output"]).arg(folder.path());
    let made = command.env("LDM_ORT_OPTIMIZE", "0").output().expect("the program runs");
    let image = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
    let record = metadata::read_png(&image).unwrap_or_else(|error| panic!("{error}\n{made:?}"));
    let path = folder.path().join("record.json");
    std::fs::write(&path, serde_json::to_string(&record).expect("a record is JSON")).expect("a file");
    Reader {
        name: "record",
        seeds: vec![Seed::alone(path), Seed::alone(image)],
        read: |folder, file| {
            let mut image = file.to_path_buf();
            if file.extension().is_some_and(|extension| extension == "json") {
                let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let pixels = image::Rgb8::new(1, 1, vec![0; 3]).ok_or("no pixels")?;
                let png = told(image::encode_png(&pixels, &[(metadata::RECORD_KEYWORD, text)]));
                image = folder.join("image.png");
                std::fs::write(&image, png.map_err(|error| format!("{}: {error}", folder.display()))?)
                    .map_err(|error| error.to_string())?;
            }
            let record = told(metadata::read_png(&image))?;
            drop(Spec::parse(&record.pipeline, None, &Overrides::default()));
            drop(record.parameters());
            Ok(())
        },
        inputs: 3000,
        well_formed: 0.5,
        accepted: 0.1,
        names_file: true,
    }
    .run();
}
