//! The input images of a request: paths, pixels in memory, `data:` URIs.

use std::path::Path;

use base64::Engine as _;
use ldm_ort::image::{InputLimit, encode_png};
use ldm_ort::{Engine, ErrorKind, Image, InputImage, Pipeline, Request, Rgb8};

use crate::common::{models, root};

const SIDE: usize = 64;

fn open(text: &str) -> Pipeline {
    let engine = Engine::builder().graph_cache(false).build().expect("an engine");
    engine.open_toml(text).expect("a pipeline")
}

fn text_to_image() -> Pipeline {
    let model = models().join("sd1");
    open(&format!(
        "[model]\npath = '{}'\n[task.text-to-image]\nprompt = 'a cat'\n[run]\nsteps = 2\nseed = 4\n",
        model.display()
    ))
}

fn made(pipeline: &mut Pipeline, request: &Request) -> Image {
    pipeline.generate(request).expect("images").remove(0)
}

fn image(byte: fn(usize) -> u8) -> Rgb8 {
    Rgb8::new(SIDE, SIDE, (0..3 * SIDE * SIDE).map(byte).collect()).expect("an image")
}

fn ramp() -> Rgb8 {
    image(|at| (at * 7 % 251) as u8)
}

fn upper_half() -> Rgb8 {
    image(|at| if at / 3 / SIDE < SIDE / 2 { 255 } else { 0 })
}

fn write(image: &Rgb8, path: &Path) {
    std::fs::write(path, encode_png(image, &[]).expect("a PNG")).expect("a file");
}

fn data_uri(image: &Rgb8) -> String {
    let png = encode_png(image, &[]).expect("a PNG");
    format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png))
}

#[test]
fn an_image_in_memory_is_read_as_one_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (input, mask) = (folder.path().join("in.png"), folder.path().join("mask.png"));
    write(&ramp(), &input);
    write(&upper_half(), &mask);
    let mut pipeline = text_to_image();
    let files = made(&mut pipeline, &Request::inpaint(&input, &mask, "a dog"));
    let memory = made(&mut pipeline, &Request::inpaint(ramp(), upper_half(), "a dog"));
    assert_eq!(files.rgb(), memory.rgb());
    assert!(files.record().expect("a record").unrecorded.is_empty());
    let said = memory.record().expect("a record").unrecorded;
    assert!(matches!(&said[..], [image, mask] if image.contains("inpaint.image") && mask.contains("inpaint.mask")));
    // The same in JSON; `image` and `mask` choose the task.
    let json = serde_json::json!({ "prompt": "a dog", "image": data_uri(&ramp()), "mask": mask });
    let request = Request::from_json(&json.to_string()).expect("a request");
    assert_eq!(made(&mut pipeline, &request).rgb(), files.rgb());
}

#[test]
fn an_image_chooses_the_task_that_takes_it() {
    let mut pipeline = text_to_image();
    let named = made(&mut pipeline, &Request::image_to_image(ramp(), "a dog").strength(0.6));
    assert_eq!(named.record().expect("a record").task, "image-to-image");
    let flat = Request::new().image("image", ramp()).prompt("a dog").set("strength", 0.6);
    assert_eq!(made(&mut pipeline, &flat).rgb(), named.rgb());
    // Another request on the pipeline is of its own task again.
    assert_eq!(made(&mut pipeline, &Request::new()).record().expect("a record").task, "text-to-image");
    // A strength alone chooses none.
    let refused = pipeline.check(&Request::new().strength(0.5)).expect_err("no image");
    assert!(refused.kind() == ErrorKind::Request && refused.to_string().contains("strength"), "{refused}");
}

#[test]
fn a_control_image_may_be_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let edges = folder.path().join("edges.png");
    write(&ramp(), &edges);
    let model = root().join("tests/fixtures/families/control");
    let mut pipeline = open(&format!(
        "[model]\npath = '{}'\n[task.text-to-image]\nprompt = 'a cat'\n[run]\nsteps = 2\nseed = 4\n\
         [[control]]\nimage = '{}'\n",
        model.display(),
        edges.display()
    ));
    let ramp_in_file = made(&mut pipeline, &Request::new());
    let mut given = |image: InputImage| made(&mut pipeline, &Request::new().image("control.0.image", image));
    assert_eq!(given(ramp().into()).rgb(), ramp_in_file.rgb());
    let other = given(upper_half().into());
    assert_ne!(other.rgb(), ramp_in_file.rgb());
    let said = other.record().expect("a record").unrecorded;
    assert!(matches!(&said[..], [one] if one.starts_with("control[0].image")), "{said:?}");
}

#[test]
fn bytes_that_are_no_image_are_refused() {
    let pipeline = text_to_image();
    let truncated = {
        let mut uri = data_uri(&ramp());
        uri.truncate(998);
        uri
    };
    let huge = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA6mAAAOpgCAIAAAAAAAAA";
    let cases = [
        ("data:image/png,abc", "base64"),
        ("data:image/png;base64,&&&", "base64"),
        ("data:image/png;base64,aGVsbG8=", "not an image"),
        (truncated.as_str(), "cannot be decoded"),
        (huge, "image in memory"),
        ("nowhere.png", "nowhere.png"),
    ];
    for (image, says) in cases {
        let json = serde_json::json!({ "image": image }).to_string();
        let refused = pipeline.check(&Request::from_json(&json).expect("JSON")).expect_err(image);
        assert!(refused.to_string().contains(says), "{image}: {refused}");
        assert_eq!(refused.kind(), ErrorKind::Request, "{image}: {refused}");
    }
    let refused = pipeline.check(&Request::new().image("prompt", ramp())).expect_err("an image is no prompt");
    assert!(refused.to_string().contains("an image in memory, 64×64 pixels"), "{refused}");
    assert!(Rgb8::decode(&[], InputLimit::default()).is_err());
    let png = encode_png(&ramp(), &[]).expect("a PNG");
    assert_eq!(Rgb8::decode(&png, InputLimit::default()).expect("an image"), ramp());
    assert!(Rgb8::decode(&png, InputLimit::new(0)).is_err());
}
