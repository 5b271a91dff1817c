//! `precision`: bf16 and int8 on CPUs that multiply them, an error or float32 on others, and never in silence.

use std::path::Path;

use image::RgbImage;
use ldm_ort::kernels::InstructionSet;
use ldm_ort::metadata::{self, Record};
use ldm_ort::plan::Plan;
use ldm_ort::spec::{Overrides, Spec};
use serde_json::Value;

use crate::common::{Answer, answer, ldm_ort, npy, root, runtime};

/// Runs models/shapes with a precision and a cache of graphs, and saves the latents.
fn draw(folder: &Path, precision: &str) -> Answer {
    draw_with(folder, precision, None)
}

/// The same with an instruction set that is chosen, or the one that the program finds.
fn draw_with(folder: &Path, precision: &str, set: Option<InstructionSet>) -> Answer {
    let mut command = ldm_ort(folder);
    if let Some(set) = set {
        command.env("LDM_ORT_INSTRUCTION_SET", set.name());
    }
    command.args(["run".as_ref(), root().join("models/shapes").as_os_str()]);
    command.args(["-p", "a red circle", "--steps", "3", "--seed", "5", "--precision", precision, "--json"]);
    command.args(["--save-latents", &format!("{precision}.npy"), "--output", precision]);
    command.env_remove("LDM_ORT_OPTIMIZE").env("LDM_ORT_CACHE_DIR", folder.join("cache"));
    command.env("ORT_DYLIB_PATH", runtime().path());
    answer(command)
}

fn latents(folder: &Path, precision: &str) -> npy::Array {
    npy::read(&folder.join(precision).with_extension("npy"))
}

#[test]
fn bf16_is_near_float32_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = draw(folder.path(), "float32");
    assert_eq!(plain.code, Some(0), "{}", plain.stderr);
    assert!(!plain.stderr.contains("bf16"), "{}", plain.stderr);
    let auto = draw(folder.path(), "auto");
    assert_eq!(auto.code, Some(0), "{}", auto.stderr);
    let bf16 = draw(folder.path(), "bf16");
    if !InstructionSet::best().has_bf16() {
        assert_eq!(bf16.code, Some(2));
        assert!(bf16.stderr.contains("device.precision: bf16 needs AVX-512 BF16 or AMX, and "), "{}", bf16.stderr);
        assert_eq!(latents(folder.path(), "auto").difference(&latents(folder.path(), "float32")), 0.0);
        return;
    }
    assert_eq!(bf16.code, Some(0), "{}", bf16.stderr);
    let chosen = if InstructionSet::best().is_faster_in_bf16() { "bf16" } else { "float32" };
    assert_eq!(latents(folder.path(), "auto").difference(&latents(folder.path(), chosen)), 0.0);
    let apart = latents(folder.path(), "bf16").difference(&latents(folder.path(), "float32"));
    println!("{apart:.1e}");
    assert!(apart > 0.0 && apart < 0.02, "{apart}");
    let told = format!("bf16 ({})", InstructionSet::best().name());
    assert!(bf16.stderr.contains(&told), "{}", bf16.stderr);
    assert!(bf16.stdout.contains(&format!("\"precision\":\"{told}\"")), "{}", bf16.stdout);
    assert!(plain.stdout.contains("\"precision\":\"float32\""), "{}", plain.stdout);
}

/// The linear layers in int8 with each instruction set, the others in what is faster with it.
#[test]
fn int8_is_near_float32_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = |precision| latents(folder.path(), precision);
    let plain = draw(folder.path(), "float32");
    assert_eq!(plain.code, Some(0), "{}", plain.stderr);
    for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
        let int8 = draw_with(folder.path(), "int8", Some(set));
        if !set.has_int8() && set != InstructionSet::Portable {
            assert_eq!(int8.code, Some(2));
            let told = format!("device.precision: int8 needs AVX-512 VNNI, and {} is chosen", set.name());
            assert!(int8.stderr.contains(&told), "{}", int8.stderr);
            continue;
        }
        assert_eq!(int8.code, Some(0), "{}", int8.stderr);
        let apart = of("int8").difference(&of("float32"));
        println!("{}: {apart:.1e}", set.name());
        assert!(apart > 1e-4 && apart < 0.05, "{}: {apart}", set.name());
        let others = if set.is_faster_in_bf16() { "bf16" } else { "float32" };
        let told = format!("int8 and {others} ({})", set.name());
        assert!(int8.stderr.contains(&told), "{}", int8.stderr);
        assert!(int8.stdout.contains(&format!("\"precision\":\"{told}\"")), "{}", int8.stdout);
        assert_eq!(set == InstructionSet::Amx, int8.stderr.contains("int8 is slower than bf16"), "{}", int8.stderr);
    }
}

/// All but the linear layers computes as with `auto`, and falls back to float32 where that does.
#[test]
fn int8_leaves_the_rest_to_auto() {
    let plan = |precision: &str| {
        let text = format!("[model]\npath = {:?}\n[task.text-to-image]\nprompt = \"\"\n", root().join("models/shapes"));
        let set = [format!("device.precision={precision}"), "device.memory_budget=\"2 GB\"".to_owned()].to_vec();
        let spec = Spec::parse(&text, None, &Overrides { set, ..Overrides::default() }).expect("a pipeline");
        Plan::new(spec).map(|plan| plan.execution)
    };
    let auto = plan("auto").expect("a plan");
    let Ok(int8) = plan("int8") else { return assert!(!InstructionSet::used().has_int8()) };
    assert_eq!(int8.automatic_bf16(), auto.automatic_bf16());
    assert_eq!(int8.automatic_bf16().is_empty(), !InstructionSet::used().is_faster_in_bf16());
}

#[test]
fn bf16_without_a_cache_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = ldm_ort(folder.path());
    command.args(["check", "--set", "device.precision=bf16"]).arg(root().join("pipeline.toml"));
    command.env("LDM_ORT_OPTIMIZE", "0");
    let told = answer(command);
    let reason =
        if InstructionSet::best().has_bf16() { "there is no cache to keep them in" } else { "this one does not have" };
    assert_eq!(told.code, Some(2));
    assert!(told.stderr.contains("device.precision") && told.stderr.contains(reason), "{}", told.stderr);
}

#[test]
fn bf16_of_graphs_that_are_not_optimized_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = ldm_ort(folder.path());
    command.args(["check", "--set", "device.precision=bf16", "--set", "device.optimize=false"]);
    let told = answer({
        command.arg(root().join("pipeline.toml"));
        command
    });
    assert_eq!(told.code, Some(2));
    assert!(told.stderr.contains("bf16 is made when graphs are optimized"), "{}", told.stderr);
    let mut command = ldm_ort(folder.path());
    command.args(["check", "--set", "device.precision=fp16"]).arg(root().join("pipeline.toml"));
    let told = answer(command);
    assert_eq!(told.code, Some(2));
    assert!(
        told.stderr.contains("fp16") && told.stderr.contains("float32, bf16, bfloat16, int8, auto"),
        "{}",
        told.stderr
    );
}

/// Runs the tiny Sana, in whose denoiser nothing is wide enough for bf16, with a precision and a cache of graphs.
fn draw_narrow(folder: &Path, precision: &str) -> Answer {
    draw_narrow_with(folder, precision, &[])
}

/// The same with more flags.
fn draw_narrow_with(folder: &Path, precision: &str, flags: &[&str]) -> Answer {
    let mut command = ldm_ort(folder);
    command.args(["run".as_ref(), root().join("tests/golden/families/sana/pipeline.toml").as_os_str()]);
    command.args(["--precision", precision, "--json", "--output", precision]).args(flags);
    command.env_remove("LDM_ORT_OPTIMIZE").env("LDM_ORT_CACHE_DIR", folder.join("cache"));
    command.env("ORT_DYLIB_PATH", runtime().path());
    answer(command)
}

/// The first image that a run with `--json` made, and its record.
fn image_of(folder: &Path, told: &Answer) -> (RgbImage, Record) {
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let told: Value = serde_json::from_str(told.stdout.lines().next().unwrap_or_default()).expect("an object");
    let path = folder.join(told["path"].as_str().expect("a path"));
    let record = metadata::read_record(&path).expect("a record");
    (image::open(&path).expect("an image").to_rgb8(), record)
}

/// The record would call its float32 products bf16.
#[test]
fn a_denoiser_without_products_for_the_precision_is_refused() {
    let best = InstructionSet::best();
    for (precision, _) in [("bf16", best.has_bf16()), ("int8", best.has_int8())].into_iter().filter(|(_, has)| *has) {
        let folder = tempfile::tempdir().expect("a folder");
        let told = draw_narrow(folder.path(), precision);
        assert_eq!(told.code, Some(2));
        assert!(told.stderr.contains("device.precision: ") && told.stderr.contains("transformer"), "{}", told.stderr);
        assert!(told.stderr.contains(&format!("few products for {precision}")), "{}", told.stderr);
    }
}

/// All of its components are, its VAE too, which could be bf16.
#[test]
fn auto_of_a_denoiser_without_products_for_bf16_is_float32_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = draw_narrow(folder.path(), "float32");
    let (image, _) = image_of(folder.path(), &plain);
    let tried = || std::fs::read_dir(folder.path().join("cache/graphs/few-products")).into_iter().flatten().count();
    for _ in 0..2 {
        let auto = draw_narrow(folder.path(), "auto");
        let (own, record) = image_of(folder.path(), &auto);
        assert_eq!(own, image);
        assert_eq!(record.precision, None);
        assert!(record.arithmetic.ends_with(", optimized graphs"), "{}", record.arithmetic);
        assert!(auto.stdout.contains("\"precision\":\"float32\""), "{}", auto.stdout);
        assert!(!auto.stderr.contains("bf16") && !auto.stderr.contains("as exported"), "{}", auto.stderr);
        assert_eq!(tried(), usize::from(InstructionSet::best().is_faster_in_bf16()));
    }
}

/// Weights of float32 are twice as large as those that the budget was planned with.
#[test]
fn auto_within_a_budget_for_bf16_is_refused_where_it_turns_out_as_float32() {
    let folder = tempfile::tempdir().expect("a folder");
    let told = draw_narrow_with(folder.path(), "auto", &["--set", "device.memory_budget=\"2 GB\""]);
    if InstructionSet::best().is_faster_in_bf16() {
        assert_eq!(told.code, Some(2), "{}", told.stderr);
        assert!(told.stderr.contains("device.memory_budget: is planned with transformer in bf16"), "{}", told.stderr);
    } else {
        assert_eq!(told.code, Some(0), "{}", told.stderr);
    }
}

/// The denoiser would run in float32 as it was exported.
#[test]
fn bf16_of_a_denoiser_that_cannot_be_cached_is_refused_and_auto_is_float32() {
    if !InstructionSet::best().has_bf16() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // A file in the place of the cache's folder.
    std::fs::create_dir(folder.path().join("cache")).expect("a folder");
    std::fs::write(folder.path().join("cache/graphs"), "").expect("a file");
    let told = draw(folder.path(), "bf16");
    assert_eq!(told.code, Some(2), "{}", told.stderr);
    assert!(told.stderr.contains("device.precision: is kept in the graph cache, and "), "{}", told.stderr);
    let auto = draw(folder.path(), "auto");
    assert_eq!(auto.code, Some(0), "{}", auto.stderr);
    assert!(auto.stdout.contains("\"precision\":\"float32\"") && !auto.stderr.contains("bf16"), "{}", auto.stderr);
    assert!(auto.stderr.contains("the graph cache in"), "{}", auto.stderr);
}
