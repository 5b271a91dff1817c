//! Default values: those that `check` prints with their sources, and those that `init` writes.

use super::{assert_says, call, printed};
use crate::common::models;

/// The pipeline that `init` prints for a directory passes `check`.
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
