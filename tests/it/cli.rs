//! The commands beside `run`, and stopping a run.

use std::path::Path;

use crate::common::{Answer, answer, ldm_ort, models, root};

fn call(folder: &Path, arguments: &[&str]) -> Answer {
    let mut command = ldm_ort(folder);
    command.args(arguments).env("NO_COLOR", "1");
    let answer = answer(command);
    assert!(!answer.stderr.contains("panicked"), "{answer}");
    answer
}

/// What a command that succeeds prints.
fn printed(folder: &Path, arguments: &[&str]) -> String {
    let answer = call(folder, arguments);
    assert_eq!(answer.code, Some(0), "{arguments:?}: {answer}");
    assert!(!answer.stdout.is_empty(), "{arguments:?} prints its result on stdout: {answer}");
    answer.stdout
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn inspect_tells_what_a_directory_holds() {
    let text = printed(&models(), &["inspect", "sd1"]);
    assert_says(&text, &["text_encoder", "unet", "vae_encoder", "vae_decoder", "tokenizer", "PNDMScheduler"]);
    assert_says(&text, &["encoder_hidden_states", "latent_parameters", "int64", "float32", "batch_size", "height"]);

    let text = printed(&models(), &["inspect", "sd1-legacy"]);
    assert_says(&text, &["legacy", "int32", "latent_sample", "weights.pb"]);

    let text = printed(&models(), &["inspect", "pixel"]);
    assert_says(&text, &["unet", "DDPMScheduler", "timestep"]);
    assert!(!text.contains("text_encoder:"), "{text}");
}

#[test]
fn inspect_tells_what_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("model/unet")).expect("a folder");
    std::fs::copy(models().join("sd1/unet/model.onnx"), folder.path().join("model/unet/model.onnx")).expect("a copy");
    std::fs::copy(models().join("sd1/model_index.json"), folder.path().join("model/model_index.json")).expect("a copy");
    let text = printed(folder.path(), &["inspect", "model"]);
    assert_says(&text, &["missing", "text_encoder/model.onnx", "scheduler/scheduler_config.json", "tokenizer/"]);
}

/// A pipeline file is inspected with what it says over its models' directories, those of its stages too.
#[test]
fn a_pipeline_file_is_inspected() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = |name: &str| models().join(name).display().to_string();
    let text = format!(
        "[model]\npath = '{}'\nscaling_factor = 0.5\nunet.graph = '{}'\nunet.inputs = {{ timestep = 'timestep' }}\n\
         [task.text-to-image]\nprompt = 'a'\n",
        model("sd1"),
        model("variants/unet-int64-timestep.onnx"),
    );
    std::fs::write(folder.path().join("one.toml"), &text).expect("a file");
    let said = printed(folder.path(), &["inspect", "one.toml"]);
    assert_says(&said, &["unet-int64-timestep.onnx", "0.5", "vae_decoder", "tasks     text-to-image"]);
    let stage = format!("[[stage]]\nmodel.path = '{}'\ntask.image-to-image = {{}}\n", model("sd2v"));
    std::fs::write(folder.path().join("two.toml"), text.clone() + &stage).expect("a file");
    assert_says(
        &printed(folder.path(), &["inspect", "two.toml"]),
        &["unet-int64-timestep.onnx", "\nstage[0]: ", "sd2v"],
    );
    let json: serde_json::Value =
        serde_json::from_str(&printed(folder.path(), &["inspect", "two.toml", "--json"])).expect("it is JSON");
    assert!(json["directory"].as_str().is_some_and(|path| path.ends_with("sd1")), "{json}");
    assert!(json["stages"][0]["directory"].as_str().is_some_and(|path| path.ends_with("sd2v")), "{json}");
    std::fs::write(folder.path().join("wrong.toml"), text + "stepz = 5\n").expect("a file");
    let answer = call(folder.path(), &["inspect", "wrong.toml"]);
    assert_eq!(answer.code, Some(2), "{answer}");
    assert!(answer.stderr.contains("stepz"), "{answer}");
}

/// A table about a component that the pipeline does not open is told, and one that a stage opens is not.
#[test]
fn tables_about_what_is_not_opened_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "[model]\npath = '{}'\nvae_encoder.graph = '{}'\n[task.text-to-image]\nprompt = 'a'\n[run]\nsteps = 1\n\
         [device]\nprovider = 'cpu'\ncontrolnet.provider = 'cpu'\nvae_encoder.provider = 'cpu'\nunet.provider = 'cpu'\n",
        models().join("sd1").display(),
        models().join("sd1/vae_encoder/model.onnx").display(),
    );
    std::fs::write(folder.path().join("one.toml"), &text).expect("a file");
    for command in ["check", "run"] {
        let answer = call(folder.path(), &[command, "one.toml"]);
        assert_eq!(answer.code, Some(0), "{answer}");
        for table in ["[model.vae_encoder]", "[device.vae_encoder]", "[device.controlnet]"] {
            assert!(answer.stderr.contains(&format!("warning: {table} stands for nothing")), "{table}: {answer}");
        }
        assert!(!answer.stderr.contains("[device.unet]"), "{answer}");
    }
    let stage = format!(
        "[[stage]]\ninput = 'image'\nmodel.path = '{}'\ntask.image-to-image = {{}}\n",
        models().join("sd1").display()
    );
    std::fs::write(folder.path().join("two.toml"), text + &stage).expect("a file");
    let answer = call(folder.path(), &["check", "two.toml"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_eq!(answer.stderr.matches("warning").count(), 2, "{answer}");
    assert_says(&answer.stderr, &["[model.vae_encoder]", "[device.controlnet]"]);
}

/// What `init` prints for a directory is a pipeline that passes `check`.
#[test]
fn init_prints_a_pipeline_that_passes_check() {
    for model in ["sd1", "sd1-legacy", "sd2v"] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = models().join(model);
        let text = printed(folder.path(), &["init", path.to_str().expect("the path is Unicode")]);
        let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(table["task"].as_table().map(toml::Table::len), Some(1), "{text}");
        std::fs::write(folder.path().join("pipeline.toml"), &text).expect("a file");
        let answer = call(folder.path(), &["check", "pipeline.toml"]);
        assert_eq!(answer.code, Some(0), "{model}: {answer}\n{text}");
        let answer = call(folder.path(), &["check", "pipeline.toml", "--open"]);
        assert_eq!(answer.code, Some(0), "{model}: {answer}\n{text}");
    }
}

/// `check` prints the value of every key that the pipeline file leaves open, with its source: the default of the class with
/// which diffusers runs the task on the model.
#[test]
fn check_tells_every_default_and_its_source() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, width, height) in [("in.png", 48, 40), ("low.png", 8, 8)] {
        // White, so that it is a mask with something to draw, too.
        let white = image::RgbImage::from_pixel(width, height, image::Rgb([255; 3]));
        white.save(folder.path().join(name)).expect("an image");
    }
    let (image, mask) = ("image = 'in.png'\n", "mask = 'in.png'\n");
    let masked = format!("{image}{mask}");
    let control = format!("{image}[[control]]\n{image}");
    let tcd = "[scheduler.tcd]\n";
    let sized = "[run]\nwidth = 32\nheight = 32\n";
    let own_size = "32  # sample_size 8 in unet/config.json, × 4";
    let rows: [(&str, &str, &str, &str, &[&str]); 14] = [
        ("xl", "text-to-image", "", "StableDiffusionXLPipeline", &["guidance_scale = 5.0", "run.steps = 50", own_size]),
        (
            "xl",
            "image-to-image",
            image,
            "StableDiffusionXLImg2ImgPipeline",
            &["strength = 0.3", "guidance_scale = 5.0"],
        ),
        (
            "xl",
            "inpaint",
            &masked,
            "StableDiffusionXLInpaintPipeline",
            &["strength = 0.9999", "guidance_scale = 7.5", own_size],
        ),
        ("inpaint", "inpaint", &masked, "StableDiffusionInpaintPipeline", &["strength = 1.0", own_size]),
        ("sd3", "text-to-image", "", "StableDiffusion3Pipeline", &["run.steps = 28", "max_sequence_length = 256"]),
        (
            "sd3",
            "image-to-image",
            image,
            "StableDiffusion3Img2ImgPipeline",
            &["run.steps = 50", "strength = 0.6", "guidance_scale = 7.0", "run.width = 32"],
        ),
        ("sd3", "inpaint", &masked, "StableDiffusion3InpaintPipeline", &["run.steps = 50", "strength = 0.6"]),
        (
            "flux-dev",
            "text-to-image",
            sized,
            "FluxPipeline",
            &["guidance_scale = 3.5", "run.steps = 28", "max_sequence_length = 512"],
        ),
        (
            "flux-dev",
            "image-to-image",
            image,
            "FluxImg2ImgPipeline",
            &["guidance_scale = 7.0", "strength = 0.6", "run.width = 512"],
        ),
        ("lcm", "text-to-image", "", "LatentConsistencyModelPipeline", &["guidance_scale = 8.5", "run.steps = 4"]),
        (
            "instruct",
            "instruct",
            image,
            "StableDiffusionInstructPix2PixPipeline",
            &["run.steps = 100", "image_guidance_scale = 1.5", "# the input image"],
        ),
        (
            "upscale",
            "super-resolution",
            "image = 'low.png'\n",
            "StableDiffusionUpscalePipeline",
            &["run.steps = 75", "guidance_scale = 9.0", "noise_level = 20"],
        ),
        (
            "control",
            "image-to-image",
            &control,
            "StableDiffusionControlNetImg2ImgPipeline",
            &["control[0].scale = 0.8", "strength = 0.8"],
        ),
        (
            "inpaint",
            "inpaint",
            &format!("{masked}{tcd}"),
            "StableDiffusionInpaintPipeline",
            &["scheduler.tcd.eta = 0.0"],
        ),
    ];
    for (model, task, more, class, expected) in rows {
        let model = family(model);
        let text = format!("[model]\npath = '{}'\n[task.{task}]\nprompt = 'a'\n{more}", model.display());
        std::fs::write(folder.path().join("p.toml"), text).expect("a file");
        let answer = call(folder.path(), &["check", "p.toml"]);
        assert_eq!(answer.code, Some(0), "{class}: {answer}");
        assert!(answer.stdout.contains(&format!("# default of {class}\n")), "{class}: {answer}");
        let told = answer.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for value in expected {
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(told.contains(&value), "{class}, {value}: {answer}");
        }
    }

    // What the file states is not told.
    let text = format!(
        "[model]\npath = '{}'\n[task.inpaint]\nprompt = 'a'\n{masked}guidance_scale = 3.0\nstrength = 0.5\n{sized}steps = 7\n",
        family("xl").display()
    );
    std::fs::write(folder.path().join("p.toml"), text).expect("a file");
    let told = printed(folder.path(), &["check", "p.toml"]);
    assert!(!told.contains(" # "), "{told}");
}

/// One of the tiny models of `tests/fixtures/families`.
fn family(name: &str) -> std::path::PathBuf {
    models().with_file_name("families").join(name)
}

/// `init` states the defaults of the class with which diffusers runs the model's first task.
#[test]
fn init_states_the_defaults_of_the_class() {
    let rows: [(&str, &[&str]); 6] = [
        ("xl", &["steps = 50    # default of StableDiffusionXLPipeline", "guidance_scale = 5.0"]),
        ("sd3", &["steps = 28    # default of StableDiffusion3Pipeline", "guidance_scale = 7.0"]),
        ("lcm", &["steps = 4    # default of LatentConsistencyModelPipeline", "guidance_scale = 8.5"]),
        ("flux-dev", &["steps = 28    # default of FluxPipeline", "guidance_scale = 3.5", "width = 512"]),
        (
            "upscale",
            &["steps = 75    # default of StableDiffusionUpscalePipeline", "guidance_scale = 9.0", "noise_level = 20"],
        ),
        (
            "inpaint",
            &[
                "steps = 50    # default of StableDiffusionInpaintPipeline",
                "strength = 1.0",
                "# width = 32       # default: sample_size 8 in unet/config.json, × 4; the input image is resized to it",
            ],
        ),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    for (model, expected) in rows {
        let path = family(model);
        assert_says(&printed(folder.path(), &["init", path.to_str().expect("the path is Unicode")]), expected);
    }
}

#[test]
fn lists_hold_what_can_be_written() {
    let text = printed(&models(), &["list", "schedulers"]);
    assert_says(&text, &["ddim", "ddpm", "pndm", "euler", "euler-ancestral", "dpm-multistep"]);
    let text = printed(&models(), &["list", "tasks"]);
    assert_says(&text, &["text-to-image", "image-to-image"]);
    let text = printed(&models(), &["list", "providers"]);
    assert_says(&text, &["cpu", "cuda", "tensorrt", "directml", "openvino", "coreml", "webgpu"]);
}

#[test]
fn runtime_tells_which_library_is_used_and_why() {
    let text = printed(&models(), &["runtime"]);
    assert_says(&text, &["onnxruntime"]);
    let answer = call(&models(), &["runtime", "list"]);
    assert_eq!(answer.code, Some(0), "{answer}");
}

#[test]
fn help_and_version_are_results() {
    assert_says(&printed(&models(), &["--help"]), &["run", "check", "inspect", "init", "list", "plot", "runtime"]);
    let flags = ["--prompt", "--negative-prompt", "--seed", "--steps", "--images", "--width", "--height", "--provider"];
    let help = printed(&models(), &["run", "--help"]);
    assert_says(&help, &flags);
    assert_says(&help, &["--output", "--set", "--save-latents", "--json", "--from"]);
    assert_says(&printed(&models(), &["--version"]), &[env!("CARGO_PKG_VERSION")]);
}

/// Only the result is on stdout: the images' paths without `--json`, and none of the talk around them.
#[test]
fn what_is_no_result_goes_to_stderr() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = root().join("tests/golden/pipelines/plain/pipeline.toml");
    let pipeline = pipeline.to_str().expect("the path is Unicode");
    let answer = call(folder.path(), &["run", pipeline, "--output", "out", "--steps", "1", "--seed", "5"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_says(&answer.stdout, &["out", ".png"]);
    assert!(!answer.stderr.contains('\u{1b}'), "no colors and no bars where there is no terminal: {answer}");
    assert!(!answer.stdout.contains('\u{1b}'), "no colors and no bars where there is no terminal: {answer}");

    let quiet = call(folder.path(), &["run", pipeline, "--output", "out", "--steps", "1", "--seed", "5", "--json"]);
    assert_eq!(quiet.stdout.lines().count(), 1, "{quiet}");
}

/// The golden pipeline of the tiny model, as an argument.
fn plain() -> String {
    let pipeline = root().join("tests/golden/pipelines/plain/pipeline.toml");
    pipeline.to_str().expect("the path is Unicode").to_owned()
}

/// Eight runs at once whose images have one name and different contents: each keeps its own, whole.
#[test]
fn eight_runs_at_once_keep_eight_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let steps: Vec<String> = (1..=8).map(|steps| steps.to_string()).collect();
    let runs = steps.iter().map(|steps| {
        let mut command = ldm_ort(folder.path());
        command.args(["run", &plain(), "--output", "out", "--seed", "5", "--preview", "1", "--steps", steps]);
        command.spawn().expect("the program starts")
    });
    let runs: Vec<_> = runs.collect();
    let mut printed: Vec<_> = runs
        .into_iter()
        .map(|run| {
            let answer: Answer = run.wait_with_output().expect("the run ends").into();
            assert_eq!(answer.code, Some(0), "{answer}");
            answer.stdout.trim().to_owned()
        })
        .collect();
    printed.sort();
    let mut there: Vec<_> = std::fs::read_dir(folder.path().join("out"))
        .expect("the folder")
        .map(|entry| format!("out/{}", entry.expect("an entry").file_name().to_string_lossy()))
        .collect();
    there.sort();
    assert_eq!(printed, there, "each run printed the name of a file of its own, and left nothing else");
    let record = |path: &String| {
        let path = folder.path().join(path);
        ldm_ort::image::load(&path, ldm_ort::image::InputLimit::default()).expect("the image is whole");
        ldm_ort::metadata::read_png(&path).expect("a record").steps
    };
    let mut found: Vec<_> = there.iter().map(record).collect();
    found.sort_unstable();
    assert_eq!(found, (1..=8).collect::<Vec<_>>());
}

/// A run whose preview has the name of another run's leaves that one alone.
#[test]
fn a_preview_of_another_run_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["run", &plain(), "--output", "out", "--seed", "5", "--steps", "2", "--preview"];
    let path = printed(folder.path(), &arguments);
    let theirs = folder.path().join(path.trim()).with_extension("preview.png");
    std::fs::write(&theirs, "another run's").expect("a file");
    printed(folder.path(), &arguments);
    assert_eq!(std::fs::read(&theirs).expect("it is there"), b"another run's");
    assert_eq!(std::fs::read_dir(folder.path().join("out")).expect("the folder").count(), 2);
}

/// `--save-latents` and `[output] dir` go where their names lead: into a FIFO or device, through a link, to `~`.
#[cfg(unix)]
#[test]
fn outputs_go_where_their_names_lead() {
    use std::os::unix::fs::{FileTypeExt, symlink};

    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let pipeline = "[model]\npath = '~/model'\n[task.text-to-image]\nprompt = 'a'\n[run]\nsteps = 1\nseed = 1\n\
                    [output]\ndir = '~/images'\n";
    std::fs::write(at("pipeline.toml"), pipeline).expect("a file");
    symlink(models().join("sd1"), at("model")).expect("a link");
    symlink("real.npy", at("link.npy")).expect("a link");
    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().expect("mkfifo is there").success());
    let run = |latents: &str| {
        let mut command = ldm_ort(folder.path());
        command.env("HOME", folder.path()).args(["run", "pipeline.toml", &format!("--save-latents={latents}")]);
        // Where HOME is another, the runtime's cache still is the usual one.
        let cache = directories::BaseDirs::new().expect("a home").cache_dir().to_path_buf();
        command.env("XDG_CACHE_HOME", cache);
        let answer = answer(command);
        assert_eq!(answer.code, Some(0), "{latents}: {answer}");
    };
    run("~/home.npy");
    let latents = std::fs::read(at("home.npy")).expect("latents");
    run("link.npy");
    assert!(std::fs::symlink_metadata(at("link.npy")).expect("a link").is_symlink());
    assert_eq!(std::fs::read(at("real.npy")).expect("latents"), latents);
    let reader = std::thread::spawn({
        let pipe = at("pipe");
        move || std::fs::read(pipe).expect("what goes through")
    });
    run("pipe");
    assert_eq!(reader.join().expect("the reader"), latents);
    assert!(std::fs::metadata(at("pipe")).expect("the FIFO").file_type().is_fifo());
    run("/dev/null");
    assert!(std::fs::metadata("/dev/null").expect("a device").file_type().is_char_device(), "/dev/null was replaced");
    assert_eq!(std::fs::read_dir(at("images")).expect("the folder").count(), 1, "the same image each time");
}

/// A prompt that is longer than the model can take is cut, and the run says so.
#[test]
fn a_prompt_that_is_cut_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = root().join("tests/golden/pipelines/long-prompt/pipeline.toml");
    let pipeline = pipeline.to_str().expect("the path is Unicode");
    let answer = call(folder.path(), &["run", pipeline, "--output", "out", "--steps", "1"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_says(&answer.stderr, &["16 tokens", "88 tokens"]);
}

/// Ctrl-C during a run that would take minutes: it ends within seconds, with exit code 130 and nothing half-written.
#[cfg(unix)]
#[test]
fn an_interrupt_stops_a_run_cleanly() {
    use std::time::{Duration, Instant};

    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = root().join("tests/golden/pipelines/plain/pipeline.toml");
    let mut command = ldm_ort(folder.path());
    command.arg("run").arg(&pipeline).args(["--output", "out", "--save-latents", "latents.npy"]);
    command.args(["--steps", "900", "--images", "4", "--width", "512", "--height", "512"]);
    let child = command.spawn().expect("the program starts");
    let id = child.id().to_string();
    std::thread::sleep(Duration::from_secs(3));
    let sent = std::process::Command::new("kill").args(["-INT", &id]).status().expect("kill is there");
    assert!(sent.success(), "the run was over before it could be interrupted");
    let start = Instant::now();
    let answer: Answer = child.wait_with_output().expect("the child ends").into();
    assert_eq!(answer.code, Some(130), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?} to stop", start.elapsed());
    assert!(answer.stderr.contains("interrupted"), "{answer}");
    assert!(!answer.stderr.contains("panicked"), "{answer}");
    let files = |name: &str| std::fs::read_dir(folder.path().join(name)).map_or(0, Iterator::count);
    assert_eq!(files("out"), 0, "an image was left: {answer}");
    assert!(files("") <= 1, "something beside the empty output folder was left: {answer}");
}

/// A wait for standard input is over with the first Ctrl-C, or the first signal to terminate, which is taken over with it
/// and, unlike it, not ignored where tests run in a shell's background.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_wait_for_standard_input() {
    use std::time::Duration;

    let folder = tempfile::tempdir().expect("a folder");
    for command in ["run", "optimize"] {
        let mut program = ldm_ort(folder.path());
        let mut child = program.args([command, "-"]).stdin(std::process::Stdio::piped()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(500));
        assert!(child.try_wait().expect("it is there").is_none(), "{command} does not wait for standard input");
        let sent = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
        let mut left = 100;
        while child.try_wait().expect("it is there").is_none() && left > 0 {
            std::thread::sleep(Duration::from_millis(100));
            left -= 1;
        }
        let _ = child.kill();
        assert!(left > 0, "{command} goes on");
        assert_eq!(child.wait().expect("it ended").code(), None, "the signal ended it");
    }
}

/// The README's first command, but for the release build.
#[test]
fn the_shipped_pipeline_draws() {
    let root = root();
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().to_str().unwrap();
    let path = printed(root, &["run", "pipeline.toml", "--output", folder]);
    assert!(std::fs::metadata(path.trim()).unwrap().len() > 500, "{path}");

    // 72 is a multiple of the VAE's factor, 4, but not of what the UNet's halvings need.
    let answer = call(root, &["check", "pipeline.toml", "--width", "72"]);
    assert_eq!(answer.code, Some(2), "{answer}");
    assert_says(&answer.stderr, &["run.width: 72 is not a multiple of", "64"]);
}

/// The long flags of the program, those of all its commands.
fn flags(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_long()).map(|long| format!("--{long}"));
    own.chain(command.get_subcommands().flat_map(flags)).collect()
}

/// The files of a folder, and of those below it, that end in one of these.
fn files(folder: &Path, endings: &[&str]) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let below = |path: std::path::PathBuf| if path.is_dir() { files(&path, endings) } else { vec![path] };
    let ends = |path: &std::path::PathBuf| path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending));
    entries.flat_map(below).filter(ends).collect()
}

/// The parts of a text that begin with `prefix`, not within a word, and go on with letters, digits and `more`.
fn named<'t>(text: &'t str, prefix: &str, more: &[char]) -> Vec<&'t str> {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || more.contains(&c);
    let starts = text.match_indices(prefix).map(|(at, _)| at);
    let free = |&at: &usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "-_/".contains(c));
    let end = |at: usize| {
        let rest = &text[at + prefix.len()..];
        at + prefix.len() + rest.find(|c| !goes_on(c)).unwrap_or(rest.len())
    };
    starts.filter(free).map(|at| text[at..end(at)].trim_end_matches(['.', '-'])).collect()
}

/// Scripts and flags that errors, help and documents name exist, under that name.
#[test]
fn scripts_and_flags_that_are_named_exist() {
    use clap::CommandFactory;

    let root = root();
    let mut of_program = flags(&ldm_ort::cli::args::Cli::command());
    // clap's own, and the one that stands for any.
    of_program.extend(["--help", "--version", "--flag"].map(str::to_owned));
    let mut texts = files(&root.join("src"), &["rs"]);
    texts.extend(["docs", "models", "examples"].iter().flat_map(|folder| files(&root.join(folder), &["md", "rs"])));
    texts.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for path in texts {
        let text = std::fs::read_to_string(&path).expect("it is text").replace("\r\n", "\n");
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        // A message that goes on in the next line of a source is one line; a document is about all scripts it names.
        let joined: String =
            text.split("\\\n").enumerate().map(|(i, piece)| if i == 0 { piece } else { piece.trim_start() }).collect();
        let scripts_in = |text: &str| -> Vec<String> {
            let names = named(text, "scripts/", &['_', '-', '.', '/']);
            names.into_iter().filter(|name| !name.ends_with(['/', '_'])).map(str::to_owned).collect()
        };
        let of_document = if path.extension().is_some_and(|e| e == "md") { scripts_in(&joined) } else { Vec::new() };
        for line in joined.lines() {
            let scripts = scripts_in(line);
            let missing = scripts.iter().filter(|script| !root.join(script).exists());
            wrong.extend(missing.map(|script| format!("{}: {script} does not exist", path.display())));
            // Cargo's and pip's flags are not ours to check.
            if ["cargo ", "rustdoc ", "pip ", "scripts/check --full", "--full`"]
                .iter()
                .any(|other| line.contains(other))
            {
                continue;
            }
            for flag in named(line, "--", &['-']).into_iter().filter(|flag| flag.len() > 3) {
                checked += 1;
                let takes = |script: &String| {
                    let source = std::fs::read_to_string(root.join(script)).unwrap_or_default();
                    source.contains(&format!("\"{flag}\""))
                };
                if !of_program.iter().any(|known| known == flag) && !scripts.iter().chain(&of_document).any(takes) {
                    wrong.push(format!("{}: no {flag} in: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(checked > 100, "only {checked} flags were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The log at `-v` names the library and its version, without ort's alarm about a newer one.
#[test]
fn more_words_are_no_alarm() {
    let answer = call(&models(), &["-v", "list", "providers"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert!(answer.stderr.contains("ONNX Runtime 1."), "{answer}");
    assert!(!answer.stderr.contains("compatibility issues"), "{answer}");
}

/// One of a thing is told in the singular.
#[test]
fn one_is_no_plural() {
    let pipeline = root().join("pipeline.toml");
    let pipeline = pipeline.to_str().expect("the path is Unicode");
    let of = |steps: &str| printed(&models(), &["check", pipeline, "--steps", steps, "--preview", steps]);
    assert_says(&of("1"), &["1 image of", "1 step of ddim", "previews every step are made"]);
    assert_says(&of("2"), &["2 steps of ddim", "previews every 2 steps are made"]);
}

/// Syntax of other programs in prompts, and embeddings that no prompt names, are told of by `check` and by a run.
#[test]
fn prompts_that_are_not_read_as_they_are_meant_are_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    // One vector of zeros, as wide as the text encoder's.
    let header = r#"{"<cat>":{"dtype":"F32","shape":[1,16],"data_offsets":[0,64]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 64]].concat();
    std::fs::write(folder.path().join("cat.safetensors"), bytes).expect("a file can be written");
    let cat = "[[textual_inversion]]\npath = 'cat.safetensors'\n";
    let weights = "prompt_weighting = 'a1111'\n";
    for (prompt, keys, tables, says) in [
        ("a <lora:x:1> cat", "", "", Some("prompt: \"<lora:x:1>\" is read as words and adds no LoRA")),
        ("a [cat:dog:0.5]", weights, "", Some("prompt: \"[cat:dog:0.5]\" is read as words")),
        ("a [cat|dog]", weights, "", Some("prompt: \"[cat|dog]\" is read as words")),
        ("a cat AND a dog", weights, "", Some("prompt: \"AND\" is read as a word")),
        ("a (red:1.4) cat", "", "", Some("prompt_weighting = \"a1111\"")),
        ("a cat", "negative_prompt = 'a BREAK b'\n", "", Some("negative_prompt: \"BREAK\" is read as a word")),
        ("a cat", "", cat, Some("cat.safetensors: no prompt has its token \"<cat>\"")),
        ("a <cat>", "", cat, None),
        ("a (<cat>:1.2)", weights, cat, None),
        ("a <CAT>", "", cat, Some("transformers 4 (without ftfy, and with ftfy) gives other tokens")),
        ("a cat", "negative_prompt = '<cat>'\n", cat, None),
        (r"a \\[cat\\] \\(red\\), 3:4", weights, "", None),
        ("a “cat”", "", "", Some("prompt: CLIPTokenizer of transformers 4 (with ftfy) gives other tokens")),
        ("a &amp; b", "", "", Some("transformers 4 (with ftfy) gives other tokens")),
        ("a 猫猫", "", "", Some("transformers 4 (without ftfy) gives other tokens")),
        ("a “cat”", "text_cleaning = 'ftfy'\n", "", None),
        ("a “cat”", "text_cleaning = 'basic'\n", "", None),
        ("a “cat”", "text_cleaning = 'fast'\n", "", None),
        ("a café", "", "", None),
    ] {
        let text = format!(
            "[model]\npath = '{}'\n[task.text-to-image]\nprompt = \"{prompt}\"\n{keys}{tables}[run]\nsteps = 1\nseed = 1\n\
             width = 64\nheight = 64\n",
            models().join("sd1").display()
        );
        std::fs::write(folder.path().join("pipeline.toml"), text).expect("a file can be written");
        for arguments in [["check", "pipeline.toml"], ["run", "pipeline.toml"]] {
            let mut command = ldm_ort(folder.path());
            command.args(arguments);
            let answer = answer(command);
            assert_eq!(answer.code, Some(0), "{prompt}: {answer}");
            let warnings: Vec<&str> = answer.stderr.lines().filter(|line| line.contains("warning")).collect();
            match says {
                Some(says) => assert!(warnings.len() == 1 && warnings[0].contains(says), "{prompt}: {answer}"),
                None => assert!(warnings.is_empty(), "{prompt}: {answer}"),
            }
        }
    }
}
