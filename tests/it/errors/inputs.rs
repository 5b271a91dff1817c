//! Mistakes in the images, latents and prompts that a pipeline takes.

use super::Row;
use super::folder::npy_header;
use crate::common::root;

/// One of the JPEG files that Pillow wrote.
fn jpeg(name: &str) -> Vec<u8> {
    let path = root().join("tests/golden/image/load").join(name);
    std::fs::read(path).expect("a golden file")
}

pub fn rows() -> Vec<Row> {
    vec![
        Row::new("no image").image_to_image().files(|f| f.remove("in.png")).says(&["in.png", "no such file"]),
        Row::new("a text for an image")
            .image_to_image()
            .files(|f| f.write("in.png", "not an image at all"))
            .says(&["in.png", "not an image"]),
        Row::new("half an image").image_to_image().files(|f| f.cut("in.png", 120)).says(&["in.png"]),
        Row::new("an image of three and a half gigapixels")
            .image_to_image()
            .files(|f| {
                let file = std::fs::File::create(f.path("in.png")).expect("a file");
                let mut encoder = png::Encoder::new(file, 60_000, 60_000);
                encoder.set_color(png::ColorType::Rgb);
                let mut writer = encoder.write_header().expect("a header");
                // The first bytes of compressed lines of zeros; who reads on would find the rest missing.
                let lines = [0x78, 0x9c, 0xec, 0xc1, 0x01, 0x0d, 0x00];
                writer.write_chunk(png::chunk::IDAT, &lines).expect("a chunk");
            })
            .says(&["in.png", "60000×60000", "64 megapixels", "max_input_megapixels"]),
        Row::new("an image above a limit that the pipeline sets")
            .image_to_image()
            .files(|f| f.image("in.png", 1_200, 900))
            .change("steps = 5", "steps = 5\nmax_input_megapixels = 1")
            .says(&["in.png", "1200×900", "expected at most 1 megapixel"]),
        Row::new("a truncated JPEG")
            .image_to_image()
            .change("in.png", "in.jpg")
            .files(|f| {
                let bytes = jpeg("lossy-odd-420.jpg");
                f.write("in.jpg", &bytes[..bytes.len() * 9 / 10]);
            })
            .says(&["in.jpg", "cannot be decoded", "truncated"]),
        Row::new("a JPEG with two bytes changed")
            .image_to_image()
            .change("in.png", "in.jpg")
            .files(|f| {
                let mut bytes = jpeg("lossy-420.jpg");
                let middle = bytes.len() - 500;
                bytes[middle..middle + 2].copy_from_slice(&[0xff, 0xd9]);
                f.write("in.jpg", bytes);
            })
            .says(&["in.jpg", "cannot be decoded", "missing"]),
        Row::new("a folder for an image").image_to_image().change("'in.png'", "'.'").says(&[".: is a directory"]),
        Row::new("too little strength for a step")
            .image_to_image()
            .change("strength = 0.8", "strength = 0.1")
            .says(&["strength", "0.1", "5", "step"]),
        Row::new("a width that the model cannot draw").change("width = 64", "width = 60").says(&[
            "width",
            "60",
            "multiple of",
            "48",
            "64",
        ]),
        Row::new("a seed that numpy does not take").change("seed = 1", "seed = 4294967296\nnoise = 'numpy'").says(&[
            "run.seed",
            "4294967295",
            "the largest",
            "numpy",
        ]),
        Row::new("several mistakes are told at once")
            .image_to_image()
            .change("strength = 0.8", "strength = 0.1")
            .change("seed = 1", "seed = 1\nwidth = 60")
            .says(&["strength", "less than one step", "run.width", "60"]),
        Row::new("a task that begins with noise, to go on in the middle")
            .change("seed = 1", "denoising_start = 0.5")
            .says(&["run.denoising_start", "text-to-image begins with pure noise", "task.image-to-image"]),
        Row::new("a strength beside a start").image_to_image().change("seed = 1", "denoising_start = 0.5").says(&[
            "strength",
            "0.8",
            "denoising_start = 0.5",
            "keep one",
        ]),
        Row::new("an end before the first step").change("seed = 1", "denoising_end = 0.0001").says(&[
            "run.denoising_end",
            "0.0001",
            "leaves none of the",
        ]),
        Row::new("a schedule for a scheduler that takes none")
            .change("seed = 1", "timesteps = [900, 100]")
            .change("[run]", "[scheduler.ddim]\n[run]")
            .change("steps = 2", "")
            .says(&["scheduler ddim", "timesteps", "choose one of", "euler"]),
        Row::new("an image's latents of another shape")
            .image_to_image()
            .change("image = 'in.png'", "latents = 'first.npy'")
            .files(|f| f.array("first.npy", &[1, 4, 8, 16]))
            .says(&["first.npy", "[1, 4, 8, 16]", "[1, 4, 8, 8]"]),
        Row::new("latents in a file that is not there")
            .change("seed = 1", "latents = 'noise.npy'")
            .says(&["noise.npy", "no such file"]),
        Row::new("latents of another shape")
            .change("seed = 1", "latents = 'noise.npy'")
            .files(|f| f.array("noise.npy", &[1, 4, 8, 16]))
            .says(&["noise.npy", "[1, 4, 8, 8]", "[1, 4, 8, 16]"]),
        Row::new("latents of another number of images")
            .change("seed = 1", "latents = 'noise.npy'\nimages = 3")
            .files(|f| f.array("noise.npy", &[2, 4, 8, 8]))
            .says(&["noise.npy", "[3, 4, 8, 8]", "[2, 4, 8, 8]"]),
        Row::new("latents of another type")
            .change("seed = 1", "latents = 'noise.npy'")
            .files(|f| f.write("noise.npy", [npy_header("<i8", &[1, 4, 8, 8]), vec![0; 2048]].concat()))
            .says(&["noise.npy", "float32", "<i8"]),
        Row::new("half of the latents")
            .change("seed = 1", "latents = 'noise.npy'")
            .files(|f| {
                f.array("noise.npy", &[1, 4, 8, 8]);
                f.cut("noise.npy", 600);
            })
            .says(&["noise.npy", "[1, 4, 8, 8]", "1024 bytes", "found 472"]),
        Row::new("latents that are none")
            .change("seed = 1", "latents = 'noise.npy'")
            .files(|f| f.write("noise.npy", "1.0 2.0 3.0"))
            .says(&["noise.npy", ".npy"]),
        Row::new("latents that are not finite")
            .change("seed = 1", "latents = 'noise.npy'")
            .files(|f| {
                let numbers: Vec<u8> = [f32::NAN; 256].iter().flat_map(|n| n.to_le_bytes()).collect();
                f.write("noise.npy", [npy_header("<f4", &[1, 4, 8, 8]), numbers].concat());
            })
            .says(&["noise.npy", "256", "finite"]),
        Row::new("noise for a run that takes none")
            .image_to_image()
            .change("strength = 0.8", "")
            .change("seed = 1", "latents = 'noise.npy'\ndenoising_start = 0.5")
            .files(|f| {
                f.image("in.png", 64, 64);
                f.array("noise.npy", &[1, 4, 8, 8]);
            })
            .says(&["run.latents", "denoising_start", "leave latents out"]),
        Row::new("a scheduler that leads to noise where an image is wanted")
            .change("[run]", "[scheduler.ddim-inverse]\n[run]")
            .says(&["scheduler.ddim-inverse", "text-to-image begins with noise", "[task.image-to-image]"]),
        Row::new("a schedule of fewer calls than strength counts")
            .image_to_image()
            .change("[run]", "[scheduler.ipndm]\ntrained_betas = [0.9, 0.5, 0.1]\n[run]")
            .says(&["run.steps", "5 are asked for", "2 calls", "steps = 2"]),
        Row::new("an image without a record")
            .files(|f| f.image("plain.png", 16, 16))
            .command(&["run", "--from", "plain.png"])
            .says(&["plain.png", "record"]),
        Row::new("a record of nothing").command(&["run", "--from", "nowhere.png"]).says(&["nowhere.png"]),
        Row::new("a record and a pipeline")
            .files(|f| f.image("plain.png", 16, 16))
            .command(&["run", "pipeline.toml", "--from", "plain.png"])
            .says(&["--from"]),
    ]
}
