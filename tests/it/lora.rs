//! LoRAs: merged weights give the same images as diffusers.
//!
//! The references are in `tests/golden/lora`, made by `scripts/goldens/golden_lora.py`. Each folder there with a pipeline.toml
//! is a test.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::common::{answer, ldm_ort, models, npy, root};
use ldm_ort::bundle::{ComponentKind, GraphFile, ModuleWeights};
use ldm_ort::engine::model_digest;
use ldm_ort::lora::{Lora, merge};
use ldm_ort::session::{Cancel, Optimization, Runtime, Session, SessionOptions};
use ldm_ort::tensor::{DType, WeightValues};
use ldm_ort::{Overrides, Plan, Spec};

fn golden() -> PathBuf {
    root().join("tests/golden/lora")
}

/// Runs a pipeline with its images in `folder`, and returns the final latents and the first image's bytes.
fn draw(folder: &Path, pipeline: &Path) -> Result<(npy::Array, Vec<u8>), String> {
    let mut command = ldm_ort(folder);
    command.arg("run").arg(pipeline).args(["--save-latents", "latents.npy", "--json", "--output"]).arg(folder);
    let answer = answer(command);
    if answer.code != Some(0) {
        return Err(answer.to_string());
    }
    let line = answer.stdout.lines().next().ok_or("no image was told of")?;
    let image: serde_json::Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let path = folder.join(image["path"].as_str().ok_or("the image has no path")?);
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    Ok((npy::read(&folder.join("latents.npy")), bytes))
}

fn compare(case: &Path) -> Result<String, String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let limits = std::fs::read_to_string(case.join("case.json")).map_err(|error| error.to_string())?;
    let limits: serde_json::Value = serde_json::from_str(&limits).map_err(|error| error.to_string())?;
    let (got, _) = draw(scratch.path(), &case.join("pipeline.toml"))?;
    let want = npy::read(&case.join("latents.npy"));
    if got.shape != want.shape {
        return Err(format!("latents are {:?}, not {:?}", got.shape, want.shape));
    }
    let apart = f64::from(got.difference(&want));
    if apart > limits["rel"].as_f64().ok_or("case.json has no rel")? {
        return Err(format!("latents differ by {apart:.1e} of the largest"));
    }
    Ok(format!("latents {apart:.1e}"))
}

#[test]
fn every_lora_is_drawn_as_diffusers_draws_it() {
    let entries = std::fs::read_dir(golden()).expect("the references are there");
    let folders = entries.map(|entry| entry.expect("an entry").path());
    let folders: Vec<PathBuf> = folders.filter(|path| path.join("pipeline.toml").exists()).collect();
    assert!(folders.len() >= 15, "only {} references found", folders.len());
    let (queue, wrong) = (Mutex::new(folders.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get().min(8)) {
            scope.spawn(|| {
                while let Some(case) = { queue.lock().expect("no worker panicked").next() } {
                    let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    match compare(case) {
                        Ok(note) => println!("{name:16} {note}"),
                        Err(problem) => wrong.lock().expect("no worker panicked").push(format!("{name}: {problem}")),
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().expect("no worker panicked");
    wrong.sort();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), folders.len(), wrong.join("\n"));
}

/// Writes a pipeline for a tiny model with additional tables to a file.
fn pipeline(folder: &Path, name: &str, model: &str, tables: &str) -> PathBuf {
    let model = models().join(model);
    let text = format!(
        "[model]\npath = '{}'\n{tables}\n[task.text-to-image]\nprompt = 'a red circle'\n[run]\nsteps = 2\nseed = 1\n\
         width = 64\nheight = 64\n",
        model.display()
    );
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the folder can be written to");
    path
}

fn table(file: &str, keys: &str) -> String {
    format!("[[lora]]\npath = '{}'\n{keys}\n", golden().join("files").join(file).display())
}

/// Writes a safetensors file with float32 zeros, and with numbers of other types.
fn write_zeros(path: &Path, tensors: &[(String, Vec<usize>)]) {
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let end = at + 4 * shape.iter().product::<usize>();
        let tensor = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]});
        header.insert(name.clone(), tensor);
        at = end;
    }
    let header = serde_json::Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; at]].concat();
    std::fs::write(path, bytes).expect("the folder can be written to");
}

/// `check` and a run skip modules that the model lacks, and report their number and names.
#[test]
fn what_a_model_has_no_place_for_is_left_out_with_a_warning() {
    const KNOWN: &str = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";
    let pair = |module: &str| {
        [(format!("{module}.lora_down.weight"), vec![2, 16]), (format!("{module}.lora_up.weight"), vec![16, 2])]
    };
    let one = |name: &str| vec![(name.to_owned(), vec![1])];
    let strays = (0..5).flat_map(|i| pair(&format!("lora_unet_down_blocks_7_attentions_{i}_proj_in"))).collect();
    for (more, words) in [
        (strays, &["5 of its 6 modules of the denoiser", "unet/model.onnx", "attentions_0_proj_in", "and 2 more"][..]),
        (
            pair("lora_te2_text_model_encoder_layers_0_mlp_fc1").to_vec(),
            &["1 module of text_encoder_2", "does not load"],
        ),
        (pair("lora_te3_encoder_block_0_layer_0_SelfAttention_q").to_vec(), &["1 module of text_encoder_3"]),
        (one("lora_unet_mid_block_x.alpha"), &["1 module with an alpha but no matrices", "mid_block_x"]),
        (one("lora_unet_down_blocks_7_x.hada_w1_a"), &["1 tensor of ", "LoHa", "down_blocks_7_x"]),
        (one("lora_te2_text_model_final_layer_norm.diff"), &["1 tensor of ", "full difference"]),
        (one("bundle_emb.cat.string_to_param.*"), &["1 tensor of ", "[[textual_inversion]]", "bundle_emb.cat"]),
        (one("epoch"), &["1 tensor of ", "an unknown naming", "epoch"]),
    ] {
        let scratch = tempfile::tempdir().expect("a folder");
        write_zeros(&scratch.path().join("style.safetensors"), &[pair(KNOWN).to_vec(), more].concat());
        let path = pipeline(scratch.path(), "pipeline.toml", "sd1", "[[lora]]\npath = 'style.safetensors'\n");
        for arguments in [&["check"][..], &["run", "--output", "out"]] {
            let mut command = ldm_ort(scratch.path());
            command.arg(arguments[0]).arg(&path).args(&arguments[1..]);
            let answer = answer(command);
            assert_eq!(answer.code, Some(0), "{answer}");
            let line = answer
                .stderr
                .lines()
                .find(|line| line.contains("style.safetensors is merged without "))
                .expect("a warning");
            words.iter().for_each(|word| assert!(line.contains(word), "{word}: {line}"));
        }
    }
}

/// Internal and external weights are changed.
#[test]
fn scale_0_leaves_the_bits_alone() {
    for model in ["sd1", "sd1-legacy"] {
        let scratch = tempfile::tempdir().expect("a folder");
        let none = pipeline(scratch.path(), "none.toml", model, "");
        let (none, _) = draw(scratch.path(), &none).unwrap_or_else(|problem| panic!("{problem}"));
        let all = ["kohya.safetensors", "peft.safetensors"].map(|file| table(file, "scale = 0"));
        let parts = table("peft.safetensors", "unet_scale = 0\ntext_encoder_scale = 0.0");
        let undone = [table("kohya.safetensors", "unet_scale = 0.0"), table("kohya-text.safetensors", "scale = -0.0")];
        for (i, tables) in [all.concat(), parts, undone.concat()].iter().enumerate() {
            let path = pipeline(scratch.path(), &format!("{i}.toml"), model, tables);
            let (got, _) = draw(scratch.path(), &path).unwrap_or_else(|problem| panic!("{problem}"));
            let bits = |array: &npy::Array| array.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(&got) == bits(&none), "{model}: {tables}");
        }
        let path = pipeline(scratch.path(), "some.toml", model, &table("kohya.safetensors", ""));
        let (got, _) = draw(scratch.path(), &path).unwrap_or_else(|problem| panic!("{problem}"));
        assert!(got.difference(&none) > 0.01, "{model}: a LoRA at scale 1 changes nothing");
    }
}

/// The graph's files do not change, and an image's record lists the LoRAs.
#[test]
fn an_image_is_drawn_again_from_its_record_and_no_file_is_changed() {
    let scratch = tempfile::tempdir().expect("a folder");
    let graph = models().join("sd1/unet/model.onnx");
    let before = std::fs::read(&graph).expect("the graph");
    let tables = [table("kohya.safetensors", "scale = 0.7"), table("peft.safetensors", "text_encoder_scale = -0.25")];
    let path = pipeline(scratch.path(), "pipeline.toml", "sd1", &tables.concat());
    let (latents, image) = draw(scratch.path(), &path).unwrap_or_else(|problem| panic!("{problem}"));
    assert!(std::fs::read(&graph).expect("the graph") == before, "the graph's file was changed");

    let first = scratch.path().join("first.png");
    std::fs::write(&first, &image).expect("the folder can be written to");
    let again = tempfile::tempdir().expect("a folder");
    let mut command = ldm_ort(again.path());
    command.args(["run", "--from"]).arg(&first).args(["--save-latents", "latents.npy", "--output", "out"]);
    // A record names no file outside of its folder.
    command.arg("--model").arg(models().join("sd1"));
    for (at, name) in ["kohya.safetensors", "peft.safetensors"].into_iter().enumerate() {
        command.arg("--input").arg(format!("lora[{at}].path={}", golden().join("files").join(name).display()));
    }
    let answer = answer(command);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert!(npy::read(&again.path().join("latents.npy")).values == latents.values);
    let drawn = std::fs::read_dir(again.path().join("out")).expect("images").next().expect("an image");
    assert!(std::fs::read(drawn.expect("an entry").path()).expect("an image") == image, "other bytes");
}

/// A file that changes between its check and its use is an error, and nothing worse.
#[test]
fn a_graph_that_changes_meanwhile_is_an_error_at_most() {
    let scratch = tempfile::tempdir().expect("a folder");
    let path = scratch.path().join("model.onnx");
    let whole = std::fs::read(models().join("sd1/text_encoder/model.onnx")).expect("the graph");
    std::fs::write(&path, &whole).expect("the folder can be written to");
    let graph = GraphFile::open(&path).expect("a graph");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("the folder can be written to");
        let weights = ModuleWeights::open(&graph).ok()?;
        Some(weights.modules.iter().filter(|weight| weights.read(weight).is_ok()).count())
    };
    assert_eq!(read(&whole), Some(12));
    let mut state = 1u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for _ in 0..300 {
        let mut bytes = whole.clone();
        match random(3) {
            0 => bytes.truncate(1 + random(whole.len() - 1)),
            // The weights are at the end of a file, after its structure.
            1 => bytes[random(20_000)] = random(256) as u8,
            _ => (0..8).for_each(|_| bytes[random(whole.len())] = random(256) as u8),
        }
        read(&bytes);
    }
}

/// A record's digest covers all files that were opened, including the LoRAs'.
#[test]
fn the_digest_takes_in_the_loras() {
    let scratch = tempfile::tempdir().expect("a folder");
    let digest = |tables: &str| {
        let path = pipeline(scratch.path(), "pipeline.toml", "sd1", tables);
        let plan = Plan::new(Spec::load(&path, &Overrides::default()).expect("a spec")).expect("a plan");
        model_digest(&plan.execution).expect("files")
    };
    let (none, kohya, peft) =
        (digest(""), digest(&table("kohya.safetensors", "")), digest(&table("peft.safetensors", "")));
    assert!(none != kohya && kohya != peft && peft != none);
    assert_eq!(kohya, digest(&table("kohya.safetensors", "scale = 0.5")));
}

/// Adding and subtracting the same change restores half-precision weights, since the sum is rounded only once.
#[test]
fn halves_are_rounded_once() {
    let path = models().join("variants/unet-half.onnx");
    let graph = GraphFile::open(&path).expect("a graph");
    let lora = |scale| Lora {
        path: golden().join("files/one-level.safetensors"),
        denoiser_scale: scale,
        text_encoder_scale: 0.0,
    };
    let merged = |loras: &[Lora]| merge(loras, ComponentKind::Unet, &graph).expect("a LoRA that fits");
    let weights = ModuleWeights::open(&graph).expect("weights");
    let (once, back) = (merged(&[lora(0.3)]), merged(&[lora(0.3), lora(0.2), lora(-0.5)]));
    assert_eq!((once.len(), back.len()), (12, 12));
    for (once, back) in once.iter().zip(&back) {
        let stored = weights.modules.iter().find(|weight| weight.name == back.name).expect("a weight of the graph");
        let stored = WeightValues::round(weights.read(stored).expect("values"), DType::F16).expect("halves");
        assert!(once.values != stored, "{} is not changed", once.name);
        assert!(back.values == stored, "{} is not what it was", back.name);
    }
}

/// At every optimization level, the runtime uses the replaced weights, internal and external, including a
/// convolution's, which a CPU repacks.
#[test]
fn a_session_runs_on_the_weights_it_is_handed() {
    let path = golden().join("files/mixed.onnx");
    let graph = GraphFile::open(&path).expect("a graph");
    let weights = ModuleWeights::open(&graph).expect("weights");
    let replaced = |module: &str, value: f32| {
        let weight = weights.modules.iter().find(|weight| weight.module == module).expect("a module");
        let values = weights.read(weight).expect("values");
        weight.replacement(vec![value; values.len()]).expect("floats")
    };
    let runtime =
        Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("an ONNX Runtime is found or fetched");
    let x = ndarray::ArrayD::from_elem(ndarray::IxDyn(&[1, 8, 2, 2]), 1.0f32);
    for optimization in [Optimization::None, Optimization::Basic, Optimization::Extended, Optimization::All] {
        let options = SessionOptions { component: "mixed".into(), optimization, ..SessionOptions::default() };
        // Each linear layer doubles its input, and the convolution multiplies that to eight.
        for (modules, want) in [
            (vec![], 32.0),
            (vec![("a", 3.0)], 96.0),
            (vec![("b", 5.0)], 160.0),
            (vec![("conv", 2.0)], 64.0),
            (vec![("b", 5.0), ("conv", 2.0), ("a", 3.0)], 960.0),
        ] {
            let handed = modules.iter().map(|(module, value)| replaced(module, *value)).collect();
            let mut session = Session::open_with(&runtime, &path, &options, handed).expect("a session");
            let y = session.run(&[("x", x.view().into())], &["y"], &Cancel::new()).expect("a run");
            assert!(
                y[0].iter().all(|y| *y == want),
                "{optimization:?} {modules:?}: {} and not {want}",
                y[0][[0, 0, 0, 0]]
            );
        }
    }
    let mut wrong = replaced("b", 1.0);
    wrong.name = "nowhere".into();
    let error =
        Session::open_with(&runtime, &path, &SessionOptions::default(), vec![wrong]).expect_err("no such weight");
    assert!(error.to_string().contains("nowhere"), "{error}");
    let mut wrong = replaced("b", 1.0);
    (wrong.shape, wrong.values) = (vec![1], WeightValues::F32(vec![1.0]));
    let error =
        Session::open_with(&runtime, &path, &SessionOptions::default(), vec![wrong]).expect_err("another shape");
    assert!(error.to_string().contains("dimensions do not match"), "{error}");
}
